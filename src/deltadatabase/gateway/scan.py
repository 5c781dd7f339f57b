"""Which stored entities a schema would refuse: a walk over all of them, told while it goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec

from deltadatabase.errors import Corrupt, DeltaError, Issue, NotFound, Overloaded, Unavailable
from deltadatabase.gateway.ports import Entities, Listing
from deltadatabase.gateway.schema_trial import SchemaTrial, trial_of
from deltadatabase.limits import (
    SCAN_BATCH_BYTES_MAX,
    SCAN_BATCH_MAX,
    SCAN_LISTED_MAX,
    SCAN_READS_MAX,
    SCANS_MAX,
)
from deltadatabase.model import ListedEntity, Result
from deltadatabase.storage.paths import unescape_key

PROGRESS_S: Final = 1.0
"""A line tells how far it is at least so often."""
RETRY_S: Final = 10.0
_TRIES: Final = 10
_PAUSE_S: Final = 1.0

T = TypeVar("T")


class ScanProgress(msgspec.Struct):
    """How far a scan is.

    Attributes:
        checked: entities that were held against the schema.
        refused: those of them that it refuses.
        unreadable: entities that could not be read, as they are damaged.
    """

    checked: int = 0
    refused: int = 0
    unreadable: int = 0


class ScanRefused(msgspec.Struct, frozen=True, kw_only=True):
    """An entity that the schema would refuse."""

    key: str
    version: int
    errors: tuple[Issue, ...]


class ScanUnreadable(msgspec.Struct, frozen=True, kw_only=True):
    """An entity that could not be read; ``error`` is the code of the reason."""

    key: str
    error: str


class ScanDone(msgspec.Struct, frozen=True, kw_only=True):
    """The last line of a scan that came to its end; counts as of ``ScanProgress``."""

    done: bool = True
    checked: int
    refused: int
    unreadable: int


class Scan:
    """Holds the entities of one schema id against a schema.

    Args:
        listing: names the entities.
        entities: reads them.
        schema_id: whose.
        trial: the schema.
    """

    def __init__(self, listing: Listing, entities: Entities, schema_id: str, trial: SchemaTrial) -> None:
        self._listing = listing
        self._entities = entities
        self._schema_id = schema_id
        self._trial = trial
        self._progress = ScanProgress()
        self._reads = asyncio.Semaphore(SCAN_READS_MAX)

    async def lines(self, may_go_on: Callable[[], None]) -> AsyncGenerator[bytes]:
        """Give lines of JSON: what is refused, every second how far it is, and at last that it is done.

        Args:
            may_go_on: asked at least every second; it raises to end the scan.

        Raises:
            DeltaError: what ``may_go_on`` raises, or what keeps the store from being read.
        """
        time_s = asyncio.get_running_loop().time
        told_s = time_s()
        walk = self._walk()
        step = asyncio.ensure_future(anext(walk, None))
        try:
            while True:
                await asyncio.wait({step}, timeout=max(0.0, told_s + PROGRESS_S - time_s()))
                if time_s() - told_s >= PROGRESS_S:
                    may_go_on()
                    told_s = time_s()
                    yield _line(self._progress)
                if step.done():
                    if (found := step.result()) is None:
                        break
                    step = asyncio.ensure_future(anext(walk, None))
                    if found:
                        yield b"".join(map(_line, found))
        finally:
            step.cancel()
            await asyncio.wait({step})
            if not step.cancelled():
                step.exception()  # Perhaps nobody's any more.
            await walk.aclose()
        yield _line(ScanDone(**msgspec.structs.asdict(self._progress)))

    async def _walk(self) -> AsyncGenerator[list[ScanRefused | ScanUnreadable]]:
        """Check one batch after the other and give what is to be listed of it."""
        after, more = "", True
        while more:
            page = await _patiently(partial(self._listing.list, self._schema_id, after=after))
            for batch in batches(page.entities):
                yield await self._check(batch)
            after, more = page.next, bool(page.next)

    async def _check(self, batch: Sequence[ListedEntity]) -> list[ScanRefused | ScanUnreadable]:
        keys = [unescape_key(entity.name) for entity in batch]
        results = await asyncio.gather(*map(self._read, keys))
        read = [
            (key, result) for key, result in zip(keys, results, strict=True) if isinstance(result, Result)
        ]
        reasons = await self._trial.check([(key, result.document) for key, result in read])
        progress, found = self._progress, list[ScanRefused | ScanUnreadable]()
        for key, result in zip(keys, results, strict=True):
            if isinstance(result, Corrupt):
                progress.unreadable += 1
                found.append(ScanUnreadable(key=key, error=result.code))
        for (key, result), errors in zip(read, reasons, strict=True):
            progress.checked += 1
            if errors:
                progress.refused += 1
                found.append(ScanRefused(key=key, version=result.version, errors=errors))
        left = max(0, SCAN_LISTED_MAX - (progress.refused + progress.unreadable - len(found)))
        return found[:left]

    async def _read(self, key: str) -> Result | DeltaError:
        async with self._reads:
            try:
                return await _patiently(partial(self._entities.get, self._schema_id, key))
            except (NotFound, Corrupt) as exc:
                return exc


class Scans:
    """Begins scans, a bounded number at once.

    Args:
        listing, entities: as of ``Scan``.
    """

    def __init__(self, listing: Listing, entities: Entities) -> None:
        self._listing = listing
        self._entities = entities
        self._places = asyncio.Semaphore(SCANS_MAX)

    def begin(self, schema_id: str, schema: bytes, may_go_on: Callable[[], None]) -> AsyncGenerator[bytes]:
        """Scan by a schema that is known to be valid; lines and errors as of ``Scan.lines``.

        Raises:
            Overloaded: as many as may are going on.
        """
        if self._places.locked():
            raise Overloaded(
                f"other scans are going on scans_max={SCANS_MAX}", code="scans_busy", retry_after_s=RETRY_S
            )
        return self._lines(schema_id, schema, may_go_on)

    async def _lines(
        self, schema_id: str, schema: bytes, may_go_on: Callable[[], None]
    ) -> AsyncGenerator[bytes]:
        async with self._places, trial_of(schema) as trial:
            scan = Scan(self._listing, self._entities, schema_id, trial)
            async with contextlib.aclosing(scan.lines(may_go_on)) as lines:
                async for line in lines:
                    yield line


def batches(entities: Iterable[ListedEntity]) -> Iterator[list[ListedEntity]]:
    """Cut a page into pieces that are bounded in number and, as stored, in bytes; but none is empty."""
    batch: list[ListedEntity] = []
    size = 0
    for entity in entities:
        if batch and (len(batch) >= SCAN_BATCH_MAX or size + entity.size_bytes > SCAN_BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(entity)
        size += entity.size_bytes
    if batch:
        yield batch


async def _patiently(read: Callable[[], Awaitable[T]]) -> T:
    """Read, again and again while something is not there: a scan outlives a change of workers."""
    for _ in range(_TRIES - 1):
        try:
            return await read()
        except (Unavailable, Overloaded):
            await asyncio.sleep(_PAUSE_S)
    return await read()


def _line(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value) + b"\n"
