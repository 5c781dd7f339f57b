"""How much this process logs, for an admin: shown, and changed while it runs."""

from __future__ import annotations

import msgspec
from litestar import get, put
from litestar.handlers import HTTPRouteHandler

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission
from deltadatabase.errors import Invalid
from deltadatabase.gateway.auditing import RequestAudit
from deltadatabase.gateway.routes.access import AuthorizedRequest, authorized_body, decode_json, guard
from deltadatabase.limits import API_BODY_BYTES_MAX
from deltadatabase.telemetry.audit import Action
from deltadatabase.telemetry.logging import LEVELS, change_level, level_in_force


class LogLevel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The least grave messages that are logged."""

    level: str


def handlers(accounts: Accounts, events: RequestAudit) -> list[HTTPRouteHandler]:
    """Routes ``/admin/log-level``."""
    admin = [guard(accounts, Permission.ADMIN)]

    @get("/admin/log-level", guards=admin)
    async def get_log_level() -> dict[str, str]:
        return {"level": level_in_force()}

    @put("/admin/log-level", guards=admin)
    async def put_log_level(request: AuthorizedRequest) -> LogLevel:
        wanted = decode_json(await authorized_body(request, accounts, API_BODY_BYTES_MAX), LogLevel)
        if wanted.level not in LEVELS:
            raise Invalid(f"level must be one of {', '.join(LEVELS)}", code="bad_log_level")
        former = change_level(wanted.level)
        # debug shows stack traces: who switched it on is asked afterwards.
        events.done(Action.LOG_LEVEL_CHANGED, request, request.user, log_level=wanted.level, former=former)
        return wanted

    return [get_log_level, put_log_level]
