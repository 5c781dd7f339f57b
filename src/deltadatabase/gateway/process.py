"""Unary calls of gRPC clients: the same documents and rights as over REST."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import grpc.aio

from deltadatabase.auth.policy import Permission, Principal, reaches, require
from deltadatabase.errors import DeltaError, Invalid, TooLarge, Unauthenticated
from deltadatabase.gateway.auditing import refusal_of, telling
from deltadatabase.gateway.forwarding import Router
from deltadatabase.model import Op, Result
from deltadatabase.rpc.convert import decode_etags
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.status import status_code
from deltadatabase.storage.paths import check_key, check_schema_id
from deltadatabase.telemetry.audit import Action, Audit, Outcome

NEEDS: Final = {
    Op.GET: Permission.READ,
    Op.PUT: Permission.WRITE,
    Op.DELETE: Permission.WRITE,
    Op.SCHEMA_GET: Permission.READ,
    Op.SCHEMA_PUT: Permission.WRITE,
    Op.SCHEMA_DELETE: Permission.WRITE,
    Op.SCHEMA_LIST: Permission.READ,
}
Context = grpc.aio.ServicerContext[pb.ProcessRequest, pb.ProcessResponse]
CHANGES: Final = {Op.SCHEMA_PUT: Action.SCHEMA_PUT, Op.SCHEMA_DELETE: Action.SCHEMA_DELETED}
ROUTE: Final = "MainWorker.Process"
ENTITY_OPS: Final = frozenset({Op.GET, Op.PUT, Op.DELETE})


class Authenticator(Protocol):
    """Tells who calls (``auth.accounts.Accounts``)."""

    def authenticate(self, authorization: str | None) -> Principal:
        """Count the call. Raises Unauthenticated, RateLimited."""
        ...

    def confirm(self, authorization: str | None) -> Principal:
        """The same, uncounted. Raises Unauthenticated."""
        ...


def authorization_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    """The ``authorization`` in a call's metadata; None without it."""
    value = dict(metadata or ()).get("authorization")
    return value.decode("latin-1") if isinstance(value, bytes) else value


class ClientCalls:
    """Serves ``MainWorker.Process``.

    Args:
        router: executes the calls.
        accounts: who calls, by the ``authorization`` metadata.
        document_bytes_max: limit on one document or schema.
        audit: hears of refusals and changes.
    """

    def __init__(
        self, router: Router, accounts: Authenticator, *, document_bytes_max: int, audit: Audit
    ) -> None:
        self._router = router
        self._accounts = accounts
        self._document_bytes_max = document_bytes_max
        self._audit = audit

    async def __call__(self, request: pb.ProcessRequest, context: Context) -> pb.ProcessResponse:
        """Serve one call; errors become gRPC status codes with the error's code in ``error-code``."""
        authorization = authorization_of(context.invocation_metadata())
        try:
            return await self._serve(request, context, authorization)
        except DeltaError as exc:
            self._tell(exc, request, context, authorization)
            context.set_trailing_metadata((("error-code", exc.code),))
            await context.abort(status_code(exc), exc.detail)

    def _tell(
        self, error: DeltaError, request: pb.ProcessRequest, context: Context, authorization: str | None
    ) -> None:
        kind = refusal_of(error)
        if kind is None:
            return
        try:
            caller = None if isinstance(error, Unauthenticated) else self._accounts.confirm(authorization)
        except Unauthenticated:
            caller = None
        action, outcome = kind
        self._audit.event(
            action,
            outcome,
            principal=caller.client_id if caller else "",
            key_id=caller.key_id if caller else "",
            address=context.peer(),
            route=ROUTE,
            method=_name(request.op),
            code=error.code,
            schema_id=_shown_schema_id(request.schema_id),
        )

    async def _serve(
        self, request: pb.ProcessRequest, context: Context, authorization: str | None
    ) -> pb.ProcessResponse:
        principal = self._accounts.authenticate(authorization)
        op = next((known for known in NEEDS if int(known) == int(request.op)), None)
        if op is None:
            raise Invalid("this operation is not served to clients", code="unknown_op")
        if op is not Op.SCHEMA_LIST:
            check_schema_id(request.schema_id)
        require(principal, NEEDS[op], request.schema_id or None)
        if op in ENTITY_OPS:
            check_key(request.key)
        if len(request.document) > self._document_bytes_max:
            raise TooLarge(f"the document is larger than {self._document_bytes_max} bytes")
        if op in CHANGES:
            with telling(lambda outcome: self._changed(CHANGES[op], outcome, principal, request, context)):
                result = await self._execute(op, request)
        else:
            result = await self._execute(op, request)
        # A key that is limited to schema ids learns of no others.
        names = [name for name in result.names if reaches(principal, name)]
        return pb.ProcessResponse(
            version=result.version,
            etag=result.etag,
            updated_ms=result.updated_ms,
            document=result.document,
            created=result.created,
            names=names,
        )

    def _changed(
        self,
        action: Action,
        outcome: Outcome,
        principal: Principal,
        request: pb.ProcessRequest,
        context: Context,
    ) -> None:
        self._audit.event(
            action,
            outcome,
            principal=principal.client_id,
            key_id=principal.key_id,
            address=context.peer(),
            route=ROUTE,
            schema_id=request.schema_id,
        )

    async def _execute(self, op: Op, request: pb.ProcessRequest) -> Result:
        if_match = decode_etags(request.if_match) if request.HasField("if_match") else None
        if_none_match = decode_etags(request.if_none_match) if request.HasField("if_none_match") else None
        match op:
            case Op.GET:
                return await self._router.get(request.schema_id, request.key, if_none_match=if_none_match)
            case Op.PUT:
                return await self._router.put_one(
                    request.schema_id,
                    request.key,
                    request.document,
                    if_match=if_match,
                    if_none_match=if_none_match,
                )
            case Op.DELETE:
                return await self._router.delete(request.schema_id, request.key, if_match=if_match)
            case Op.SCHEMA_GET:
                return await self._router.schema_get(request.schema_id)
            case Op.SCHEMA_PUT:
                return await self._router.schema_put(request.schema_id, request.document)
            case Op.SCHEMA_DELETE:
                return await self._router.schema_delete(request.schema_id)
            case _:
                return Result(names=await self._router.schema_list())


def _name(op: int) -> str:
    return next((known.name for known in NEEDS if int(known) == op), "unknown")


def _shown_schema_id(text: str) -> str:
    """A schema id; nothing of what is none."""
    try:
        return check_schema_id(text)
    except Invalid:
        return ""
