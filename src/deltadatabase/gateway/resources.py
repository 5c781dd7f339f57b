"""``/entities/{schema_id}/{key}``: one entity as an HTTP resource, with conditions and patches."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final
from urllib.parse import quote

import msgspec

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, Principal, require
from deltadatabase.errors import (
    DeltaError,
    MethodNotAllowed,
    NotFound,
    UnsupportedMediaType,
    VersionMismatch,
)
from deltadatabase.gateway import conditions as asked
from deltadatabase.gateway.asgi import Answer, Headers, StreamedAnswer
from deltadatabase.gateway.conditions import PATCH_TYPES, Conditions
from deltadatabase.gateway.edge import Exchange, Handler
from deltadatabase.gateway.entity import JSON, deleting, document_answer, validators, worker_timing
from deltadatabase.gateway.idempotency import REPLAYED, IdempotentWrites, keyed_write
from deltadatabase.gateway.ports import Entities
from deltadatabase.gateway.problem import problem
from deltadatabase.gateway.request import decode_path, parameters
from deltadatabase.model import Result
from deltadatabase.storage.paths import check_key, check_schema_id

PREFIX: Final = "/entities/"
METHODS: Final = ("GET", "HEAD", "PUT", "PATCH", "DELETE")
MINIMAL: Final = "minimal"
REPRESENTATION: Final = "representation"

_ACCEPT_PATCH: Final = (b"accept-patch", ", ".join(PATCH_TYPES).encode())


class Stored(msgspec.Struct, frozen=True):
    """What a PUT answers: the entity's version and ETag."""

    status: str
    version: int
    etag: str


class ResourceHandler:
    """Answers requests on single entities, and hands those without a key on.

    Args:
        entities: where documents are.
        accounts: who may do what.
        idempotent: performs writes that have an ``Idempotency-Key``.
        body_bytes_max: limit of a document or patch.
        listing: answers ``/entities/{schema_id}``; None: nothing is there.
    """

    def __init__(
        self,
        entities: Entities,
        accounts: Accounts,
        idempotent: IdempotentWrites,
        body_bytes_max: int,
        listing: Handler | None = None,
    ) -> None:
        self._entities = entities
        self._accounts = accounts
        self._idempotent = idempotent
        self._body_bytes_max = body_bytes_max
        self._listing = listing
        self._served = {"PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}

    async def __call__(self, exchange: Exchange) -> Answer | StreamedAnswer:
        """Answer one request. Raises ``DeltaError``."""
        head = exchange.head
        schema_id, key = names_of(head.raw_path)
        if not schema_id or not key:
            if not schema_id or self._listing is None:
                raise NotFound("there is nothing at this path", code="no_route")
            return await self._listing(exchange)
        if head.method not in METHODS:
            raise MethodNotAllowed("entities know no such method", allow=METHODS)
        principal = self._accounts.authenticate(head.authorization)
        check_schema_id(schema_id)
        check_key(key)
        if head.query:
            parameters(head.query)  # There are none.
        write = self._served.get(head.method)
        if write is not None:
            require(principal, Permission.WRITE, schema_id)
            return await write(exchange, principal, schema_id, key)
        require(principal, Permission.READ, schema_id)
        wanted = asked.conditions_of(head.fields)
        unless = wanted.if_none_match
        result = (
            self._entities.cached(schema_id, key, request_id=exchange.request_id) if unless is None else None
        )
        if result is None:
            result = await self._entities.get(
                schema_id, key, if_none_match=unless, request_id=exchange.request_id
            )
        return document_answer(asked.check_read(head.fields, wanted, result))

    async def _put(self, exchange: Exchange, principal: Principal, schema_id: str, key: str) -> Answer:
        fields = exchange.head.fields
        asked.check_document_type(fields)
        wanted = asked.write_conditions_of(fields)
        named = asked.idempotency_key(fields)
        document = await self._body(exchange)

        def send(write_id: bytes | None, when: Conditions) -> Awaitable[Result]:
            return self._entities.put_one(
                schema_id,
                key,
                document,
                if_match=when.if_match,
                if_none_match=when.if_none_match,
                write_id=write_id,
                request_id=exchange.request_id,
            )

        if named is None:
            result = await send(None, wanted)
        else:
            write = keyed_write(principal, named, "PUT", schema_id, key, document, conditions=wanted)
            result = await self._idempotent.write(write, send)
        headers = _headers(result, named)
        if result.created:
            headers.append((b"location", path_of(schema_id, key).encode()))
        status = 201 if result.created else 200
        preference = asked.preference(fields)
        if preference:
            headers.append(_applied(preference))
        if preference == MINIMAL:
            return Answer(status if result.created else 204, headers, b"", worker_timing(result))
        headers.append(JSON)
        if preference == REPRESENTATION:
            return Answer(status, headers, document, worker_timing(result))
        body = msgspec.json.encode(Stored("ok", result.version, result.etag))
        return Answer(status, headers, body, worker_timing(result))

    async def _patch(self, exchange: Exchange, principal: Principal, schema_id: str, key: str) -> Answer:
        fields = exchange.head.fields
        try:
            kind = asked.patch_kind(fields)
        except UnsupportedMediaType as exc:
            refused = problem(exc, exchange.request_id)
            return msgspec.structs.replace(refused, headers=[*refused.headers, _ACCEPT_PATCH])
        # What comes of a patch depends on the document: `test`, `copy` and `move` ask for values, and whoever
        # may write a schema as well can ask of a merge patch whether its result is valid.
        require(principal, Permission.READ, schema_id)
        wanted = asked.write_conditions_of(fields)
        named = asked.idempotency_key(fields)
        patch = await self._body(exchange)

        def send(write_id: bytes | None, when: Conditions) -> Awaitable[Result]:
            return self._entities.patch(
                schema_id,
                key,
                patch,
                kind,
                if_match=when.if_match,
                if_none_match=when.if_none_match,
                write_id=write_id,
                request_id=exchange.request_id,
            )

        try:
            if named is None:
                result = await send(None, wanted)
            else:
                write = keyed_write(
                    principal, named, "PATCH", schema_id, key, patch, kind=kind, conditions=wanted
                )
                result = await self._idempotent.write(write, send)
        except VersionMismatch as exc:
            raise asked.absent(exc) or exc from None
        headers = _headers(result, named)
        preference = asked.preference(fields)
        if preference == MINIMAL:
            headers.append(_applied(preference))
            return Answer(204, headers, b"", worker_timing(result))
        document = await self._patched(schema_id, key, result, exchange)
        if not document:
            return Answer(204, headers, b"", worker_timing(result))
        if preference:
            headers.append(_applied(preference))
        return Answer(200, [*headers, JSON], document, worker_timing(result))

    async def _patched(self, schema_id: str, key: str, result: Result, exchange: Exchange) -> bytes:
        """What the document became; b"" if that was long ago and it is another one now."""
        if result.document or not result.repeated:
            return result.document
        try:
            present = await self._entities.get(schema_id, key, request_id=exchange.request_id)
        except DeltaError:
            return b""  # The patch was applied all the same.
        return present.document if present.etag == result.etag else b""

    async def _delete(self, exchange: Exchange, principal: Principal, schema_id: str, key: str) -> Answer:
        fields = exchange.head.fields
        wanted = asked.write_conditions_of(fields)
        named = asked.idempotency_key(fields)
        send = deleting(self._entities, schema_id, key, exchange.request_id)
        try:
            if named is None:
                result = await send(None, wanted)
            else:
                write = keyed_write(principal, named, "DELETE", schema_id, key, conditions=wanted)
                result = await self._idempotent.write(write, send)
        except VersionMismatch as exc:
            raise asked.absent(exc) or exc from None
        if not result.found:
            raise NotFound("there is no such entity", code="entity_not_found")
        headers: Headers = [REPLAYED] if named is not None and result.repeated else []
        return Answer(204, headers, b"", worker_timing(result))

    async def _body(self, exchange: Exchange) -> bytes:
        body = await exchange.read_body(self._body_bytes_max)
        # The key may have ended while the body arrived.
        self._accounts.confirm(exchange.head.authorization)
        return body


def names_of(raw_path: bytes) -> tuple[str, str]:
    """Schema id and key of a path, neither checked; "" for one that isn't there.

    The key is all that follows the schema id's slash, percent-decoded once: slashes in it may be
    escaped or not.

    Raises:
        Invalid: ``bad_path``.
    """
    _, first, *rest = raw_path.split(b"/", 3) if raw_path.startswith(b"/") else (b"", b"")
    if decode_path(first) != "entities" or not rest:
        return "", ""
    return decode_path(rest[0]), decode_path(rest[1]) if len(rest) > 1 else ""


def path_of(schema_id: str, key: str) -> str:
    """Path of an entity, escaped so that no proxy changes it."""
    escaped = quote(key, safe="")
    # Dots alone are not escaped by rule, and a segment of them is taken for a step upwards.
    return f"{PREFIX}{schema_id}/{escaped.replace('.', '%2E') if escaped in ('.', '..') else escaped}"


def _headers(result: Result, named: bytes | None) -> Headers:
    headers = validators(result)
    if named is not None and result.repeated:
        headers.append(REPLAYED)
    return headers


def _applied(preference: str) -> tuple[bytes, bytes]:
    return (b"preference-applied", f"return={preference}".encode())
