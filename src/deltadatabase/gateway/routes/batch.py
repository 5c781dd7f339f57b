"""``POST /batch``: several requests in one."""

from __future__ import annotations

from typing import cast

from litestar import Response, post
from litestar.handlers import HTTPRouteHandler

from deltadatabase.auth.accounts import Accounts
from deltadatabase.errors import Invalid
from deltadatabase.gateway.asgi import Scope
from deltadatabase.gateway.batch import parse_batch
from deltadatabase.gateway.batching import BATCHED, Batches
from deltadatabase.gateway.edge import exchange_of
from deltadatabase.gateway.routes.access import AuthorizedRequest, authorized_body, guard
from deltadatabase.limits import BATCH_BODY_BYTES_MAX


def handlers(batches: Batches, accounts: Accounts) -> list[HTTPRouteHandler]:
    """Route ``/batch``. Each request in a batch shows its own right; the batch itself needs a valid key."""

    @post("/batch", status_code=200, guards=[guard(accounts, None)])
    async def batch(request: AuthorizedRequest) -> Response[bytes]:
        scope = cast(Scope, request.scope)
        if BATCHED in scope:
            raise Invalid("a batch holds no batches", code="bad_batch")
        requests = parse_batch(await authorized_body(request, accounts, BATCH_BODY_BYTES_MAX))
        answer = await batches.run(requests, scope, exchange_of(scope).request_id)
        return Response(answer, media_type="application/json")

    return [batch]
