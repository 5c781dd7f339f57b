"""Refuses gRPC callers before their messages are read, and bounds those that anybody may make.

gRPC hands a server the metadata of a call first. What follows stays in the connection's bounded
window until somebody reads it, so a refusal here costs no more memory than that. The message of a
unary call is read whole before its handler runs, and a caller may take his time with it: so calls
that need no credentials are served here as streams, which read when they have a place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from deltadatabase.errors import DeltaError, Invalid
from deltadatabase.limits import HANDSHAKE_TIMEOUT_S, KIB
from deltadatabase.rpc.doorway import Doorway, Places
from deltadatabase.rpc.status import status_code

PUBLIC_MESSAGE_BYTES_MAX: Final = 64 * KIB
"""Largest message of a call that needs no credentials: a name, or a reflection request."""

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
Context = grpc.aio.ServicerContext[Any, Any]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["Handler"]]
Metadata = Iterable[tuple[str, str | bytes]] | None
Check = Callable[[Metadata], object]
"""Judges a call by its metadata. Raises DeltaError."""


class Doorkeeper(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Stands in front of every call of a server.

    Args:
        places: for calls that need no credentials, unary and streams alike.
        own: methods with a doorway of their own: workers and main workers, strangers until their proof.
        checked: methods that need credentials, and who looks at those.
        on_refused: told of each call that a check refused: method, peer, error.
    """

    def __init__(
        self,
        places: Places,
        *,
        own: Iterable[str],
        checked: Mapping[str, Check] | None = None,
        on_refused: Callable[[str, str, DeltaError], None] = lambda method, peer, error: None,
    ) -> None:
        self._doorway = Doorway(places)
        self._own = frozenset(own)
        self._checked = checked or {}
        self._on_refused = on_refused

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Choose what serves a call."""
        details = handler_call_details
        method = details.method
        if (check := self._checked.get(method)) is not None:
            try:
                check(details.invocation_metadata)
            except DeltaError as exc:
                return self._refusal(method, exc)
            return await continuation(details)
        handler = await continuation(details)
        # There is none for a method that does not exist, whatever the stubs say.
        if method in self._own or handler is None:
            return handler
        return self._bounded(handler)

    def _bounded(self, handler: Handler) -> Handler:
        """The same method as a stream that reads nothing before it has a place."""
        decode = handler.request_deserializer or bytes
        if handler.request_streaming:
            serve = self._stream(
                handler.stream_stream if handler.response_streaming else handler.stream_unary
            )
        elif handler.response_streaming:
            serve = self._one(handler.unary_stream, decode, streaming=True)
        else:
            serve = self._one(handler.unary_unary, decode, streaming=False)
        bounded: Handler = grpc.stream_stream_rpc_method_handler(
            serve,
            request_deserializer=handler.request_deserializer if handler.request_streaming else None,
            response_serializer=handler.response_serializer,
        )
        return bounded

    def _stream(self, served: Any) -> Any:
        async def serve(requests: Any, context: Context) -> None:
            try:
                with self._doorway.place(context.peer()):
                    await _answer(served(requests, context), context)
            except DeltaError as exc:
                await context.abort(status_code(exc), exc.detail)

        return serve

    def _one(self, served: Any, decode: Callable[[bytes], Any], *, streaming: bool) -> Any:
        async def serve(_: object, context: Context) -> None:
            try:
                with self._doorway.place(context.peer()):
                    request = await _request(context, decode)
                    if streaming:
                        await _answer(served(request, context), context)
                    else:
                        await context.write(await served(request, context))
            except DeltaError as exc:
                await context.abort(status_code(exc), exc.detail)

        return serve

    def _refusal(self, method: str, exc: DeltaError) -> Handler:
        """A handler that answers with an error and reads nothing.

        A stream's, whatever the method is: for a unary call gRPC reads the message first.
        """

        async def refuse(_: object, context: Context) -> None:
            self._on_refused(method, context.peer(), exc)
            context.set_trailing_metadata((("error-code", exc.code),))
            await context.abort(status_code(exc), exc.detail)

        handler: Handler = grpc.stream_stream_rpc_method_handler(refuse)
        return handler


async def _answer(answers: Any, context: Context) -> None:
    # grpc.aio knows both forms: what gives its answers, and what writes them itself.
    if not hasattr(answers, "__aiter__"):
        await answers
        return
    async for answer in answers:
        await context.write(answer)


async def _request(context: Context, decode: Callable[[bytes], Any]) -> Any:
    """Read the one message of a call that anybody may make. Raises Invalid."""
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            data = await context.read()
    except TimeoutError:
        raise Invalid("the message of this call did not come in time") from None
    if not isinstance(data, bytes) or len(data) > PUBLIC_MESSAGE_BYTES_MAX:
        raise Invalid("the message of this call is missing, or too large for it")
    try:
        return decode(data)
    except Exception:  # noqa: BLE001 - of protobuf, whose errors differ between its implementations
        raise Invalid("the message of this call cannot be decoded") from None
