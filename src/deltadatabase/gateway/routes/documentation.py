"""The API's description: for programs, and for people."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Redirect

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, reaches, require
from deltadatabase.errors import Conflict, NotFound, Overloaded
from deltadatabase.gateway import docs_page, openapi
from deltadatabase.gateway.edge import exchange_of
from deltadatabase.gateway.openapi.stored import with_stored
from deltadatabase.gateway.ports import Schemas
from deltadatabase.gateway.request import flag
from deltadatabase.limits import (
    DESCRIBED_AT_ONCE_MAX,
    DESCRIBED_READS_MAX,
    DESCRIBED_SCHEMAS_BYTES_MAX,
    DESCRIBED_SCHEMAS_MAX,
)


def handlers(
    version: str, schemas: Schemas, accounts: Accounts, *, public_schemas: bool
) -> list[HTTPRouteHandler]:
    """Routes ``/``, ``/openapi.json`` and ``/docs``; both documents are built once.

    Args:
        version: of the program.
        schemas: where the stored ones are, for ``?schemas=true``.
        accounts: who may read them.
        public_schemas: anybody may.
    """
    api = openapi.document(version, public_schemas=public_schemas)
    description = msgspec.json.encode(api)
    page = docs_page.render(api).encode()
    under_way = asyncio.Semaphore(DESCRIBED_AT_ONCE_MAX)

    @get("/")
    async def root() -> Redirect:
        return Redirect("/docs", status_code=302)

    @get("/openapi.json")
    async def openapi_json(request: Request[Any, Any, Any]) -> Response[bytes]:
        head = exchange_of(request.scope).head
        if not flag(head.query, "schemas"):
            return Response(description, media_type="application/json")
        principal = None
        if not public_schemas:
            principal = accounts.authenticate(head.authorization)
            require(principal, Permission.READ)
        if under_way.locked():
            raise Overloaded("others are having all schemas described", code="schemas_busy")
        async with under_way:
            names = [
                name for name in await schemas.schema_list() if principal is None or reaches(principal, name)
            ]
            texts = await _texts(schemas, names[:DESCRIBED_SCHEMAS_MAX])
            # In a thread: it is plain Python, which lets others run.
            body = await asyncio.to_thread(_described, api, texts, len(names) - len(texts))
        return Response(body, media_type="application/json")

    @get("/docs")
    async def docs() -> Response[bytes]:
        return Response(
            page,
            media_type="text/html",
            headers={
                "content-security-policy": docs_page.CONTENT_SECURITY_POLICY,
                "referrer-policy": "no-referrer",
            },
        )

    return [root, openapi_json, docs]


async def _texts(schemas: Schemas, names: list[str]) -> dict[str, bytes]:
    """Texts by schema id, in this order, up to a bounded number of bytes; what is gone is left out."""
    texts: dict[str, bytes] = {}
    left = DESCRIBED_SCHEMAS_BYTES_MAX
    for begin in range(0, len(names), DESCRIBED_READS_MAX):
        part = names[begin : begin + DESCRIBED_READS_MAX]
        for name, text in zip(part, await asyncio.gather(*(_text(schemas, n) for n in part)), strict=True):
            if text is None:
                continue
            left -= len(text)
            if left < 0:
                return texts
            texts[name] = text
    return texts


async def _text(schemas: Schemas, name: str) -> bytes | None:
    try:
        return (await schemas.schema_get(name)).document
    except (NotFound, Conflict):
        return None


def _described(api: dict[str, Any], texts: dict[str, bytes], left_out: int) -> bytes:
    return msgspec.json.encode(with_stored(api, texts, left_out=left_out))
