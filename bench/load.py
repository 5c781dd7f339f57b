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
        loop = asyncio.get_running_loop()
        seen = _Seen(random.Random(SEED), [_wire(request, port) for request in requests], [])
        cpu_s, began_s = time.process_time(), time.perf_counter()
        seen.ends_s = began_s + seconds
        opened = [
            await loop.create_connection(lambda: _Connection(seen), "127.0.0.1", port)
            for _ in range(connections)
        ]
        await asyncio.gather(*(connection.closed for _, connection in opened))
        elapsed_s = time.perf_counter() - began_s
        latencies_ms = sorted(seen.latencies_ms) or [0.0]
        return Load(
            requests=len(seen.latencies_ms),
            errors=seen.errors,
            seconds=elapsed_s,
            p50_ms=percentile(latencies_ms, 50),
            p99_ms=percentile(latencies_ms, 99),
            cpu_s=time.process_time() - cpu_s,
        )


@dataclass
class _Seen:
    random: random.Random
    wire: list[bytes]
    latencies_ms: list[float]
    errors: int = 0
    ends_s: float = 0.0


class _Connection(asyncio.Protocol):
    """Sends a request, waits for its answer, and so on until the time is up."""

    def __init__(self, seen: _Seen) -> None:
        self._seen = seen
        self._received = b""
        self._began_s = 0.0
        self._waiting = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < _content_length(head):
            return
        now_s = time.perf_counter()
        self._waiting = False
        self._received = b""
        self._seen.latencies_ms.append((now_s - self._began_s) * 1000)
        self._seen.errors += head[9:10] not in b"123"
        if now_s < self._seen.ends_s:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._seen.errors += self._waiting
        self.closed.set_result(None)

    def _send(self) -> None:
        self._waiting = True
        self._began_s = time.perf_counter()
        self._transport.write(self._seen.random.choice(self._seen.wire))


def _wire(request: Request, port: int) -> bytes:
    length = f"Content-Length: {len(request.body)}\r\n" if request.body else ""
    head = f"{request.method} {request.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{length}\r\n"
    return head.encode() + request.body


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


def _children_cpu_s() -> float:
    """Processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
