"""Is the process alive, and can it serve data? Without credentials, without the store."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from deltadatabase.errors import Unavailable
from deltadatabase.gateway.asgi import Answer
from deltadatabase.gateway.edge import exchange_of
from deltadatabase.gateway.ports import Cluster
from deltadatabase.gateway.problem import problem
from deltadatabase.gateway.routes.access import NO_STORE, Status
from deltadatabase.model import ReadinessCheck


class Health(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str
    version: str


class Ready(msgspec.Struct, frozen=True):
    """Data is served; each thing that must hold for it."""

    status: str
    checks: list[ReadinessCheck]


def handlers(cluster: Cluster, version: str) -> list[HTTPRouteHandler]:
    """Routes ``/health``, ``/livez`` and ``/readyz``."""

    @get("/health")
    async def health() -> Health:
        return Health("ok", version)

    @get("/livez")
    async def livez() -> Status:
        return Status()

    @get("/readyz")
    async def readyz(request: Request[Any, Any, Any]) -> Response[Any]:
        checks = list(cluster.readiness())
        failed = next((check for check in checks if not check.passed), None)
        if failed is None:
            return Response(Ready("ok", checks), headers=NO_STORE)
        reason = Unavailable(failed.detail, code=failed.code)
        return _response(problem(reason, exchange_of(request.scope).request_id, checks=checks))

    return [health, livez, readyz]


def _response(answer: Answer) -> Response[bytes]:
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(
        answer.body, status_code=answer.status, media_type=headers.pop("content-type"), headers=headers
    )
