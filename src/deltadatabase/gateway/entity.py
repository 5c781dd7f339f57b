"""``/entity/{schema_id}``: the hot path, served without the framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Final

import msgspec

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, Principal, require
from deltadatabase.errors import Invalid, MethodNotAllowed, NotFound
from deltadatabase.gateway.asgi import Answer, Headers, Timing
from deltadatabase.gateway.conditions import NO_CONDITIONS, Conditions, idempotency_key
from deltadatabase.gateway.edge import Exchange
from deltadatabase.gateway.idempotency import REPLAYED, IdempotentWrites, keyed_write
from deltadatabase.gateway.ports import Entities
from deltadatabase.gateway.request import etags, query_values
from deltadatabase.model import Result
from deltadatabase.schema.document import split_documents
from deltadatabase.storage.paths import check_key, check_schema_id

PREFIX: Final = "/entity/"
METHODS: Final = ("GET", "HEAD", "PUT", "DELETE")

JSON: Final = (b"content-type", b"application/json")
"""Header of every body that is no problem."""
# Without it a browser may guess a lifetime from Last-Modified and show an old document.
_REVALIDATE: Final = (b"cache-control", b"no-cache")
HTTP_TIME_S_MAX: Final = 253_402_300_799
"""The last second of the year 9999."""
_REMEMBERED_BYTES_MAX: Final = 512
"""Longer queries are not kept in memory for the next time."""
_STATUS_OK: Final = b'{"status":"ok"}'

Sending = Callable[[bytes | None, Conditions], Awaitable[Result]]
"""Sends a write under a write id, or a new one, and conditions."""


class EntityHandler:
    """Answers entity requests.

    Args:
        entities: where documents are.
        accounts: who may do what.
        idempotent: performs writes that have an ``Idempotency-Key``.
        body_bytes_max: limit of a PUT's body.
    """

    def __init__(
        self, entities: Entities, accounts: Accounts, idempotent: IdempotentWrites, body_bytes_max: int
    ) -> None:
        self._entities = entities
        self._accounts = accounts
        self._idempotent = idempotent
        self._body_bytes_max = body_bytes_max

    async def __call__(self, exchange: Exchange) -> Answer:
        """Answer one request. Raises ``DeltaError``."""
        head = exchange.head
        schema_id = head.path[len(PREFIX) :]
        if not schema_id:
            raise NotFound("there is nothing at this path", code="no_route")
        if head.method not in METHODS:
            raise MethodNotAllowed("entities know no such method", allow=METHODS)
        principal = self._accounts.authenticate(head.authorization)
        check_schema_id(schema_id)
        if head.method == "PUT":
            require(principal, Permission.WRITE, schema_id)
            return await self._put(principal, schema_id, exchange)
        key = entity_key(head.query)
        if head.method == "DELETE":
            require(principal, Permission.WRITE, schema_id)
            return await self._delete(principal, schema_id, key, exchange)
        require(principal, Permission.READ, schema_id)
        unless = head.fields.get(b"if-none-match")
        if unless is None:
            # Most reads need nothing to be waited for.
            result = self._entities.cached(schema_id, key, request_id=exchange.request_id)
            if result is not None:
                return document_answer(result)
        return document_answer(
            await self._entities.get(
                schema_id, key, if_none_match=etags(unless), request_id=exchange.request_id
            )
        )

    async def _put(self, principal: Principal, schema_id: str, exchange: Exchange) -> Answer:
        named = idempotency_key(exchange.head.fields)
        body = await exchange.read_body(self._body_bytes_max)
        # The key may have ended while the body arrived.
        self._accounts.confirm(exchange.head.authorization)
        documents = split_documents(body)
        for key in documents:
            check_entity_key(key)
        if named is None:
            results = await self._entities.put(schema_id, documents, request_id=exchange.request_id)
        else:
            results = await self._idempotent.put_all(
                [
                    keyed_write(principal, named, "PUT", schema_id, key, document)
                    for key, document in documents.items()
                ],
                documents,
                request_id=exchange.request_id,
            )
        versions = {key: result.version for key, result in results.items()}
        # They went on beside each other: the request took as long as the longest of them.
        longest = max(results.values(), key=_worker_us) if len(results) > 1 else next(iter(results.values()))
        timing = worker_timing(longest)
        answer = Answer(200, [JSON], msgspec.json.encode({"status": "ok", "versions": versions}), timing)
        if named is not None and all(result.repeated for result in results.values()):
            answer.headers.append(REPLAYED)
        return answer

    async def _delete(self, principal: Principal, schema_id: str, key: str, exchange: Exchange) -> Answer:
        named = idempotency_key(exchange.head.fields)
        send = deleting(self._entities, schema_id, key, exchange.request_id)
        if named is None:
            result = await send(None, NO_CONDITIONS)
        else:
            write = keyed_write(principal, named, "DELETE", schema_id, key)
            result = await self._idempotent.write(write, send)
        answer = Answer(200, [JSON], _STATUS_OK, worker_timing(result))
        if named is not None and result.repeated:
            answer.headers.append(REPLAYED)
        return answer


def document_answer(result: Result) -> Answer:
    """Answer a read: the document, or 304."""
    headers = validators(result)
    if result.not_modified:
        return Answer(304, headers, b"", worker_timing(result))
    headers.append(JSON)
    return Answer(200, headers, result.document, worker_timing(result))


def validators(result: Result) -> Headers:
    """``ETag``, ``Last-Modified`` and the wish to be asked again each time, of an entity that is there."""
    return [
        (b"etag", result.etag.encode()),
        (b"last-modified", http_date(result.updated_ms // 1000)),
        _REVALIDATE,
    ]


def deleting(entities: Entities, schema_id: str, key: str, request_id: str) -> Sending:
    """How an entity is deleted, under a write id and conditions that are yet to be chosen."""

    def send(write_id: bytes | None, when: Conditions) -> Awaitable[Result]:
        return entities.delete(
            schema_id,
            key,
            if_match=when.if_match,
            if_none_match=when.if_none_match,
            write_id=write_id,
            request_id=request_id,
        )

    return send


def entity_key(query: bytes) -> str:
    """The one ``key`` of a query string.

    Raises:
        Invalid: ``missing_key``, ``repeated_key``, ``bad_query`` or ``invalid_key``.
    """
    return _remembered_key(query) if len(query) <= _REMEMBERED_BYTES_MAX else _entity_key(query)


def _entity_key(query: bytes) -> str:
    values = query_values(query, "key")
    if not values:
        raise Invalid("the query parameter 'key' is missing", code="missing_key")
    if len(values) > 1:
        raise Invalid("the query parameter 'key' is given more than once", code="repeated_key")
    return check_entity_key(values[0])


# Clients ask for the same keys again and again.
_remembered_key = lru_cache(maxsize=8192)(_entity_key)


def check_entity_key(key: str) -> str:
    """Return ``key`` if ``/entity`` serves it: no slash, backslash or ``..``, as its clients expect.

    Raises:
        Invalid: ``invalid_key``.
    """
    check_key(key)
    if "/" in key or "\\" in key or ".." in key:
        raise Invalid("the key holds '/', '\\' or '..'", code="invalid_key")
    return key


def worker_timing(result: Result) -> Timing:
    """The worker's part of a ``Server-Timing`` header: the steps that took time."""
    if not (result.queue_us or result.validate_us or result.seal_us or result.store_us):
        return ()
    steps = (
        ("queue", result.queue_us),
        ("validate", result.validate_us),
        ("seal", result.seal_us),
        ("store", result.store_us),
    )
    return tuple((name, us) for name, us in steps if us)


def _worker_us(result: Result) -> int:
    return result.queue_us + result.validate_us + result.seal_us + result.store_us


@lru_cache(maxsize=1024)
def http_date(time_s: int) -> bytes:
    """A time in seconds since the Unix epoch, as HTTP headers write it."""
    # A year has four digits there: a clock gone wild may have written a later one.
    return formatdate(min(time_s, HTTP_TIME_S_MAX), usegmt=True).encode()
