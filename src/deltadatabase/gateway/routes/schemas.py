"""JSON Schemas: stored, read, removed and listed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

import msgspec
from litestar import Response, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, reaches, require
from deltadatabase.errors import Invalid
from deltadatabase.gateway.asgi import StreamedAnswer
from deltadatabase.gateway.auditing import RequestAudit, telling
from deltadatabase.gateway.counting import SchemaCount, counted
from deltadatabase.gateway.edge import answer_by_stream, exchange_of
from deltadatabase.gateway.ports import Listing, Schemas
from deltadatabase.gateway.request import etags, flag, parameters, switch
from deltadatabase.gateway.routes.access import (
    NO_STORE,
    AuthorizedRequest,
    Guard,
    Status,
    authorized_body,
    guard,
)
from deltadatabase.gateway.scan import Scans
from deltadatabase.gateway.schema_trial import SchemaTrials
from deltadatabase.storage.paths import check_schema_id
from deltadatabase.telemetry.audit import Action


class SchemaStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a schema.

    Attributes:
        status: ``ok``.
        schema_id: whose.
        version: hex SHA-256 of its bytes.
        enforced: it holds, on every worker, for each write that begins from now on.
        dry_run: it was only checked.
    """

    status: str
    schema_id: str
    version: str
    enforced: bool
    dry_run: bool = False


def handlers(
    schemas: Schemas,
    listing: Listing,
    accounts: Accounts,
    events: RequestAudit,
    *,
    scans: Scans,
    body_bytes_max: int,
    public: bool,
) -> list[HTTPRouteHandler]:
    """Routes ``/schema/{id}``, ``/schemas/{id}``, ``/admin/schemas`` and ``/api/schemas``.

    Args:
        schemas: where schemas are.
        listing: where entities are counted.
        accounts: who may do what.
        events: hears of changes.
        scans: hold stored entities against a schema.
        body_bytes_max: limit of a schema's size.
        public: anybody may read and list schemas.
    """
    write = [guard(accounts, Permission.WRITE)]
    read = [guard(accounts, Permission.READ)]
    read_unless_public: list[Guard] = [] if public else read
    trials = SchemaTrials()

    @put("/schema/{schema_id:str}", guards=write)
    async def put_schema(request: AuthorizedRequest, schema_id: FromPath[str]) -> SchemaStatus:
        return await store(request, schema_id)

    @post("/schemas/{schema_id:str}", status_code=200, guards=write)
    async def post_schema(request: AuthorizedRequest, schema_id: FromPath[str]) -> SchemaStatus:
        return await store(request, schema_id)

    async def store(request: AuthorizedRequest, schema_id: str) -> SchemaStatus:
        dry_run, with_scan = _wishes(exchange_of(request.scope).head.query)
        if with_scan:
            require(request.user, Permission.READ, schema_id)
        document = await authorized_body(request, accounts, body_bytes_max)
        if dry_run:
            version = await trials.version_of(document)
            if with_scan:
                scan(request, schema_id, document)
            return SchemaStatus(
                status="ok", schema_id=schema_id, version=version, enforced=False, dry_run=True
            )
        with told(Action.SCHEMA_PUT, request, schema_id):
            result = await schemas.schema_put(schema_id, document)
        return SchemaStatus(status="ok", schema_id=schema_id, version=result.schema_hash, enforced=True)

    def scan(request: AuthorizedRequest, schema_id: str, document: bytes) -> None:
        authorization = exchange_of(request.scope).head.authorization

        def may_go_on() -> None:
            principal = accounts.confirm(authorization)
            require(principal, Permission.READ, schema_id)
            require(principal, Permission.WRITE, schema_id)

        lines = scans.begin(schema_id, document, may_go_on)
        answer_by_stream(request.scope, StreamedAnswer(200, list(_NDJSON), lines))

    def told(action: Action, request: AuthorizedRequest, schema_id: str) -> AbstractContextManager[None]:
        return telling(
            lambda outcome: events.done(action, request, request.user, outcome, schema_id=schema_id)
        )

    @get("/schema/{schema_id:str}", guards=read_unless_public)
    async def get_schema(request: AuthorizedRequest, schema_id: FromPath[str]) -> Response[bytes]:
        result = await schemas.schema_get(check_schema_id(schema_id))
        etag = f'"{result.schema_hash}"'
        headers = {"etag": etag, "cache-control": "no-cache"}
        known = etags(exchange_of(request.scope).head.fields.get(b"if-none-match")) or ()
        if etag in known or "*" in known:
            return Response(b"", status_code=304, headers=headers, media_type="application/json")
        return Response(result.document, headers=headers, media_type="application/json")

    @delete("/schema/{schema_id:str}", status_code=200, guards=write)
    async def delete_schema(request: AuthorizedRequest, schema_id: FromPath[str]) -> Status:
        with told(Action.SCHEMA_DELETED, request, schema_id):
            await schemas.schema_delete(schema_id)
        return Status()

    @get("/admin/schemas", guards=read_unless_public)
    async def list_schemas(request: AuthorizedRequest) -> list[str]:
        return visible(request, await schemas.schema_list())

    @get("/api/schemas", guards=read)
    async def list_namespaces(request: AuthorizedRequest) -> list[str] | list[SchemaCount]:
        with_counts = flag(exchange_of(request.scope).head.query, "counts")
        names = visible(request, await schemas.namespaces())
        return await counted(listing, names, await schemas.schema_list()) if with_counts else names

    def visible(request: AuthorizedRequest, names: tuple[str, ...]) -> list[str]:
        """Leave out what the caller's key doesn't extend to; a public list is not asked for by a caller."""
        principal = request.scope.get("user")
        return [name for name in names if principal is None or reaches(principal, name)]

    return [put_schema, post_schema, get_schema, delete_schema, list_schemas, list_namespaces]


_NDJSON: Final = (
    (b"content-type", b"application/x-ndjson"),
    *((name.encode(), value.encode()) for name, value in NO_STORE.items()),
)


def _wishes(query: bytes) -> tuple[bool, bool]:
    """Whether a PUT is a dry run, and one with a scan. Raises Invalid."""
    given = parameters(query, "dry_run", "scan")
    dry_run, scan = switch(given, "dry_run"), switch(given, "scan")
    if scan and not dry_run:
        raise Invalid("a scan is part of a dry run: say dry_run=true, too", code="bad_query")
    return dry_run, scan
