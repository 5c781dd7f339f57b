"""API keys, managed by an admin."""

from __future__ import annotations

import asyncio

import msgspec
from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.contract import CreatedKey, KeyInfo
from deltadatabase.auth.policy import Permission
from deltadatabase.gateway.auditing import RequestAudit, telling
from deltadatabase.gateway.routes.access import (
    AuthorizedRequest,
    Status,
    authorized_body,
    decode_json,
    guard,
)
from deltadatabase.limits import API_BODY_BYTES_MAX
from deltadatabase.telemetry.audit import Action, Outcome


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to be made: `expires_in` like `24h`, `schemas` like `["chat.*"]`, `rate_per_s` like `50`.

    Unknown members are refused: a misspelt limit would make a key without it.
    """

    name: str = ""
    permissions: list[str] = []
    expires_in: str | None = None
    schemas: list[str] | None = None
    rate_per_s: int | None = None


def handlers(accounts: Accounts, events: RequestAudit) -> list[HTTPRouteHandler]:
    """Routes ``/api/keys`` and ``/api/keys/{id}``."""
    admin = [guard(accounts, Permission.ADMIN)]

    @get("/api/keys", guards=admin)
    async def list_keys() -> list[KeyInfo]:
        # Off the loop, like the others: it waits for whoever of them waits for the disk.
        return await asyncio.to_thread(accounts.list_keys)

    @post("/api/keys", guards=admin)
    async def create_key(request: AuthorizedRequest) -> CreatedKey:
        body = decode_json(await authorized_body(request, accounts, API_BODY_BYTES_MAX), NewKey)
        created: CreatedKey | None = None

        def tell(outcome: Outcome) -> None:
            events.done(
                Action.KEY_CREATED,
                request,
                request.user,
                outcome,
                subject=created.id if created else None,
                subject_name=body.name,
                permissions=created.permissions if created else body.permissions,
                schemas=body.schemas,
                rate_per_s=body.rate_per_s,
                expires_at=created.expires_at if created else None,
            )

        with telling(tell):
            created = await asyncio.to_thread(
                accounts.create_key,
                body.name,
                body.permissions,
                body.expires_in,
                body.schemas,
                body.rate_per_s,
                by=request.user,
            )
        return created

    @delete("/api/keys/{key_id:str}", status_code=200, guards=admin)
    async def delete_key(request: AuthorizedRequest, key_id: FromPath[str]) -> Status:
        with telling(
            lambda outcome: events.done(Action.KEY_DELETED, request, request.user, outcome, subject=key_id)
        ):
            await asyncio.to_thread(accounts.delete_key, key_id, by=request.user)
        return Status()

    return [list_keys, create_key, delete_key]
