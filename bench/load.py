"""Load generators: closed loops over a number of HTTP connections, requests in random order.

A closed loop sends the next request when the answer has come, so its latencies are those of a
server at its limit; compare them within one run only.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import uvloop

from bench.stats import percentile

SEED = 1
SCRIPT = Path(__file__).with_name("wrk.lua")


class Request(NamedTuple):
    """One request; ``path`` without white space, ``body`` without line breaks."""

    method: str
    path: str
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a generator saw.

    Attributes:
        requests: answered ones.
        errors: answers of 400 and above, broken connections, timeouts.
        seconds: length of the measurement.
        p50_ms: median latency.
        p99_ms: latency that one request in a hundred exceeds.
        cpu_s: processor time of the generator; it has one thread, so ``seconds`` is its limit.
    """

    requests: int
    errors: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


class Generator(Protocol):
    """Sends requests to a port of the loopback interface."""

    def run(self, port: int, requests: Sequence[Request], *, connections: int, seconds: int) -> Load:
        """Keep ``connections`` requests under way for ``seconds``."""
        ...


class Wrk:
    """The generator ``wrk``, one thread: by far cheaper than any server measured here."""

    @staticmethod
    def installed() -> bool:
        """True where the program is there."""
        return shutil.which("wrk") is not None

    def run(self, port: int, requests: Sequence[Request], *, connections: int, seconds: int) -> Load:
        before_s = _children_cpu_s()
        with tempfile.NamedTemporaryFile(suffix=".requests") as listing:
            listing.writelines(b"%s %s %s\n" % (r.method.encode(), r.path.encode(), r.body) for r in requests)
            listing.flush()
            done = subprocess.run(
                [
                    *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"-s{SCRIPT}"),
                    *(f"http://127.0.0.1:{port}/", "--", listing.name, str(SEED)),
                ],
                check=True,
                capture_output=True,
                text=True,
            )
        seen = json.loads(done.stdout.splitlines()[-1])
        return Load(**seen, cpu_s=_children_cpu_s() - before_s)


class Loop:
    """A generator in this process, for a smoke test where wrk is missing: slower than a server."""

    def run(self, port: int, requests: Sequence[Request], *, connections: int, seconds: int) -> Load:
        return uvloop.run(self._run(port, requests, connections, seconds))

    async def _run(self, port: int, requests: Sequence[Request], connections: int, seconds: int) -> Load:
        wire = [_wire(request, port) for request in requests]
        order = random.Random(SEED)
        latencies_ms: list[float] = []
        errors = 0
        cpu_s, began_s = time.process_time(), time.perf_counter()

        async def caller() -> None:
            nonlocal errors
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            now_s = time.perf_counter()
            while now_s < began_s + seconds:
                writer.write(order.choice(wire))
                errors += await _status(reader) >= 400
                ended_s = time.perf_counter()
                latencies_ms.append((ended_s - now_s) * 1000)
                now_s = ended_s
            writer.close()
            await writer.wait_closed()

        ends = await asyncio.gather(*(caller() for _ in range(connections)), return_exceptions=True)
        elapsed_s = time.perf_counter() - began_s
        errors += sum(end is not None for end in ends)
        latencies_ms.sort()
        return Load(
            requests=len(latencies_ms),
            errors=errors,
            seconds=elapsed_s,
            p50_ms=percentile(latencies_ms, 50),
            p99_ms=percentile(latencies_ms, 99),
            cpu_s=time.process_time() - cpu_s,
        )


def _wire(request: Request, port: int) -> bytes:
    length = f"Content-Length: {len(request.body)}\r\n" if request.body else ""
    head = f"{request.method} {request.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{length}\r\n"
    return head.encode() + request.body


async def _status(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end; return its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(int(line[15:]) for line in head if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(head[0].split()[1])


def _children_cpu_s() -> float:
    """Processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
