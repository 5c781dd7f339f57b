"""A request's body as it arrives: bounded in size and time, and dropped politely when refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator

from deltadatabase import limits
from deltadatabase.deadlines import Deadlines
from deltadatabase.errors import Invalid, Overloaded, RequestTimeout, TooLarge
from deltadatabase.gateway.asgi import Message, Receive


class HeldBodies:
    """Counts the bytes of all bodies that this process holds.

    Documents are sent by callers who have shown their right. What anybody may send, such as a
    login, is counted apart and for each source, so that one of them cannot fill the room of all.

    Args:
        documents_bytes_max: bound of the documents and schemas together.
        small_bytes_max: bound of all other bodies together.
        of_one_bytes_max: of these, bound of one source.
    """

    def __init__(
        self,
        documents_bytes_max: int = limits.BODIES_BYTES_MAX,
        small_bytes_max: int = limits.SMALL_BODIES_BYTES_MAX,
        of_one_bytes_max: int = limits.SMALL_BODIES_OF_ONE_BYTES_MAX,
    ) -> None:
        self._documents_bytes_max = documents_bytes_max
        self._small_bytes_max = small_bytes_max
        self._of_one_bytes_max = of_one_bytes_max
        self.documents_bytes = 0
        self.small_bytes = 0
        self._of_one: Counter[str] = Counter()

    def take(self, size: int, source: str | None) -> None:
        """Count ``size`` bytes more; ``source`` is None for a document.

        Raises:
            Overloaded: there is no room for them; they are not counted.
        """
        if source is None:
            if self.documents_bytes + size > self._documents_bytes_max:
                raise _no_room()
            self.documents_bytes += size
            return
        if (
            self.small_bytes + size > self._small_bytes_max
            or self._of_one[source] + size > self._of_one_bytes_max
        ):
            raise _no_room()
        self.small_bytes += size
        self._of_one[source] += size

    def give(self, size: int, source: str | None) -> None:
        """Count ``size`` bytes less."""
        if source is None:
            self.documents_bytes -= size
            return
        self.small_bytes -= size
        self._of_one[source] -= size
        if not self._of_one[source]:
            del self._of_one[source]


class Body:
    """The body of one request, read at most once.

    Args:
        receive: the ASGI callable.
        declared_bytes: its Content-Length; None when it comes in chunks.
        waits: the client asked for ``100 Continue`` and sends nothing before it.
        timeout_s: time for a body of up to one MiB; a larger limit gets more in proportion.
        held: where its bytes are counted until it is answered or forgotten.
        source: who sends it.
        deadlines: where its time limit is kept.
    """

    __slots__ = (
        "_arrived_bytes",
        "_counted_as",
        "_counted_bytes",
        "_deadlines",
        "_declared_bytes",
        "_finished",
        "_given_up",
        "_held",
        "_receive",
        "_source",
        "_timeout_s",
        "_waits",
    )

    def __init__(
        self,
        receive: Receive,
        declared_bytes: int | None,
        *,
        waits: bool,
        timeout_s: float,
        held: HeldBodies,
        deadlines: Deadlines,
        source: str = "",
    ) -> None:
        self._deadlines = deadlines
        self._held = held
        self._source = source
        self._counted_as: str | None = None
        self._counted_bytes = 0
        self._arrived_bytes = 0
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
            Overloaded: the process holds too many bodies.
            Invalid: ``incomplete_body``: the client left, or framed it wrongly.
        """
        if self._declared_bytes is not None and self._declared_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        self._waits = False
        self._counted_as = self._source if limit_bytes <= limits.API_BODY_BYTES_MAX else None
        try:
            with self._deadlines.within(self._timeout_s * max(1.0, limit_bytes / limits.MIB)):
                return await self._collect(limit_bytes)
        except TimeoutError:
            self._given_up = True
            raise RequestTimeout("the request's body did not arrive in time") from None

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Receive it piece by piece, as fast as the pieces are taken; of any length.

        Each piece has the time that a body of one MiB has.

        Raises:
            RequestTimeout: the next piece did not arrive in time.
            Invalid: ``incomplete_body``: the client left, or framed it wrongly.
        """
        self._waits = False
        while not self._finished:
            try:
                async with asyncio.timeout(self._timeout_s):
                    chunk = await self._next()
            except TimeoutError:
                self._given_up = True
                raise RequestTimeout("the request's body did not arrive in time") from None
            if chunk:
                yield chunk

    async def _collect(self, limit_bytes: int) -> bytes:
        chunk = await self._next_counted()
        if self._finished and len(chunk) <= limit_bytes:
            return chunk
        collected = bytearray(chunk)
        while len(collected) <= limit_bytes:
            if self._finished:
                return bytes(collected)
            collected += await self._next_counted()
        raise _too_large(limit_bytes)

    async def _next_counted(self) -> bytes:
        chunk = await self._next()
        self._held.take(len(chunk), self._counted_as)
        self._counted_bytes += len(chunk)
        return chunk

    async def _next(self) -> bytes:
        message: Message = await self._receive()
        if message["type"] != "http.request":
            self._given_up = True
            raise Invalid("the request's body is incomplete or wrongly framed", code="incomplete_body")
        chunk: bytes = message.get("body", b"")
        self._arrived_bytes += len(chunk)
        # The server frames it by its declared length: to be told so would be one more way through threads.
        self._finished = not message.get("more_body", False) or self._arrived_bytes == self._declared_bytes
        return chunk

    async def drop(self) -> bool:
        """Read and forget a bounded rest of it, so that the client gets to the answer.

        A client that is still sending when the connection closes is told of a reset and
        never reads the answer. True when the connection can be used again.
        """
        self._forget()
        if not (self._finished or self._given_up or self._waits):
            with contextlib.suppress(TimeoutError, Invalid):
                async with asyncio.timeout(limits.REFUSED_BODY_DRAIN_S):
                    await self._drain()
        return self._finished

    def _forget(self) -> None:
        self._held.give(self._counted_bytes, self._counted_as)
        self._counted_bytes = 0

    def __del__(self) -> None:
        # A request whose client left is cancelled and gets no answer.
        self._forget()

    async def _drain(self) -> None:
        dropped_bytes = 0
        while not self._finished and dropped_bytes < limits.REFUSED_BODY_DRAIN_BYTES_MAX:
            dropped_bytes += len(await self._next())


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the request's body is larger than {limit_bytes} bytes")


def _no_room() -> Overloaded:
    return Overloaded("too many request bodies are being received at once")
