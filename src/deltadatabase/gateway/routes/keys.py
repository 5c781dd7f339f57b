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
from deltadatabase.gateway.routes.access import AuthorizedRequest, Status, guard, read_json


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to be made: `expires_in` like `24h` or `7d`; `schemas` like `["chat.*"]`.

    Unknown members are refused: a misspelt limit would make a key without it.
    """

    name: str = ""
    permissions: list[str] = []
    expires_in: str | None = None
    schemas: list[str] | None = None


def handlers(accounts: Accounts) -> list[HTTPRouteHandler]:
    """Routes ``/api/keys`` and ``/api/keys/{id}``."""
    admin = [guard(accounts, Permission.ADMIN)]

    @get("/api/keys", guards=admin)
    async def list_keys() -> list[KeyInfo]:
        return accounts.list_keys()

    @post("/api/keys", guards=admin)
    async def create_key(request: AuthorizedRequest) -> CreatedKey:
        body = await read_json(request, NewKey)
        return await asyncio.to_thread(
            accounts.create_key, body.name, body.permissions, body.expires_in, body.schemas
        )

    @delete("/api/keys/{key_id:str}", status_code=200, guards=admin)
    async def delete_key(key_id: FromPath[str]) -> Status:
        await asyncio.to_thread(accounts.delete_key, key_id)
        return Status()

    return [list_keys, create_key, delete_key]
