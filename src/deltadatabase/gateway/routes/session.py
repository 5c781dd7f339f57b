"""Logging in, and asking who one is."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.contract import Session
from deltadatabase.auth.policy import Permission
from deltadatabase.gateway.auditing import RequestAudit
from deltadatabase.gateway.edge import exchange_of
from deltadatabase.gateway.routes.access import AuthorizedRequest, decode_json, guard
from deltadatabase.limits import API_BODY_BYTES_MAX
from deltadatabase.telemetry.audit import Action


class Login(msgspec.Struct, frozen=True):
    """A key to log in with; in dev mode a client id is enough."""

    key: str | None = None
    client_id: str | None = None


class Me(msgspec.Struct, frozen=True):
    """The caller."""

    client_id: str
    permissions: list[Permission]
    is_admin: bool


def handlers(accounts: Accounts, events: RequestAudit) -> list[HTTPRouteHandler]:
    """Routes ``/api/login`` and ``/api/me``."""

    @post("/api/login", status_code=200)
    async def login(request: Request[Any, Any, Any]) -> Session:
        body = decode_json(await exchange_of(request.scope).read_body(API_BODY_BYTES_MAX), Login)
        address = events.address(request)
        # Off the loop: an accepted login waits for the disk.
        session = await asyncio.to_thread(accounts.login, body.key, body.client_id, address)
        principal = accounts.confirm(f"Bearer {session.token}")
        events.done(Action.LOGIN, request, principal)
        return session

    @get("/api/me", guards=[guard(accounts, None)])
    async def me(request: AuthorizedRequest) -> Me:
        principal = request.user
        held = [permission for permission in Permission if permission in principal.permissions]
        return Me(principal.client_id, held, principal.is_admin)

    return [login, me]
