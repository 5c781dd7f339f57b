"""Unary calls of gRPC clients: the same documents and rights as over REST."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import grpc.aio

from deltadatabase.auth.policy import Permission, Principal, reaches, require
from deltadatabase.errors import DeltaError, Invalid, TooLarge
from deltadatabase.gateway.forwarding import Router
from deltadatabase.model import Op, Result
from deltadatabase.rpc.convert import decode_etags
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.status import status_code
from deltadatabase.storage.paths import check_key, check_schema_id

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
ENTITY_OPS: Final = frozenset({Op.GET, Op.PUT, Op.DELETE})


class Authenticator(Protocol):
    """Tells who calls (``auth.accounts.Accounts``)."""

    def authenticate(self, authorization: str | None) -> Principal: ...


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
    """

    def __init__(self, router: Router, accounts: Authenticator, *, document_bytes_max: int) -> None:
        self._router = router
        self._accounts = accounts
        self._document_bytes_max = document_bytes_max

    async def __call__(self, request: pb.ProcessRequest, context: Context) -> pb.ProcessResponse:
        """Serve one call; errors become gRPC status codes with the error's code in ``error-code``."""
        try:
            return await self._serve(request, context)
        except DeltaError as exc:
            context.set_trailing_metadata((("error-code", exc.code),))
            await context.abort(status_code(exc), exc.detail)

    async def _serve(self, request: pb.ProcessRequest, context: Context) -> pb.ProcessResponse:
        principal = self._accounts.authenticate(authorization_of(context.invocation_metadata()))
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
