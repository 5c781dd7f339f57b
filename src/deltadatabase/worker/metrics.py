"""What a worker tells Prometheus, read where it stands when it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from deltadatabase.clock import Clock
from deltadatabase.errors import DeltaError
from deltadatabase.model import Command, Op, Result
from deltadatabase.rpc.link import Handler
from deltadatabase.storage.metered import StoreMeter
from deltadatabase.telemetry.metrics import (
    DURATION_BOUNDS_S,
    SIZE_BOUNDS,
    Histogram,
    Labels,
    counter,
    gauge,
    histogram,
    merged,
)
from deltadatabase.worker.counts import Counts
from deltadatabase.worker.node import Node

COMMANDS: Final = counter(
    "worker_commands_total",
    "Commands that took more than a look at the cache, by operation and outcome: `ok` or the kind of error.",
    "op",
    "outcome",
)
COMMAND_DURATION: Final = histogram("worker_command_duration_seconds", "Their times.", "op")
COMMANDS_IN_FLIGHT: Final = gauge("worker_commands_in_flight", "Of these, under way now.")
WRITES_WAITING: Final = gauge(
    "worker_writes_waiting", "Writes that wait for their turn behind others of the same entity."
)
REPLY_BATCH: Final = histogram(
    "worker_stream_batch_replies", "Replies that one message to the main worker takes along."
)
CACHE_HITS: Final = counter("cache_hits_total", "Times the cache knew an entity's present state.")
CACHE_MISSES: Final = counter("cache_misses_total", "Times it did not, and the store was read.")
CACHE_EVICTIONS: Final = counter("cache_evictions_total", "Entities that left the cache to make room.")
CACHE_BYTES: Final = gauge("cache_bytes", "Memory of cached entities.")
CACHE_LIMIT: Final = gauge("cache_limit_bytes", "`-cache-bytes`.")
CACHE_ENTRIES: Final = gauge("cache_entries", "Cached entities, absent ones among them.")
STORE_REQUESTS: Final = counter(
    "store_requests_total",
    "Requests to the store by kind (`put`, `get`, `settle`, `head`, `list`, `scan`, `remove`, `delete`) "
    "and outcome. `ok`, `not_found`, `conflict` are answers; `unavailable`, `unknown` and `full` are "
    "trouble.",
    "kind",
    "outcome",
)
STORE_DURATION: Final = histogram("store_request_duration_seconds", "Their times.", "kind")
STORE_RETRIES: Final = counter("store_retries_total", "Requests for an entity that were repeated.", "kind")
STORE_READ: Final = counter("store_read_bytes_total", "Bytes of objects got from the store.")
STORE_WRITTEN: Final = counter("store_written_bytes_total", "Bytes of objects put into the store.")
PUTS: Final = counter("committed_puts_total", "Puts of entities that the store confirmed.")
WRITES: Final = counter(
    "committed_writes_total", "Writes in these puts: writes of one entity that wait together are one put."
)
SEALS: Final = counter("seals_total", "Entities encrypted.")
OPENS: Final = counter("opens_total", "Entities decrypted, with success.")
INTEGRITY_FAILURES: Final = counter(
    "integrity_failures_total", "Commands that met a damaged or forged entity."
)
MEMBER: Final = gauge("worker_member", "1 while this worker is a member of the cluster, else 0.")
MEMBERSHIPS: Final = counter("worker_memberships_ended_total", "Memberships that ended since the start.")

FAMILIES: Final = (
    COMMANDS,
    COMMAND_DURATION,
    COMMANDS_IN_FLIGHT,
    WRITES_WAITING,
    REPLY_BATCH,
    CACHE_HITS,
    CACHE_MISSES,
    CACHE_EVICTIONS,
    CACHE_BYTES,
    CACHE_LIMIT,
    CACHE_ENTRIES,
    STORE_REQUESTS,
    STORE_DURATION,
    STORE_RETRIES,
    STORE_READ,
    STORE_WRITTEN,
    PUTS,
    WRITES,
    SEALS,
    OPENS,
    INTEGRITY_FAILURES,
    MEMBER,
    MEMBERSHIPS,
)
"""What a program with a worker in it exports."""

_FIRST_OPS: Final = (Op.GET, Op.PUT, Op.DELETE)


@final
class WorkerMetrics(Collector):
    """Counts what a worker does.

    Args:
        clock: monotonic time.

    Attributes:
        store: counts the store's requests.
        replies: sizes of the batches of replies.
        membership: whether this worker is a member now, and how many memberships have ended.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._commands = {(int(op), "ok"): Histogram(DURATION_BOUNDS_S) for op in _FIRST_OPS}
        self._in_flight = 0
        self._node: Node | None = None
        self.store = StoreMeter()
        self.replies = Histogram(SIZE_BOUNDS)
        self.membership: Callable[[], tuple[bool, int]] = lambda: (self._node is not None, 0)

    def watch(self, node: Node) -> None:
        """Tell of this engine from now on."""
        self._node = node

    def metered(self, handler: Handler) -> Handler:
        """The same handler, with the commands counted that it executes."""
        return _MeteredHandler(handler, self, self._clock)

    def began(self) -> None:
        """Count a command that is under way."""
        self._in_flight += 1

    def ended(self, command: Command, outcome: str, seconds: float) -> None:
        """Count its end."""
        self._in_flight -= 1
        name = (int(command.op), outcome)
        cell = self._commands.get(name)
        if cell is None:
            cell = self._commands[name] = Histogram(DURATION_BOUNDS_S)
        cell.observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """Give every sample."""
        node = self._node
        counts = node.counts if node else Counts()
        cells = {
            (Op(op).name.lower(), outcome): cell for (op, outcome), cell in self._commands.copy().items()
        }
        yield COMMANDS.each({labels: cell.count for labels, cell in cells.items()})
        yield COMMAND_DURATION.histograms(_by_first(cells))
        yield COMMANDS_IN_FLIGHT.of(self._in_flight)
        yield WRITES_WAITING.of(node.writes_waiting if node else 0)
        yield REPLY_BATCH.histograms({(): self.replies})
        yield CACHE_HITS.of(node.cache.hits if node else 0)
        yield CACHE_MISSES.of(counts.cache_misses)
        yield CACHE_EVICTIONS.of(node.cache.evictions if node else 0)
        yield CACHE_BYTES.of(node.cache.bytes_used if node else 0)
        yield CACHE_LIMIT.of(node.cache.bytes_max if node else 0)
        yield CACHE_ENTRIES.of(len(node.cache) if node else 0)
        yield STORE_REQUESTS.each(self.store.requests())
        yield STORE_DURATION.histograms(self.store.durations())
        yield STORE_RETRIES.each({("put",): counts.put_retries, ("get",): counts.get_retries})
        yield STORE_READ.of(self.store.read_bytes)
        yield STORE_WRITTEN.of(self.store.written_bytes)
        yield PUTS.of(counts.puts)
        yield WRITES.of(counts.writes)
        yield SEALS.of(counts.seals)
        yield OPENS.of(counts.opens)
        yield INTEGRITY_FAILURES.of(counts.integrity_failures)
        member, ended = self.membership()
        yield MEMBER.of(int(member))
        yield MEMBERSHIPS.of(ended)


@final
class _MeteredHandler:
    """Leaves cached reads alone: the cache counts them."""

    def __init__(self, inner: Handler, metrics: WorkerMetrics, clock: Clock) -> None:
        self._inner = inner
        self._metrics = metrics
        self._clock = clock
        self.fast = inner.fast

    async def execute(self, command: Command) -> Result:
        started_s = self._clock.monotonic_s()
        outcome = "internal"
        self._metrics.began()
        try:
            result = await self._inner.execute(command)
            outcome = "ok"
            return result
        except DeltaError as exc:
            outcome = _kind(exc)
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._metrics.ended(command, outcome, self._clock.monotonic_s() - started_s)


def _by_first(cells: dict[tuple[str, str], Histogram]) -> dict[Labels, Histogram]:
    names = sorted({first for first, _ in cells})
    return {(name,): merged([cell for key, cell in cells.items() if key[0] == name]) for name in names}


def _kind(error: DeltaError) -> str:
    """The error's class in the spelling of labels: ``NotFound`` is ``not_found``."""
    name = type(error).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
