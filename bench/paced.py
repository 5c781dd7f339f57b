"""A generator in this process, where no program is installed: slower than what it measures."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence

import uvloop

from bench.load import FRESH, SEED, Load, Request, fresh_names, fresh_start, load_of


class Loop:
    """Callers on connections of their own; each sends when it is free, or when its next request is due."""

    def run(
        self, port: int, requests: Sequence[Request], *, connections: int, seconds: float, rate: int = 0
    ) -> Load:
        return uvloop.run(self._run(port, requests, connections, seconds, rate))

    async def _run(
        self, port: int, requests: Sequence[Request], connections: int, seconds: float, rate: int
    ) -> Load:
        wire = [_wire(request, port).split(FRESH.encode()) for request in requests]
        order = random.Random(SEED)
        numbers = itertools.count(fresh_start())
        latencies_ms: list[float] = []
        errors = 0
        # Of the schedule each caller takes the next place: the wait for a free one counts as latency.
        places = itertools.count()
        cpu_s, began_s = time.process_time(), time.perf_counter()

        async def caller() -> None:
            nonlocal errors
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                due_s = time.perf_counter()
                if rate:
                    due_s = began_s + next(places) / rate
                    await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                if due_s >= began_s + seconds:
                    break
                writer.write(fresh_names(order.choice(wire), numbers))
                errors += await _status(reader) >= 400
                latencies_ms.append((time.perf_counter() - due_s) * 1000)
            writer.close()
            await writer.wait_closed()

        ends = await asyncio.gather(*(caller() for _ in range(connections)), return_exceptions=True)
        elapsed_s = time.perf_counter() - began_s
        errors += sum(end is not None for end in ends)
        if not latencies_ms:
            raise RuntimeError(f"no request was answered: {ends[0]!r}")
        used_s = time.process_time() - cpu_s
        return load_of(latencies_ms, errors=errors, seconds=elapsed_s, cpu_s=used_s, target=float(rate))


def _wire(request: Request, port: int) -> bytes:
    length = f"Content-Length: {len(request.body)}\r\n" if request.body else ""
    kind = f"Content-Type: {request.type}\r\n" if request.type else ""
    head = f"{request.method} {request.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{kind}{length}\r\n"
    return head.encode() + request.body


async def _status(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end; return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    status = int(head[0].split()[1])
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    elif status not in (204, 304):
        await reader.readexactly(next(int(line[15:]) for line in head if line.startswith(b"content-length:")))
    return status
