"""Rotation of the master key, for an admin: how it stands, begin or go on, pause, count."""

from __future__ import annotations

from contextlib import AbstractContextManager

import msgspec
from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission
from deltadatabase.gateway.auditing import RequestAudit, telling
from deltadatabase.gateway.ports import Rotations
from deltadatabase.gateway.rotation import RotationStatus
from deltadatabase.gateway.routes.access import AuthorizedRequest, authorized_body, decode_json, guard
from deltadatabase.limits import API_BODY_BYTES_MAX
from deltadatabase.telemetry.audit import Action


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do: rotate, or with `dry_run` only count how many objects each key seals."""

    dry_run: bool = False


def handlers(rotation: Rotations, accounts: Accounts, events: RequestAudit) -> list[HTTPRouteHandler]:
    """Routes ``/admin/rotation``."""
    admin = [guard(accounts, Permission.ADMIN)]

    @get("/admin/rotation", guards=admin)
    async def rotation_status() -> RotationStatus:
        return rotation.status()

    @post("/admin/rotation", status_code=202, guards=admin)
    async def begin_rotation(request: AuthorizedRequest) -> RotationStatus:
        body = await authorized_body(request, accounts, API_BODY_BYTES_MAX)
        if decode_json(body, Order, empty=Order()).dry_run:
            return await rotation.count()
        with told(Action.ROTATION_STARTED, request):
            return await rotation.start()

    @delete("/admin/rotation", status_code=200, guards=admin)
    async def pause_rotation(request: AuthorizedRequest) -> RotationStatus:
        with told(Action.ROTATION_PAUSED, request):
            return await rotation.pause()

    def told(action: Action, request: AuthorizedRequest) -> AbstractContextManager[None]:
        return telling(lambda outcome: events.done(action, request, request.user, outcome))

    return [rotation_status, begin_rotation, pause_rotation]
