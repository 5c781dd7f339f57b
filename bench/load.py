"""What load is: requests, what a generator saw of them, and what every generator promises."""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bench.stats import percentile

SEED = 1
FRESH = "@@@@@@@@@@"
"""In a path or body: replaced by ten digits that no request before had, in every place anew."""
FRESH_STEP = 10_000_000
BUSY = 0.9
"""A generator that used more than this part of its one processor may have been the limit."""

_starts = itertools.count(0, FRESH_STEP)


class Request(NamedTuple):
    """One request; ``path`` and ``type`` without white space, ``body`` without line breaks."""

    method: str
    path: str
    body: bytes = b""
    type: str = ""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a generator saw.

    Attributes:
        requests: answered ones.
        errors: answers of 400 and above, broken connections, timeouts.
        seconds: length of the measurement.
        p50_ms, p90_ms, p99_ms: latencies that half of the requests, one in ten, one in a hundred exceed.
        cpu_s: processor time of the generator; it has one processor, so ``seconds`` is its limit.
        target: requests a second that were to be sent; 0: as many as were answered.
    """

    requests: int
    errors: int
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_s: float
    target: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds

    @property
    def busy(self) -> float:
        """The part of its processor that the generator used."""
        return self.cpu_s / self.seconds


class Generator(Protocol):
    """Sends requests to a port of the loopback interface, in random order."""

    def run(
        self, port: int, requests: Sequence[Request], *, connections: int, seconds: float, rate: int = 0
    ) -> Load:
        """Keep ``connections`` requests under way for ``seconds``; or send ``rate`` of them a second.

        With a rate each latency counts from when its request was due, so that a request that had to wait
        for slow ones before it counts as slow too (no coordinated omission).
        """
        ...


def fresh_start() -> int:
    """A number from which ``FRESH_STEP`` names are unused."""
    return next(_starts)


def fresh_names(parts: Sequence[bytes], numbers: Iterator[int]) -> bytes:
    """Join what was split at ``FRESH``, with new names in between."""
    if len(parts) == 1:
        return parts[0]
    pieces = [parts[0]]
    for part in parts[1:]:
        pieces += [b"%010d" % next(numbers), part]
    return b"".join(pieces)


def load_of(
    latencies_ms: list[float], *, errors: int, seconds: float, cpu_s: float, target: float = 0.0
) -> Load:
    """Sum up at least one request."""
    latencies_ms.sort()
    p50_ms, p90_ms, p99_ms = (percentile(latencies_ms, percent) for percent in (50, 90, 99))
    return Load(
        requests=len(latencies_ms),
        errors=errors,
        seconds=seconds,
        p50_ms=p50_ms,
        p90_ms=p90_ms,
        p99_ms=p99_ms,
        cpu_s=cpu_s,
        target=target,
    )


@contextmanager
def children_cpu_s() -> Iterator[list[float]]:
    """Processor time of the child processes that end meanwhile: one number, there at the end."""

    def used_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before_s, found = used_s(), list[float]()
    yield found
    found.append(used_s() - before_s)


def repeated(work_once: Callable[[], None], seconds: float) -> Load:
    """A generator's report of one function that is called again and again."""
    latencies_ms: list[float] = []
    cpu_s, began_s = time.process_time(), time.perf_counter()
    now_s = began_s
    while now_s < began_s + seconds:
        work_once()
        ended_s = time.perf_counter()
        latencies_ms.append((ended_s - now_s) * 1000)
        now_s = ended_s
    return load_of(latencies_ms, errors=0, seconds=now_s - began_s, cpu_s=time.process_time() - cpu_s)
