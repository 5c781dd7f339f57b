"""JSON Schemas: stored, read, removed and listed."""

from __future__ import annotations

from contextlib import AbstractContextManager

from litestar import Response, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, reaches
from deltadatabase.errors import Invalid
from deltadatabase.gateway.auditing import RequestAudit, telling
from deltadatabase.gateway.counting import SchemaCount, counted
from deltadatabase.gateway.edge import exchange_of
from deltadatabase.gateway.ports import Listing, Schemas
from deltadatabase.gateway.request import query_values
from deltadatabase.gateway.routes.access import AuthorizedRequest, Guard, Status, authorized_body, guard
from deltadatabase.storage.paths import check_schema_id
from deltadatabase.telemetry.audit import Action


def handlers(
    schemas: Schemas,
    listing: Listing,
    accounts: Accounts,
    events: RequestAudit,
    *,
    body_bytes_max: int,
    public: bool,
) -> list[HTTPRouteHandler]:
    """Routes ``/schema/{id}``, ``/schemas/{id}``, ``/admin/schemas`` and ``/api/schemas``.

    Args:
        schemas: where schemas are.
        listing: where entities are counted.
        accounts: who may do what.
        events: hears of changes.
        body_bytes_max: limit of a schema's size.
        public: anybody may read and list schemas.
    """
    write = [guard(accounts, Permission.WRITE)]
    read = [guard(accounts, Permission.READ)]
    read_unless_public: list[Guard] = [] if public else read

    @put("/schema/{schema_id:str}", guards=write)
    async def put_schema(request: AuthorizedRequest, schema_id: FromPath[str]) -> Status:
        return await store(request, schema_id)

    @post("/schemas/{schema_id:str}", status_code=200, guards=write)
    async def post_schema(request: AuthorizedRequest, schema_id: FromPath[str]) -> Status:
        return await store(request, schema_id)

    async def store(request: AuthorizedRequest, schema_id: str) -> Status:
        document = await authorized_body(request, accounts, body_bytes_max)
        with told(Action.SCHEMA_PUT, request, schema_id):
            await schemas.schema_put(schema_id, document)
        return Status()

    def told(action: Action, request: AuthorizedRequest, schema_id: str) -> AbstractContextManager[None]:
        return telling(
            lambda outcome: events.done(action, request, request.user, outcome, schema_id=schema_id)
        )

    @get("/schema/{schema_id:str}", guards=read_unless_public)
    async def get_schema(schema_id: FromPath[str]) -> Response[bytes]:
        result = await schemas.schema_get(check_schema_id(schema_id))
        return Response(result.document, media_type="application/json")

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
        with_counts = _flag(request, "counts")
        names = visible(request, await schemas.namespaces())
        return await counted(listing, names, await schemas.schema_list()) if with_counts else names

    def visible(request: AuthorizedRequest, names: tuple[str, ...]) -> list[str]:
        """Leave out what the caller's key doesn't extend to; a public list is not asked for by a caller."""
        principal = request.scope.get("user")
        return [name for name in names if principal is None or reaches(principal, name)]

    return [put_schema, post_schema, get_schema, delete_schema, list_schemas, list_namespaces]


def _flag(request: AuthorizedRequest, name: str) -> bool:
    """A query parameter that is ``true`` or ``false``; False without it. Raises Invalid."""
    values = query_values(exchange_of(request.scope).head.query, name)
    if values in ([], ["false"]):
        return False
    if values == ["true"]:
        return True
    raise Invalid(f"the query parameter '{name}' is 'true' or 'false'", code="bad_query")
