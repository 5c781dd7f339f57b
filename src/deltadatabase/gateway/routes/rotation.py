"""Rotation of the master key, for an admin: how it stands, begin or go on, pause, count."""

from __future__ import annotations

import msgspec
from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission
from deltadatabase.gateway.ports import Rotations
from deltadatabase.gateway.rotation import RotationStatus
from deltadatabase.gateway.routes.access import AuthorizedRequest, guard, read_json


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do: rotate, or with `dry_run` only count how many objects each key seals."""

    dry_run: bool = False


def handlers(rotation: Rotations, accounts: Accounts) -> list[HTTPRouteHandler]:
    """Routes ``/admin/rotation``."""
    admin = [guard(accounts, Permission.ADMIN)]

    @get("/admin/rotation", guards=admin)
    async def rotation_status() -> RotationStatus:
        return rotation.status()

    @post("/admin/rotation", status_code=202, guards=admin)
    async def begin_rotation(request: AuthorizedRequest) -> RotationStatus:
        order = await read_json(request, Order, empty=Order())
        return await (rotation.count() if order.dry_run else rotation.start())

    @delete("/admin/rotation", status_code=200, guards=admin)
    async def pause_rotation() -> RotationStatus:
        return await rotation.pause()

    return [rotation_status, begin_rotation, pause_rotation]
