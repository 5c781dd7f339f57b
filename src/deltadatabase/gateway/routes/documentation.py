"""The API's description: for programs, and for people."""

from __future__ import annotations

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Redirect

from deltadatabase.gateway import docs_page, openapi


def handlers(version: str, *, public_schemas: bool) -> list[HTTPRouteHandler]:
    """Routes ``/``, ``/openapi.json`` and ``/docs``; both documents are built once."""
    api = openapi.document(version, public_schemas=public_schemas)
    description = msgspec.json.encode(api)
    page = docs_page.render(api).encode()

    @get("/")
    async def root() -> Redirect:
        return Redirect("/docs", status_code=302)

    @get("/openapi.json")
    async def openapi_json() -> Response[bytes]:
        return Response(description, media_type="application/json")

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
