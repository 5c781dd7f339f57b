"""A request's body as it arrives: bounded in size and time, and dropped politely when refused."""

from __future__ import annotations

import asyncio
import contextlib

from deltadatabase import limits
from deltadatabase.errors import Invalid, RequestTimeout, TooLarge
from deltadatabase.gateway.asgi import Message, Receive


class Body:
    """The body of one request, read at most once.

    Args:
        receive: the ASGI callable.
        declared_bytes: its Content-Length; None when it comes in chunks.
        waits: the client asked for ``100 Continue`` and sends nothing before it.
        timeout_s: time for a body of up to one MiB; a larger limit gets more in proportion.
    """

    __slots__ = ("_declared_bytes", "_finished", "_given_up", "_receive", "_timeout_s", "_waits")

    def __init__(
        self, receive: Receive, declared_bytes: int | None, *, waits: bool, timeout_s: float
    ) -> None:
        self._receive = receive
        self._declared_bytes = declared_bytes
        self._waits = waits
        self._timeout_s = timeout_s
        self._given_up = False
        self._finished = False

    async def read(self, limit_bytes: int) -> bytes:
        """Receive all of it.

        Raises:
            TooLarge: more than ``limit_bytes``.
            RequestTimeout: it did not arrive in time.
            Invalid: ``incomplete_body``: the client left, or framed it wrongly.
        """
        if self._declared_bytes is not None and self._declared_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        self._waits = False
        try:
            async with asyncio.timeout(self._timeout_s * max(1.0, limit_bytes / limits.MIB)):
                return await self._collect(limit_bytes)
        except TimeoutError:
            self._given_up = True
            raise RequestTimeout("the request's body did not arrive in time") from None

    async def _collect(self, limit_bytes: int) -> bytes:
        chunk = await self._next()
        if self._finished and len(chunk) <= limit_bytes:
            return chunk
        collected = bytearray(chunk)
        while len(collected) <= limit_bytes:
            if self._finished:
                return bytes(collected)
            collected += await self._next()
        raise _too_large(limit_bytes)

    async def _next(self) -> bytes:
        message: Message = await self._receive()
        if message["type"] != "http.request":
            self._given_up = True
            raise Invalid("the request's body is incomplete or wrongly framed", code="incomplete_body")
        self._finished = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    async def drop(self) -> bool:
        """Read and forget a bounded rest of it, so that the client gets to the answer.

        A client that is still sending when the connection closes is told of a reset and
        never reads the answer. True when the connection can be used again.
        """
        if not (self._finished or self._given_up or self._waits):
            with contextlib.suppress(TimeoutError, Invalid):
                async with asyncio.timeout(limits.REFUSED_BODY_DRAIN_S):
                    await self._drain()
        return self._finished

    async def _drain(self) -> None:
        dropped_bytes = 0
        while not self._finished and dropped_bytes < limits.REFUSED_BODY_DRAIN_BYTES_MAX:
            dropped_bytes += len(await self._next())


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the request's body is larger than {limit_bytes} bytes")
