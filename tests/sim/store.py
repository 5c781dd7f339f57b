"""The object store of a simulation, and encryption stood in for; what landed when is on record."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from deltadatabase.clock import Clock
from deltadatabase.errors import AlreadyExists, NotFound, OutcomeUnknown, Unavailable, VersionMismatch
from deltadatabase.model import Header
from deltadatabase.storage.base import Condition, ObjectInfo, Stored, When
from deltadatabase.storage.paths import DATABASE_PATH
from deltadatabase.worker.engine import etag_of
from sim.disk import ROOT, SharedDisk, _File

STORE_TIMEOUT_S = 1.0


class PlainSealer:
    """Stands in for encryption: headers travel beside the document, and each put is unique."""

    def __init__(self) -> None:
        self.sealed: dict[bytes, tuple[Header, bytes]] = {}
        self.key_id = b"key"

    def seal(self, header: Header, document: bytes) -> bytes:
        token = len(self.sealed).to_bytes(8, "big")
        self.sealed[token] = (header, document)
        return token

    def open(self, data: bytes, schema_id: str, key: str) -> tuple[Header, bytes]:
        return self.sealed[data]


@dataclass
class _Landing:
    at_s: float
    base: int
    before: int
    version: int


class Landings:
    """Which versions were committed when.

    Versions begin again at 1 after a tombstone was removed. To the checker they go on: ``base`` is
    what the removed ones came to.
    """

    def __init__(self) -> None:
        self._landings: dict[str, list[_Landing]] = defaultdict(list)
        self._base: dict[str, int] = defaultdict(int)
        self._by_etag: dict[tuple[str, str], int] = {}
        self._ids: set[tuple[str, bytes]] = set()
        self.merged = 0
        self.removed = 0
        self.resealed = 0

    def landed(self, header: Header, at_s: float) -> None:
        """An entity was put."""
        key, base, landings = header.key, self._base[header.key], self._landings[header.key]
        before = landings[-1].version if landings and landings[-1].base == base else 0
        landings.append(_Landing(at_s, base, before, header.version))
        self.merged += header.version - before > 1
        self.resealed += header.version == before
        for write in (header, *header.recent):
            self._by_etag.setdefault((key, etag_of(write.version, write.write_id)), base + write.version)
            self._ids.add((key, write.write_id))

    def gone(self, header: Header) -> None:
        """An entity's tombstone was removed."""
        self._base[header.key] += header.version
        self.removed += 1

    def has(self, key: str, write_id: bytes) -> bool:
        """Whether this write was committed."""
        return (key, write_id) in self._ids

    def version_of(self, key: str) -> int:
        """The version that was committed last, 0 without one."""
        return self._landings[key][-1].version if self._landings[key] else 0

    def of_etag(self, key: str, etag: str, version: int) -> int:
        """The version, counted on through removals, that an ETag names."""
        return self._by_etag.get((key, etag), version)

    def of_write(self, key: str, version: int, begin_s: float, end_s: float) -> int:
        """The version, counted on through removals, of a write that was committed in this time."""
        for landing in reversed(self._landings[key]):
            if landing.before < version <= landing.version and begin_s <= landing.at_s <= end_s:
                return landing.base + version
        return version


class SimStore:
    """One object store, at its moments slow, down, or silent after it did what it was asked.

    Attributes:
        trouble: how often something goes wrong, 0 to 1.
        late_s: by how much a put may be late.
        slow: how often a read is slow beside that, 0 to 1.
        down: nobody is answered, and nothing lands that was not on its way.
        recording: whether what lands counts; not while the store was emptied.
    """

    backend = "memory"

    def __init__(self, rng: random.Random, sealer: PlainSealer, *, removes: bool) -> None:
        self._rng = rng
        self._sealer = sealer
        self.removes = removes
        self.objects: dict[str, Stored] = {}
        self.landings = Landings()
        self.trouble = 0.0
        self.late_s = 8.0
        self.slow = 0.0
        self.down = False
        self.recording = True
        self.ignore_conditions = False
        self._serial = 0

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        rng = self._rng
        if self.down:
            await asyncio.sleep(rng.uniform(0.001, 0.05))
            raise OutcomeUnknown("no reply")
        if rng.random() < self.trouble * 0.3:
            await asyncio.sleep(rng.uniform(0.001, 0.05))
            raise Unavailable("refused")
        landing = asyncio.ensure_future(self._land(path, data, condition, rng.expovariate(1 / 0.01)))
        landing.add_done_callback(_seen)
        if rng.random() < self.trouble:
            # Lost on the way: it may land much later, or never; nobody is told.
            if rng.random() < 0.3:
                landing.cancel()
            else:
                await asyncio.sleep(rng.choice([0.0, 0.02, STORE_TIMEOUT_S]))
            raise OutcomeUnknown("no reply")
        etag = await self._answer(landing)
        if rng.random() < self.trouble:
            # Something between here and the store sent it twice, and the second answer came back.
            raise AlreadyExists("object exists") if condition is When.ABSENT else VersionMismatch("changed")
        return etag

    async def remove(self, path: str, etag: str) -> None:
        rng = self._rng
        removing = asyncio.ensure_future(self._remove(path, etag, rng.expovariate(1 / 0.01)))
        removing.add_done_callback(_seen)
        await self._answer(removing)

    async def get(self, path: str) -> Stored:
        await asyncio.sleep(self._rng.expovariate(1 / 0.005))
        if self.down or self._rng.random() < self.trouble * 0.5:
            raise Unavailable("no reply")
        stored = self.objects.get(path)
        slow = self._rng.random() < self.trouble + self.slow
        await asyncio.sleep(
            self._rng.uniform(0.05, STORE_TIMEOUT_S) if slow else self._rng.expovariate(1 / 0.005)
        )
        if stored is None:
            raise NotFound("no object")
        return stored

    async def settle(self, path: str) -> None:
        """What it shows is stored."""

    async def head(self, path: str) -> ObjectInfo:
        stored = await self.get(path)
        return ObjectInfo(path, len(stored.data), stored.etag, stored.updated_ms)

    async def _answer(self, landing: asyncio.Future[str]) -> str:
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                return await asyncio.shield(landing)
        except TimeoutError:
            raise OutcomeUnknown("too slow") from None

    async def _land(self, path: str, data: bytes, condition: Condition, delay_s: float) -> str:
        await self._arrive(delay_s)
        if not self.ignore_conditions:
            present = self.objects.get(path)
            if condition is When.ABSENT and present is not None:
                raise AlreadyExists("object exists")
            if isinstance(condition, str) and (present is None or present.etag != condition):
                raise VersionMismatch("object changed")
        self._serial += 1
        etag = f"e{self._serial}"
        self.objects[path] = Stored(data, etag, 0)
        if self.recording and data in self._sealer.sealed:
            self.landings.landed(self._sealer.sealed[data][0], asyncio.get_running_loop().time())
        await self._reply()
        return etag

    async def _remove(self, path: str, etag: str, delay_s: float) -> str:
        await self._arrive(delay_s)
        present = self.objects.get(path)
        if present is None or (present.etag != etag and not self.ignore_conditions):
            raise VersionMismatch("object changed")
        del self.objects[path]
        if self.recording:
            self.landings.gone(self._sealer.sealed[present.data][0])
        await self._reply()
        return ""

    async def _arrive(self, delay_s: float) -> None:
        late = self._rng.random() < self.trouble
        await asyncio.sleep(delay_s + (self._rng.uniform(0.1, 1.0) * self.late_s if late else 0.0))

    async def _reply(self) -> None:
        if self._rng.random() < self.trouble:
            await asyncio.sleep(10 * STORE_TIMEOUT_S)  # The reply is lost.


def _seen(done: asyncio.Future[str]) -> None:
    if not done.cancelled():
        done.exception()


class PausedStore:
    """A worker's way to the store: while the worker is stopped, nothing new is sent or heard."""

    backend = "memory"

    def __init__(self, store: SimStore, running: asyncio.Event) -> None:
        self._store = store
        self._running = running
        self.removes = store.removes

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        await self._running.wait()
        try:
            return await self._store.put(path, data, condition)
        finally:
            await self._running.wait()

    async def get(self, path: str) -> Stored:
        await self._running.wait()
        try:
            return await self._store.get(path)
        finally:
            await self._running.wait()

    async def remove(self, path: str, etag: str) -> None:
        await self._running.wait()
        try:
            await self._store.remove(path, etag)
        finally:
            await self._running.wait()

    async def settle(self, path: str) -> None:
        """What the store shows is stored."""


class RecordedDisk(SharedDisk):
    """A disk that workers share as a directory store; what was committed is on record."""

    def __init__(self, clock: Clock, sealer: PlainSealer, database: bytes) -> None:
        super().__init__(clock)
        self.landings = Landings()
        self._sealer = sealer
        self.files[ROOT / DATABASE_PATH] = _File(database)

    def put(self, process: str, path: Path, file: _File | None) -> None:
        before = self.files.get(path)
        super().put(process, path, file)
        if "cluster" in path.parts:
            return  # On its way, or given up.
        if file is not None and file.data in self._sealer.sealed:
            self.landings.landed(self._sealer.sealed[file.data][0], self.clock.monotonic_s())
        elif file is None and before is not None and before.data in self._sealer.sealed:
            self.landings.gone(self._sealer.sealed[before.data][0])
