"""Every single request of the API: how it is asked, and how its answer is read. Pure.

A call can be sent alone (``Client.call``) or with others in one request (``Client.batch``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar, overload

import msgspec

from deltadatabase.client import documents
from deltadatabase.client.answers import (
    ApiKey,
    Entity,
    Item,
    NewApiKey,
    Page,
    SchemaCount,
    SchemaStored,
    Worker,
    Written,
)
from deltadatabase.client.problems import not_ours
from deltadatabase.client.requests import (
    Request,
    Response,
    conditions,
    http_date,
    idempotency,
    segment,
    version_of,
    with_query,
)

T = TypeVar("T")
Tags = str | Sequence[str] | None
Include = Literal["meta", "document"]

_JSON: Final = {"content-type": "application/json"}
MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and what its successful answer means."""

    request: Request
    parse: Callable[[Response], T]

    def named(self, key: str) -> Call[T]:
        """The same write with an idempotency key, unless it has one or is no write that knows them."""
        request = self.request
        if request.may_repeat or not request.path.startswith("/entities/"):
            return self
        return replace(self, request=replace(request, headers={**request.headers, **idempotency(key)}))


# -- entities --------------------------------------------------------------------------


@overload
def get(schema: str, key: str) -> Call[Entity[Any]]: ...
@overload
def get(schema: str, key: str, *, as_: type[T], known: Entity[T] | None = None) -> Call[Entity[T]]: ...
@overload
def get(schema: str, key: str, *, known: Entity[T]) -> Call[Entity[T]]: ...
def get(
    schema: str, key: str, *, as_: type[Any] | Any = Any, known: Entity[Any] | None = None
) -> Call[Entity[Any]]:
    """Read an entity; ``known`` comes back itself if it is still current."""

    def parse(response: Response) -> Entity[Any]:
        if response.status == 304 and known is not None:
            return known
        written = _written(key, response)
        return Entity(
            key=key,
            value=documents.decode(response.body, as_),
            etag=written.etag,
            version=written.version,
            updated_at=written.updated_at,
        )

    headers = conditions(if_none_match=known.etag if known is not None else None)
    return Call(Request("GET", entity_path(schema, key), headers), parse)


def head(schema: str, key: str) -> Call[Written]:
    """Ask which state an entity has, without its document."""
    return Call(Request("HEAD", entity_path(schema, key)), lambda response: _written(key, response))


def put(
    schema: str,
    key: str,
    value: object,
    *,
    if_match: Tags = None,
    if_none_match: Tags = None,
    idempotency_key: str | None = None,
) -> Call[Written]:
    """Store a document; bytes are JSON text, anything else is written as JSON."""
    headers = _JSON | _write_headers(if_match, if_none_match, idempotency_key)
    request = Request("PUT", entity_path(schema, key), headers, documents.encode(value))
    return Call(request, lambda response: _written(key, response))


def patch(
    schema: str,
    key: str,
    change: object,
    *,
    kind: Literal["merge", "json"] | None = None,
    if_match: Tags = None,
    if_none_match: Tags = None,
    idempotency_key: str | None = None,
) -> Call[Written]:
    """Change a part of a document.

    Args:
        schema: the schema id.
        key: the entity's name under it.
        change: a merge patch (RFC 7396), or a list of operations of a JSON patch (RFC 6902).
        kind: says which of both it is; None: a list is a JSON patch.
        if_match: ETags one of which must be current.
        if_none_match: ETags none of which may be current.
        idempotency_key: names this write for repeats.
    """
    text = documents.encode(change)
    if kind is None:
        kind = "json" if text.lstrip()[:1] == b"[" else "merge"
    headers = {"content-type": JSON_PATCH if kind == "json" else MERGE_PATCH, "prefer": "return=minimal"}
    headers |= _write_headers(if_match, if_none_match, idempotency_key)
    request = Request("PATCH", entity_path(schema, key), headers, text)
    return Call(request, lambda response: _written(key, response))


def delete(
    schema: str,
    key: str,
    *,
    if_match: Tags = None,
    if_none_match: Tags = None,
    idempotency_key: str | None = None,
) -> Call[Written]:
    """Remove an entity. An absent one is ``NotFound``."""
    headers = _write_headers(if_match, if_none_match, idempotency_key)
    return Call(
        Request("DELETE", entity_path(schema, key), headers), lambda response: _written(key, response)
    )


def list_page(
    schema: str,
    *,
    prefix: str = "",
    limit: int | None = None,
    after: str | None = None,
    include: Include | None = None,
    as_: type[Any] | Any = Any,
) -> Call[Page[Any]]:
    """List a part of a schema's entities, in the order of their stored names."""

    def parse(response: Response) -> Page[Any]:
        page = _read(response, _RawPage)
        return Page(tuple(_item(raw, as_) for raw in page.items), page.next)

    path = with_query(
        f"/entities/{segment(schema, 'schema id')}",
        prefix=prefix or None,
        limit=limit,
        after=after,
        include=include,
    )
    return Call(Request("GET", path), parse)


def position(schema: str) -> Call[str]:
    """Ask where the change feed is now: a token for ``since`` of ``changes``."""
    path = with_query(f"/changes/{segment(schema, 'schema id')}", feed="normal")
    return Call(Request("GET", path), lambda response: _read(response, _Position).next)


# -- schemas, keys, workers --------------------------------------------------------------


def schemas(*, templates: bool = False) -> Call[list[str]]:
    """List the schema ids that hold an entity or a schema; with ``templates`` those that have a schema."""
    path = "/admin/schemas" if templates else "/api/schemas"
    return Call(Request("GET", path), lambda response: _read(response, list[str]))


def schema_counts() -> Call[list[SchemaCount]]:
    """Count the entities of each schema id."""
    return Call(
        Request("GET", "/api/schemas?counts=true"), lambda response: _read(response, list[SchemaCount])
    )


def schema_get(schema: str) -> Call[bytes]:
    """Read a schema, byte for byte."""
    return Call(Request("GET", _schema_path(schema)), lambda response: response.body)


def schema_put(schema: str, value: object, *, dry_run: bool = False) -> Call[SchemaStored]:
    """Put a schema in force, or with ``dry_run`` only check it."""
    path = with_query(_schema_path(schema), dry_run="true" if dry_run else None)
    # The same bytes again leave the same schema.
    request = Request("PUT", path, _JSON, documents.encode(value), repeatable=True, harmless=dry_run)
    return Call(request, lambda response: _read(response, SchemaStored))


def schema_delete(schema: str) -> Call[None]:
    """Remove a schema; its entities stay and are validated no more."""
    return Call(Request("DELETE", _schema_path(schema)), _nothing)


def keys() -> Call[list[ApiKey]]:
    """List the API keys."""
    return Call(Request("GET", "/api/keys"), lambda response: _read(response, list[ApiKey]))


def key_create(
    name: str,
    permissions: Sequence[str],
    *,
    expires_in: str | None = None,
    schemas: Sequence[str] | None = None,
    rate_per_s: int | None = None,
) -> Call[NewApiKey]:
    """Make an API key."""
    asked: dict[str, object] = {"name": name, "permissions": [*permissions]}
    limits = {"expires_in": expires_in, "schemas": schemas, "rate_per_s": rate_per_s}
    asked |= {name: value for name, value in limits.items() if value is not None}
    request = Request("POST", "/api/keys", _JSON, documents.encode(asked))
    return Call(request, lambda response: _read(response, NewApiKey))


def key_delete(id: str) -> Call[None]:
    """End an API key, and every session that began with it."""
    return Call(Request("DELETE", f"/api/keys/{segment(id, 'id')}"), _nothing)


def workers() -> Call[list[Worker]]:
    """List the proc workers."""
    return Call(Request("GET", "/admin/workers"), lambda response: _read(response, list[Worker]))


# -- shared ----------------------------------------------------------------------------


class _RawItem(msgspec.Struct, frozen=True):
    key: str
    size: int
    updated_at: datetime
    version: int | None = None
    etag: str | None = None
    document: msgspec.Raw = msgspec.Raw()  # empty: there is none; a document may be null


class _RawPage(msgspec.Struct, frozen=True):
    items: tuple[_RawItem, ...]
    next: str | None = None


class _Position(msgspec.Struct, frozen=True):
    next: str


def entity_path(schema: str, key: str) -> str:
    """The path of an entity."""
    return f"/entities/{segment(schema, 'schema id')}/{segment(key, 'key')}"


def _schema_path(schema: str) -> str:
    return f"/schema/{segment(schema, 'schema id')}"


def _write_headers(if_match: Tags, if_none_match: Tags, idempotency_key: str | None) -> dict[str, str]:
    named = {} if idempotency_key is None else idempotency(idempotency_key)
    return conditions(if_match, if_none_match) | named


def _written(key: str, response: Response) -> Written:
    headers: Mapping[str, str] = response.headers
    etag = headers.get("etag", "")
    return Written(
        key=key,
        etag=etag,
        version=version_of(etag),
        updated_at=http_date(headers.get("last-modified")),
        created=response.status == 201,
        repeated=headers.get("idempotent-replayed", "") == "true",
    )


def _item(raw: _RawItem, as_: type[T]) -> Item[T]:
    return Item(
        key=raw.key,
        size=raw.size,
        updated_at=raw.updated_at,
        version=raw.version,
        etag=raw.etag,
        value=documents.decode(text, as_) if (text := bytes(raw.document)) else None,
    )


def _read(response: Response, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(response.body, type=shape)
    except msgspec.MsgspecError:
        raise not_ours() from None


def _nothing(response: Response) -> None:
    return None
