"""A proxy before an S3 server that loses, delays, repeats and forges what passes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from chaos.schedule import NETWORK

STREAM_BYTES_MAX: Final = 16 << 20
LONG_DELAY_S: Final = 7.0
"""Longer than a worker waits for its store."""

_BODY: Final = b"<Error><Code>SlowDown</Code><Message>please wait</Message></Error>"
UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


@dataclass(frozen=True)
class Message:
    """One HTTP/1.1 request or response, as it was on the wire."""

    head: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.head + self.body


async def read_message(reader: asyncio.StreamReader, *, bodiless: bool = False) -> Message | None:
    """Read a message; None at the end of the connection.

    Args:
        reader: the connection.
        bodiless: a response that has no body whatever its head says, as the one to HEAD.

    Raises:
        asyncio.IncompleteReadError: it breaks off.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        if exc.partial:
            raise
        return None
    if bodiless:
        return Message(head, b"")
    fields = _fields(head)
    if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        return Message(head, await _read_chunks(reader))
    if (length := fields.get(b"content-length")) is not None:
        return Message(head, await reader.readexactly(int(length)))
    status = head.split(b" ", 2)[1] if head.startswith(b"HTTP/") else b""
    if not status or status in (b"204", b"304") or status.startswith(b"1"):
        return Message(head, b"")
    return Message(head, await reader.read())


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines = head.split(b"\r\n")[1:-2]
    return {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)
    }


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    """A chunked body as it is on the wire, its trailer included."""
    parts: list[bytes] = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        parts += [line]
        if not size:
            break
        parts += [await reader.readexactly(size + 2)]
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        parts.append(line)
    return b"".join([*parts, line])


class Proxy:
    """Passes requests on to one server, and does to them what ``begin`` said last.

    Args:
        upstream_port: of the server, on loopback.
        seed: of the choice of what is hit.

    Attributes:
        port: where it listens.
        hits: how often each fault was done.
    """

    def __init__(self, upstream_port: int, seed: int = 0) -> None:
        self._upstream_port = upstream_port
        self._rng = random.Random(seed)
        self._fault = ""
        self._share = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.hits: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen on a free port of loopback."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=STREAM_BYTES_MAX)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)  # Closed connections are let go of in the loop's next turn.

    def begin(self, fault: str, share: float) -> None:
        """Do this to a share of the requests from now on."""
        assert fault in NETWORK, fault
        self._fault, self._share = fault, share

    def end(self) -> None:
        """Pass everything on again."""
        self._fault = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream = _Upstream(self._upstream_port)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while (request := await read_message(reader)) is not None:
                    if not await self._answer(request, upstream, writer):
                        break
        finally:
            self._tasks.discard(task)
            upstream.close()
            writer.close()

    async def _answer(self, request: Message, upstream: _Upstream, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, or don't; whether the connection stays."""
        fault = self._draw()
        if fault == "drop-before":
            return False
        if fault == "late":
            # The worker learns now that the connection broke; what it sent is still under way.
            writer.close()
            await asyncio.sleep(self._rng.uniform(0.3, 5.0))
        if fault == "delay":
            long = self._rng.random() < 0.1
            await asyncio.sleep(LONG_DELAY_S if long else self._rng.uniform(0.01, 0.8))
        reply = UNAVAILABLE if fault == "refuse-before" else await upstream.ask(request)
        if fault == "twice":
            reply = await upstream.ask(request)
        if fault in ("drop-after", "late"):
            return False
        if fault == "truncate":
            reply = reply[: self._rng.randrange(1, len(reply))]
        if fault == "refuse-after":
            reply = UNAVAILABLE
        writer.write(_without_body(reply) if request.head.startswith(b"HEAD ") else reply)
        await writer.drain()
        return fault != "truncate"

    def _draw(self) -> str:
        if not self._fault or self._rng.random() >= self._share:
            return ""
        self.hits[self._fault] += 1
        return self._fault


def _without_body(reply: bytes) -> bytes:
    head, mark, _ = reply.partition(b"\r\n\r\n")
    return head + mark


class _Upstream:
    """A connection to the server, made when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Message) -> bytes:
        if self._streams is not None and self._streams[0].at_eof():
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=STREAM_BYTES_MAX)
        reader, writer = self._streams
        writer.write(request.raw)
        await writer.drain()
        reply = await read_message(reader, bodiless=request.head.startswith(b"HEAD "))
        if reply is None:
            raise ConnectionResetError
        return reply.raw

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
