"""``/entity/{schema_id}``: the hot path, served without the framework."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from typing import Final

import msgspec

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, require
from deltadatabase.errors import Invalid, MethodNotAllowed, NotFound
from deltadatabase.gateway.asgi import Answer, Headers
from deltadatabase.gateway.edge import Exchange
from deltadatabase.gateway.ports import Entities
from deltadatabase.gateway.request import etags, query_values
from deltadatabase.model import Result
from deltadatabase.schema.document import split_documents
from deltadatabase.storage.paths import check_key, check_schema_id

PREFIX: Final = "/entity/"
METHODS: Final = ("GET", "HEAD", "PUT", "DELETE")

_JSON: Final = (b"content-type", b"application/json")
# Without it a browser may guess a lifetime from Last-Modified and show an old document.
_REVALIDATE: Final = (b"cache-control", b"no-cache")
HTTP_TIME_S_MAX: Final = 253_402_300_799
"""The last second of the year 9999."""
_REMEMBERED_BYTES_MAX: Final = 512
"""Longer queries are not kept in memory for the next time."""
_STATUS_OK: Final = b'{"status":"ok"}'


class EntityHandler:
    """Answers entity requests.

    Args:
        entities: where documents are.
        accounts: who may do what.
        body_bytes_max: limit of a PUT's body.
    """

    def __init__(self, entities: Entities, accounts: Accounts, body_bytes_max: int) -> None:
        self._entities = entities
        self._accounts = accounts
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
            return await self._put(schema_id, exchange)
        key = entity_key(head.query)
        if head.method != "DELETE":
            require(principal, Permission.READ, schema_id)
            unless = head.fields.get(b"if-none-match")
            if unless is None:
                # Most reads need nothing to be waited for.
                result = self._entities.cached(schema_id, key, request_id=exchange.request_id)
                if result is not None:
                    return _document(result)
            return _document(
                await self._entities.get(
                    schema_id, key, if_none_match=etags(unless), request_id=exchange.request_id
                )
            )
        require(principal, Permission.WRITE, schema_id)
        result = await self._entities.delete(schema_id, key, request_id=exchange.request_id)
        return Answer(200, [_JSON], _STATUS_OK, worker_timing(result))

    async def _put(self, schema_id: str, exchange: Exchange) -> Answer:
        body = await exchange.read_body(self._body_bytes_max)
        # The key may have ended while the body arrived.
        self._accounts.confirm(exchange.head.authorization)
        documents = split_documents(body)
        for key in documents:
            check_entity_key(key)
        results = await self._entities.put(schema_id, documents, request_id=exchange.request_id)
        versions = {key: result.version for key, result in results.items()}
        timing = worker_timing(next(iter(results.values()))) if len(results) == 1 else ""
        return Answer(200, [_JSON], msgspec.json.encode({"status": "ok", "versions": versions}), timing)


def _document(result: Result) -> Answer:
    headers: Headers = [
        (b"etag", result.etag.encode()),
        (b"last-modified", _http_date(result.updated_ms // 1000)),
        _REVALIDATE,
    ]
    if result.not_modified:
        return Answer(304, headers, b"", worker_timing(result))
    headers.append(_JSON)
    return Answer(200, headers, result.document, worker_timing(result))


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


def worker_timing(result: Result) -> str:
    """The worker's part of a ``Server-Timing`` header, each entry begun with ``", "``."""
    if not (result.queue_us or result.validate_us or result.seal_us or result.store_us):
        return ""
    parts = (
        ("queue", result.queue_us),
        ("validate", result.validate_us),
        ("seal", result.seal_us),
        ("store", result.store_us),
    )
    return "".join(f", {name};dur={us / 1000:.3f}" for name, us in parts if us)


@lru_cache(maxsize=1024)
def _http_date(time_s: int) -> bytes:
    # A year has four digits there: a clock gone wild may have written a later one.
    return formatdate(min(time_s, HTTP_TIME_S_MAX), usegmt=True).encode()
