"""The outermost ASGI layer: every request enters here and every answer leaves here.

It checks what frameworks decode leniently, bounds bodies, names requests, and turns every
failure into a problem document. Entity requests, the hot path, skip the framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import msgspec

from deltadatabase.clock import Clock, Random
from deltadatabase.deadlines import Deadlines
from deltadatabase.errors import DeltaError, Internal, RequestTimeout
from deltadatabase.gateway.asgi import (
    Answer,
    ASGIApp,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    StreamedAnswer,
    Timing,
    send_answer,
)
from deltadatabase.gateway.body import Body, HeldBodies
from deltadatabase.gateway.problem import problem
from deltadatabase.gateway.request import Head, check_local, examine, request_id_of
from deltadatabase.rpc.doorway import network_of
from deltadatabase.telemetry.logging import get_logger

_log = get_logger(__name__)

_EXCHANGE: Final = "deltadatabase.exchange"
_STREAM: Final = "deltadatabase.stream"
_INSTANCE_ID_BYTES: Final = 4
_ROUTABLE: Final = frozenset({"GET", "PUT", "POST", "DELETE", "PATCH"})
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_NO_METHOD: Final = "refused"
"""Sent down instead of methods that no route serves; the framework would answer OPTIONS itself."""


class Exchange(msgspec.Struct, frozen=True):
    """One request under way.

    Attributes:
        head: its checked beginning.
        body: None when it has none.
        request_id: names it in logs and answers.
        receive: the ASGI callable; for ``left``.
    """

    head: Head
    body: Body | None
    request_id: str
    receive: Receive | None = None

    async def left(self) -> None:
        """Return when the client has left; never, if its request has a body, which is not looked into."""
        if self.receive is None or self.body is not None:
            await asyncio.get_running_loop().create_future()
        else:
            await _left(self.receive)

    async def read_body(self, limit_bytes: int) -> bytes:
        """All of the body, b"" without one. Raises TooLarge, RequestTimeout, Invalid."""
        return b"" if self.body is None else await self.body.read(limit_bytes)

    async def body_chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, without a limit of its length; see ``Body.chunks``."""
        if self.body is not None:
            async for chunk in self.body.chunks():
                yield chunk


Handler = Callable[[Exchange], Awaitable[Answer | StreamedAnswer]]
Witness = Callable[[DeltaError, Scope, str], None]
"""Is told of each error that a request ends with, and of the request's id."""


def exchange_of(scope: object) -> Exchange:
    """The exchange that the edge put into an ASGI scope."""
    exchange = scope[_EXCHANGE]  # type: ignore[index]
    assert isinstance(exchange, Exchange)
    return exchange


def answer_by_stream(scope: object, answer: StreamedAnswer) -> None:
    """Send ``answer`` in place of what the framework's handler returns: its own streams end otherwise."""
    scope[_STREAM] = answer  # type: ignore[index]


class Edge:
    """Wraps the application.

    Args:
        app: serves every other path; lets ``DeltaError`` pass.
        handlers: by the first segment of the paths that they serve, such as ``entity``.
        local_only: refuse what a foreign web page may have sent (dev mode).
        body_timeout_s: time for a body of one MiB.
        witness: hears of errors, for the audit log.
    """

    def __init__(
        self,
        app: ASGIApp,
        handlers: Mapping[str, Handler],
        *,
        clock: Clock,
        random: Random,
        local_only: bool,
        body_timeout_s: float,
        witness: Witness | None = None,
    ) -> None:
        self._app = app
        self._handlers = dict(handlers)
        self._clock = clock
        # Requests are numbered: a guessed id is of no use to anybody.
        self._instance_id = random(_INSTANCE_ID_BYTES).hex()
        self._numbers = itertools.count(1)
        self._local_only = local_only
        self._body_timeout_s = body_timeout_s
        self._witness = witness
        self._held = HeldBodies()
        self._deadlines = Deadlines()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = _Reply(send, request_id_of(scope["headers"], self._new_id), self._clock)
        try:
            exchange = self._open(scope, receive, reply)
            handler = self._handlers.get(first_segment(exchange.head.path))
            if handler is not None:
                answer: Answer | StreamedAnswer = await handler(exchange)
            elif (streamed := await self._delegate(scope, receive, reply, exchange)) is not None:
                answer = streamed
            else:
                return
        except DeltaError as exc:
            if isinstance(exc, Internal):
                _log.error("internal error", error=exc, request_id=reply.request_id)
            if self._witness is not None:
                self._witness(exc, scope, reply.request_id)
            answer = problem(exc, reply.request_id)
        except Exception as exc:  # noqa: BLE001 - the last resort: a client always gets an answer
            # The log shows its class only: the message may hold anything, a document included.
            _log.error("unexpected failure", error=exc, request_id=reply.request_id)
            answer = problem(Internal("internal error"), reply.request_id)
        if reply.body is not None and not await reply.body.drop():
            reply.reusable = False
        headers = reply.headers(answer.timing)
        if isinstance(answer, Answer):
            await send_answer(answer, headers, send, with_body=reply.with_body)
        else:
            await self._stream(answer, headers, receive, reply)

    async def _stream(
        self, answer: StreamedAnswer, headers: Headers, receive: Receive, reply: _Reply
    ) -> None:
        """Send a response while it is made, until its end or until the client leaves."""
        start = {"type": "http.response.start", "status": answer.status, "headers": answer.headers + headers}
        async with contextlib.aclosing(_as_generator(answer.chunks)) as chunks:
            await reply.send(start)
            if reply.with_body:
                sending = asyncio.ensure_future(_send_chunks(chunks, reply.send, answer.take_s))
                leaving = asyncio.ensure_future(_left(receive))
                try:
                    await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    leaving.cancel()
                    sending.cancel()
                    await asyncio.wait({sending})
                if sending.cancelled():
                    return
                if (failure := sending.exception()) is not None:
                    # Nothing can be said any more: an end without a proper end tells the client.
                    if not isinstance(failure, DeltaError) or isinstance(failure, Internal):
                        _log.error("unexpected failure", error=failure, request_id=reply.request_id)
                    return
            await reply.send({"type": "http.response.body", "body": b""})

    def _new_id(self) -> str:
        return f"{self._instance_id}{next(self._numbers):08x}"

    def _open(self, scope: Scope, receive: Receive, reply: _Reply) -> Exchange:
        reply.with_body = scope["method"] != "HEAD"
        head = examine(scope)
        body = None
        if head.has_body:
            body = reply.body = Body(
                receive,
                head.content_length,
                waits=b"expect" in head.fields,
                timeout_s=self._body_timeout_s,
                held=self._held,
                deadlines=self._deadlines,
                source=network_of(str((scope.get("client") or ("",))[0])),
            )
        reply.reusable = True
        if self._local_only:
            check_local(head.fields)
        return Exchange(head, body, reply.request_id, receive)

    async def _delegate(
        self, scope: Scope, receive: Receive, reply: _Reply, exchange: Exchange
    ) -> StreamedAnswer | None:
        """Let the framework answer; what it leaves to be sent, if anything."""
        method = "GET" if exchange.head.method == "HEAD" else exchange.head.method
        scope["method"] = method if method in _ROUTABLE else _NO_METHOD
        scope["path"] = exchange.head.path
        scope[_EXCHANGE] = exchange

        async def forward(message: Message) -> None:
            if _STREAM not in scope:
                await reply.forward(message)

        await self._app(scope, receive, forward)
        return scope.get(_STREAM)


class _Reply:
    """What every answer gets on its way out."""

    __slots__ = ("_clock", "_started_s", "body", "request_id", "reusable", "send", "with_body")

    def __init__(self, send: Send, request_id: str, clock: Clock) -> None:
        self.send = send
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self.request_id = request_id
        self.body: Body | None = None
        self.reusable = False
        """The request was understood, so what follows on its connection is the next one."""
        self.with_body = True

    def headers(self, timing: Timing | None = None) -> Headers:
        """The headers of every answer; what is left of the request's body was dropped before."""
        total_ms = (self._clock.monotonic_s() - self._started_s) * 1000
        headers: Headers = [
            (b"x-request-id", self.request_id.encode()),
            _NOSNIFF,
            (b"server-timing", server_timing(total_ms, timing)),
        ]
        if not self.reusable:
            headers.append((b"connection", b"close"))
        return headers

    async def forward(self, message: Message) -> None:
        """Pass a message of the application on, completed."""
        if message["type"] == "http.response.start":
            if self.body is not None and not await self.body.drop():
                self.reusable = False
            message["headers"] = [*message["headers"], *self.headers()]
        elif not self.with_body:
            message["body"] = b""
        await self.send(message)


def server_timing(total_ms: float, worker: Timing | None) -> bytes:
    """The ``Server-Timing`` header: the whole time, the route's share of it, and the worker's steps.

    ``route`` is what the steps leave: the main worker's own time, and the way to the worker and back.
    """
    if worker is None:
        return b"total;dur=%.3f" % total_ms
    route_ms = total_ms
    steps = ""
    for name, us in worker:
        route_ms -= us / 1000
        steps += f", {name};dur={us / 1000:.3f}"
    return f"total;dur={total_ms:.3f}, route;dur={max(0.0, route_ms):.3f}{steps}".encode()


def first_segment(path: str) -> str:
    """``entity`` of ``/entity/notes``; "" of a path without a second slash."""
    end = path.find("/", 1)
    return path[1:end] if end > 0 else ""


async def _as_generator(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def _send_chunks(chunks: AsyncIterator[bytes], send: Send, take_s: float | None) -> None:
    # The server takes the next piece when the client has taken what was sent before.
    async for chunk in chunks:
        try:
            async with asyncio.timeout(take_s):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            raise RequestTimeout("the client has taken nothing for too long") from None


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
