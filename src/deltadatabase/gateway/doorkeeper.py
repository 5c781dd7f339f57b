"""Refuses gRPC callers before their messages are read.

gRPC hands a server the metadata of a call first. What follows stays in the connection's bounded
window until somebody reads it, so a refusal here costs no more memory than that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from deltadatabase.errors import DeltaError
from deltadatabase.gateway.process import ROUTE, Authenticator, authorization_of
from deltadatabase.limits import WATCHERS_MAX, WATCHERS_OF_ONE_MAX
from deltadatabase.rpc.channels import MAIN_WORKER_SERVICE
from deltadatabase.rpc.doorway import Doorway, Places
from deltadatabase.rpc.status import status_code
from deltadatabase.telemetry.audit import Action, Audit, Outcome

PROCESS: Final = f"/{MAIN_WORKER_SERVICE}/Process"
SUBSCRIBE: Final = f"/{MAIN_WORKER_SERVICE}/Subscribe"

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
Context = grpc.aio.ServicerContext[Any, Any]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["Handler"]]


class Doorkeeper(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Lets ``Process`` calls pass that have valid credentials, and bounds the streams of strangers.

    ``Subscribe`` has a doorway of its own, since a worker is a stranger only until its proof.

    Args:
        accounts: who calls.
        audit: hears of refusals.
    """

    def __init__(self, accounts: Authenticator, audit: Audit) -> None:
        self._accounts = accounts
        self._audit = audit
        self._watchers = Doorway(Places(WATCHERS_MAX, WATCHERS_OF_ONE_MAX))

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Choose what serves a call."""
        details = handler_call_details
        if details.method == PROCESS:
            try:
                # Uncounted: the call itself is counted when it is served.
                self._accounts.confirm(authorization_of(details.invocation_metadata))
            except DeltaError as exc:
                return self._refusal(exc)
        handler = await continuation(details)
        # There is none for a method that does not exist, whatever the stubs say.
        streams = getattr(handler, "response_streaming", False)
        return self._bounded(handler) if streams and details.method != SUBSCRIBE else handler

    def _bounded(self, handler: Handler) -> Handler:
        """The same handler of a stream that anybody may open, for so many at once."""
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
        )
        served: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream

        async def serve(request: Any, context: Context) -> None:
            try:
                with self._watchers.place(context.peer()):
                    # grpc.aio knows both forms: what gives its answers, and what writes them itself.
                    answers = served(request, context)
                    if not hasattr(answers, "__aiter__"):
                        await answers
                        return
                    async for answer in answers:
                        await context.write(answer)
            except DeltaError as exc:
                await context.abort(status_code(exc), exc.detail)

        bounded: Handler = make(
            serve,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return bounded

    def _refusal(self, exc: DeltaError) -> Handler:
        """A handler that answers with an error and reads nothing.

        A stream's, whatever the method is: for a unary call gRPC reads the message first.
        """

        async def refuse(_: object, context: Context) -> None:
            self._audit.event(
                Action.REQUEST_REFUSED, Outcome.REFUSED, address=context.peer(), route=ROUTE, code=exc.code
            )
            context.set_trailing_metadata((("error-code", exc.code),))
            await context.abort(status_code(exc), exc.detail)

        handler: Handler = grpc.stream_stream_rpc_method_handler(refuse)
        return handler
