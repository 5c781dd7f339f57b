"""A TCP proxy that holds requests back, as a distant store does.

``python -m bench.delay PORT UPSTREAM_PORT MILLISECONDS``
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from typing import cast

import uvloop


class Way(asyncio.Protocol):
    """One direction of a connection: what arrives leaves on the other side, so much later."""

    def __init__(self, delay_s: float, to: asyncio.Transport | None = None) -> None:
        self.delay_s = delay_s
        self.to = to
        self.own: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes]] = deque()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.own = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def data_received(self, data: bytes) -> None:
        if not self.delay_s and self.to is not None:
            self.to.write(data)
            return
        loop = asyncio.get_running_loop()
        self._waiting.append((loop.time() + self.delay_s, data))
        loop.call_later(self.delay_s, self.send_due)

    def send_due(self) -> None:
        """Send, in order, what has waited long enough."""
        now_s = asyncio.get_running_loop().time()
        while self._waiting and self.to is not None:
            due_s, data = self._waiting[0]
            if due_s > now_s + 0.0005:
                asyncio.get_running_loop().call_later(due_s - now_s, self.send_due)
                break
            self._waiting.popleft()
            self.to.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.to is not None:
            self.to.close()


class Caller(Way):
    """The way from a client to the server, which it opens."""

    def __init__(self, upstream_port: int, delay_s: float) -> None:
        super().__init__(delay_s)
        self._upstream_port = upstream_port
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        assert self.own is not None
        loop = asyncio.get_running_loop()
        try:
            self.to, _ = await loop.create_connection(
                lambda: Way(0.0, self.own), "127.0.0.1", self._upstream_port
            )
        except OSError:
            self.own.close()
            return
        self.send_due()


async def main(port: int, upstream_port: int, delay_s: float) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await loop.create_server(lambda: Caller(upstream_port, delay_s), "127.0.0.1", port)
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1000))
