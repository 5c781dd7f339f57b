"""What the audit log learns of clients' requests: refusals and changes, never what went in or out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast, final

from litestar import Request

from deltadatabase.auth.accounts import Accounts
from deltadatabase.auth.policy import Principal
from deltadatabase.errors import Corrupt, DeltaError, Denied, PartlyApplied, RateLimited, Unauthenticated
from deltadatabase.gateway.addresses import ClientAddresses
from deltadatabase.gateway.asgi import Scope
from deltadatabase.gateway.edge import exchange_of
from deltadatabase.gateway.problem import status_of
from deltadatabase.storage.paths import check_schema_id
from deltadatabase.telemetry.audit import Action, Audit, Outcome

_LOGIN: Final = "/api/login"
_ROUTES: Final = frozenset(
    {"admin", "api", "batch", "changes", "entities", "entity", "export", "import", "schema", "schemas"}
)
_ROUTE_CHARACTERS_MAX: Final = 40
_OF_SCHEMAS: Final = frozenset({"changes", "entities", "entity", "export", "import", "schema", "schemas"})


def refusal_of(error: DeltaError) -> tuple[Action, Outcome] | None:
    """What kind of event an error is; None for one that concerns neither access nor integrity."""
    if isinstance(error, PartlyApplied):
        error = error.cause
    if isinstance(error, Unauthenticated | Denied | RateLimited):
        return Action.REQUEST_REFUSED, Outcome.REFUSED
    if isinstance(error, Corrupt):
        return Action.INTEGRITY_FAILURE, Outcome.FAILED
    return None


@contextmanager
def telling(tell: Callable[[Outcome], None]) -> Iterator[None]:
    """Have ``tell`` write how a change ended, also one that was cut off and may have been made.

    A change that certainly was not made is not told of.
    """
    try:
        yield
    except BaseException as exc:
        # A client that goes away at the right moment would leave no trace otherwise.
        if not (isinstance(exc, DeltaError) and exc.certain):
            tell(Outcome.UNKNOWN)
        raise
    tell(Outcome.OK)


@final
class RequestAudit:
    """Writes the audit events of REST requests. A request that is served costs nothing here.

    Args:
        audit: where events go.
        accounts: who called.
        addresses: from where.
    """

    def __init__(self, audit: Audit, accounts: Accounts, addresses: ClientAddresses) -> None:
        self._audit = audit
        self._accounts = accounts
        self._addresses = addresses

    def address(self, request: Request[Any, Any, Any]) -> str:
        """The client's address."""
        return self._addresses.of(cast(Scope, request.scope))

    def done(
        self,
        action: Action,
        request: Request[Any, Any, Any],
        principal: Principal,
        outcome: Outcome = Outcome.OK,
        **fields: object,
    ) -> None:
        """Write that ``principal`` did something."""
        self._audit.event(
            action,
            outcome,
            principal=principal.client_id,
            key_id=principal.key_id,
            request_id=exchange_of(request.scope).request_id,
            address=self.address(request),
            **fields,
        )

    def failed(self, error: DeltaError, scope: Scope, request_id: str) -> None:
        """Write that a request was refused, or met a damaged entity; other errors are no events."""
        kind = refusal_of(error)
        if kind is None:
            return
        action, outcome = kind
        path = str(scope["path"])
        if path == _LOGIN and action is Action.REQUEST_REFUSED:
            action = Action.LOGIN
        caller = None if isinstance(error, Unauthenticated) else self._caller(scope)
        self._audit.event(
            action,
            outcome,
            request_id=request_id,
            address=self._addresses.of(scope),
            principal=caller.client_id if caller else "",
            key_id=caller.key_id if caller else "",
            method=str(scope["method"]),
            status=status_of(error),
            code=error.code,
            **_place(path),
        )

    def _caller(self, scope: Scope) -> Principal | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        try:
            return self._accounts.confirm(given[0].decode("latin-1") if given else None)
        except Unauthenticated:
            return None


def _place(path: str) -> dict[str, Any]:
    """The route, and the schema id: no more of the path, which may hold a key."""
    parts = path.split("/")
    group = parts[1] if len(parts) > 1 and parts[1] in _ROUTES else ""
    if not group:
        return {"route": "other"}
    if group not in _OF_SCHEMAS:
        return {"route": "/" + "/".join(parts[1:3])[:_ROUTE_CHARACTERS_MAX]}
    place = {"route": f"/{group}"}
    schema_id = parts[2] if len(parts) > 2 else ""
    try:
        place["schema_id"] = check_schema_id(schema_id)
    except DeltaError:
        pass
    return place
