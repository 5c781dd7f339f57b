"""A store that counts and times its requests. Fulfils ``Store`` around any other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final, final

from deltadatabase import limits
from deltadatabase.clock import Clock
from deltadatabase.errors import (
    AlreadyExists,
    Corrupt,
    DeltaError,
    NotFound,
    OutcomeUnknown,
    StoreFull,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.storage.base import Condition, ObjectInfo, Store, Stored
from deltadatabase.telemetry.metrics import DURATION_BOUNDS_S, Histogram, Labels, merged

KINDS: Final = ("put", "get", "settle", "head", "list", "scan", "remove", "delete")
_OK: Final = "ok"
_OUTCOMES: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (NotFound, "not_found"),
    (AlreadyExists, "conflict"),
    (VersionMismatch, "conflict"),
    (StoreFull, "full"),
    (OutcomeUnknown, "unknown"),
    (Unavailable, "unavailable"),
    (Corrupt, "damaged"),
    (DeltaError, "refused"),
    (asyncio.CancelledError, "cancelled"),
    (GeneratorExit, "cancelled"),
)
ERRORS: Final = ("unavailable", "unknown", "full")
"""Outcomes that tell of a store in trouble; the others are answers."""


@final
class StoreMeter:
    """What a store was asked, in plain numbers of its event loop.

    Attributes:
        read_bytes, written_bytes: of objects got, and of objects put with success.
    """

    def __init__(self) -> None:
        self.read_bytes = 0
        self.written_bytes = 0
        # From the start where a rise is worth an alert: a counter's first value is no rise.
        self._cells = {
            (kind, outcome): Histogram(DURATION_BOUNDS_S)
            for kind in ("put", "get")
            for outcome in (_OK, *ERRORS)
        }

    def done(self, kind: str, outcome: str, seconds: float) -> None:
        """Count one request."""
        cell = self._cells.get((kind, outcome))
        if cell is None:
            cell = self._cells[kind, outcome] = Histogram(DURATION_BOUNDS_S)
        cell.observe(seconds)

    def requests(self) -> Mapping[Labels, float]:
        """Number of requests by kind and outcome."""
        return {labels: cell.count for labels, cell in self._cells.copy().items()}

    def durations(self) -> Mapping[Labels, Histogram]:
        """Their times by kind."""
        cells = self._cells.copy()
        kinds = sorted({kind for kind, _ in cells})
        return {(kind,): merged([cell for name, cell in cells.items() if name[0] == kind]) for kind in kinds}


@final
class MeteredStore:
    """Passes every call on.

    Args:
        inner: the store that does the work.
        meter: counts.
        clock: monotonic time.
    """

    def __init__(self, inner: Store, meter: StoreMeter, clock: Clock) -> None:
        self.inner = inner
        self.backend = inner.backend
        self.removes = inner.removes
        self._meter = meter
        self._clock = clock

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        with _Timed(self._meter, self._clock, "put"):
            etag = await self.inner.put(path, data, condition)
        self._meter.written_bytes += len(data)
        return etag

    async def get(self, path: str) -> Stored:
        with _Timed(self._meter, self._clock, "get"):
            stored = await self.inner.get(path)
        self._meter.read_bytes += len(stored.data)
        return stored

    async def settle(self, path: str) -> None:
        if self.backend != "directory":
            return  # Elsewhere what can be read is durable: there is nothing to ask, or to count.
        with _Timed(self._meter, self._clock, "settle"):
            await self.inner.settle(path)

    async def get_if_changed(self, path: str, etag: str) -> Stored | None:
        with _Timed(self._meter, self._clock, "get"):
            stored = await self.inner.get_if_changed(path, etag)
        if stored is not None:
            self._meter.read_bytes += len(stored.data)
        return stored

    async def head(self, path: str) -> ObjectInfo:
        with _Timed(self._meter, self._clock, "head"):
            return await self.inner.head(path)

    async def list(
        self, prefix: str, *, after: str = "", limit: int = limits.LIST_PAGE_MAX
    ) -> Sequence[ObjectInfo]:
        with _Timed(self._meter, self._clock, "list"):
            return await self.inner.list(prefix, after=after, limit=limit)

    async def folders(self, prefix: str) -> Sequence[str]:
        with _Timed(self._meter, self._clock, "list"):
            return await self.inner.folders(prefix)

    async def scan(self, prefix: str) -> AsyncGenerator[Sequence[str]]:
        with _Timed(self._meter, self._clock, "scan"):
            async with contextlib.aclosing(self.inner.scan(prefix)) as parts:
                async for part in parts:
                    yield part

    async def describe(self, prefix: str, names: Sequence[str]) -> Sequence[ObjectInfo | None]:
        with _Timed(self._meter, self._clock, "list"):
            return await self.inner.describe(prefix, names)

    async def folder_ms(self, prefix: str) -> int:
        return await self.inner.folder_ms(prefix)

    async def remove(self, path: str, etag: str) -> None:
        with _Timed(self._meter, self._clock, "remove"):
            await self.inner.remove(path, etag)

    async def delete(self, path: str) -> None:
        with _Timed(self._meter, self._clock, "delete"):
            await self.inner.delete(path)

    async def close(self) -> None:
        await self.inner.close()


class _Timed:
    """Counts what happens while it is entered."""

    __slots__ = ("_clock", "_kind", "_meter", "_started_s")

    def __init__(self, meter: StoreMeter, clock: Clock, kind: str) -> None:
        self._meter = meter
        self._clock = clock
        self._kind = kind
        self._started_s = 0.0

    def __enter__(self) -> None:
        self._started_s = self._clock.monotonic_s()

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        outcome = _OK if kind is None else outcome_of(kind)
        self._meter.done(self._kind, outcome, self._clock.monotonic_s() - self._started_s)


def outcome_of(error: type[BaseException]) -> str:
    """The label of how a request ended that raised this."""
    return next((name for known, name in _OUTCOMES if issubclass(error, known)), "internal")
