"""What every route shares: who may call it, and how its body is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec
from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Permission, Principal, require
from deltadatabase.errors import Invalid
from deltadatabase.gateway.edge import exchange_of
from deltadatabase.storage.paths import check_schema_id

AuthorizedRequest = Request[Principal, Any, Any]
Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]
T = TypeVar("T")

NO_STORE: Final = {"cache-control": "no-store"}


class Status(msgspec.Struct, frozen=True):
    """The answer of a call that has nothing more to say."""

    status: str = "ok"


def guard(accounts: Accounts, permission: Permission | None) -> Guard:
    """Let a request pass to its route, or not: credentials, then the schema id, then the right.

    Args:
        accounts: knows the callers.
        permission: the right needed; None: any known caller.

    Raises (the guard):
        Unauthenticated, Denied: the caller.
        Invalid: ``invalid_schema_id``.
    """

    async def check(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        principal = accounts.authenticate(exchange_of(connection.scope).head.authorization)
        schema_id = connection.path_params.get("schema_id")
        if schema_id is not None:
            check_schema_id(schema_id)
        if permission is not None:
            require(principal, permission, schema_id)
        connection.scope["user"] = principal

    return check


async def authorized_body(request: AuthorizedRequest, accounts: Accounts, limit_bytes: int) -> bytes:
    """Read the body of a request that a guard let pass, then ask again who sent it.

    The key may have ended while the body arrived, and its end is in force once it was answered.

    Raises:
        Unauthenticated: it has.
        TooLarge, RequestTimeout, Invalid: the body.
    """
    exchange = exchange_of(request.scope)
    body = await exchange.read_body(limit_bytes)
    accounts.confirm(exchange.head.authorization)
    return body


def decode_json(body: bytes, shape: type[T], *, empty: T | None = None) -> T:
    """Read JSON, whatever its content type says. Unknown members are ignored unless ``shape`` forbids.

    Args:
        body: what was sent.
        shape: what it must be.
        empty: what no body at all means; None: it is malformed.

    Raises:
        Invalid: ``malformed_json``, or ``wrong_shape`` with the place of the mistake.
    """
    if not body and empty is not None:
        return empty
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as exc:
        # The shapes have no literal values, so the text names types and places only.
        raise Invalid(f"the body has the wrong shape: {exc}", code="wrong_shape") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("the body is not valid JSON", code="malformed_json") from None
