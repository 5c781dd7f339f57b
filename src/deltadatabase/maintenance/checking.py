"""Check one object below ``files/``: the entity itself, its meta file, or what else lies there.

Safe beside running workers, because nothing is overwritten but what was read:

- The meta file is read **before** the entity. A worker writes it after the entity, so it describes
  the entity just read or an earlier state. It is put on the condition that it is still the one that
  was read (or still missing): so no newer meta file is ever replaced by an older one.
- After the put the entity is read again. If it changed meanwhile, all begins anew; if it keeps
  changing, its meta file is left to its worker.
- A damaged entity is read twice before it is called so, and replaced only as the object that was
  read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from deltadatabase.clock import Clock, Random
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.errors import (
    AlreadyExists,
    Corrupt,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.maintenance.findings import DAMAGE, Action, Finding, Kind, Ledger
from deltadatabase.maintenance.offline import Offline, Rules
from deltadatabase.maintenance.quarantine import set_aside
from deltadatabase.maintenance.verdict import Name, Verdict, judge
from deltadatabase.storage.base import Store, Stored, When
from deltadatabase.storage.paths import entity_path, meta_path

ROUNDS_MAX: Final = 3
STORE_TRIES: Final = 5
STORE_PAUSE_S: Final = 1.0
YOUNG_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Tasks:
    """What a scrub may change beside meta files.

    Attributes:
        dry_run: nothing at all is changed.
        quarantine: damaged entities are set aside.
        remove_orphans: meta files without an entity are removed.
        remove_tombstones: tombstones of the rule's age are removed; needs ``Offline``.
    """

    dry_run: bool = False
    quarantine: bool = False
    remove_orphans: bool = False
    remove_tombstones: bool = False


class Checker:
    """Checks objects one by one and notes what it finds.

    Args:
        store: an open store.
        sealer: with all keys there are.
        known_keys: ids of the keys that the database knows, in hex.
        tasks: what may be changed.
        ledger: where findings go.
        offline: the right to remove tombstones; None without it.
        rules: ages.
        clock, random: for the tombstones of quarantined entities.
        pause_s: pause before the store is tried again.
    """

    def __init__(
        self,
        store: Store,
        sealer: Sealer,
        known_keys: Collection[str],
        tasks: Tasks,
        ledger: Ledger,
        *,
        offline: Offline | None,
        rules: Rules,
        clock: Clock,
        random: Random,
        pause_s: float = STORE_PAUSE_S,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._known_keys = known_keys
        self._tasks = tasks
        self._ledger = ledger
        self._offline = offline
        self._rules = rules
        self._clock = clock
        self._random = random
        self._pause_s = pause_s

    # -- entities ----------------------------------------------------------------------

    async def entity(self, name: Name) -> None:
        """Check an entity and its meta file. Raises DeltaError when the store stays away."""
        for attempt in range(STORE_TRIES):
            try:
                await self._entity(name)
                return
            except (Unavailable, OutcomeUnknown):
                if attempt + 1 == STORE_TRIES:
                    raise
                await asyncio.sleep(self._pause_s)

    async def _entity(self, name: Name) -> None:
        noted: Finding | None = None
        sound: tuple[Verdict, Stored] | None = None
        quarantined = False
        for _ in range(ROUNDS_MAX):
            meta = await self._read_meta(name)
            stored = await self._read(entity_path(*name))
            if stored is None:
                return
            verdict = judge(self._sealer, stored.data, name, self._known_keys)
            if verdict.kind is not None and verdict.kind in DAMAGE:
                again = await self._read(entity_path(*name))
                if again is None or again.etag != stored.etag or again.data != stored.data:
                    continue
                if self._tasks.quarantine and not self._tasks.dry_run:
                    if await self._set_aside(name, stored, verdict, meta):
                        self._ledger.note(_finding(verdict.kind, name, Action.QUARANTINED, verdict.detail))
                        quarantined = True
                    continue
            if verdict.kind is not None:
                self._ledger.note(_finding(verdict.kind, name, Action.NONE, verdict.detail))
                return
            assert verdict.header is not None
            sound = verdict, stored
            if verdict.header.tombstone and await self._remove_tombstone(name, stored):
                noted = _finding(Kind.TOMBSTONE, name, Action.REMOVED)
                break
            noted = await self._describe(name, stored, meta) or noted
            if noted is None or noted.action is not Action.LEFT_TO_WORKER:
                break
        if sound is not None:
            self._count(*sound)
        # A meta file that is new because of the quarantine is no finding of its own.
        if noted is not None and not quarantined:
            self._ledger.note(noted)

    async def _describe(self, name: Name, stored: Stored, meta: Stored | None) -> Finding | None:
        """Make the meta file describe ``stored``; ``meta`` was read before it."""
        wanted = self._sealer.meta_json(stored.data)
        if meta is not None and meta.data == wanted:
            return None
        kind = Kind.META_MISSING if meta is None else Kind.META_WRONG
        # Right after a write the file is late, not wrong: its worker gets time to write it.
        if self._clock.wall_ms() - stored.updated_ms < YOUNG_MS and not await self._settled(
            name, stored, meta
        ):
            return _finding(kind, name, Action.LEFT_TO_WORKER)
        if self._tasks.dry_run:
            return _finding(kind, name)
        try:
            await self._store.put(meta_path(*name), wanted, When.ABSENT if meta is None else meta.etag)
        except (AlreadyExists, VersionMismatch):
            return _finding(kind, name, Action.LEFT_TO_WORKER)
        except OutcomeUnknown:
            present = await self._read(meta_path(*name))
            if present is None or present.data != wanted:
                return _finding(kind, name, Action.LEFT_TO_WORKER)
        again = await self._read(entity_path(*name))
        if again is None:
            # Its worker has removed an old tombstone, with the meta file that was there before ours.
            await self._withdraw(name, wanted)
            return None
        if again.etag != stored.etag:
            return _finding(kind, name, Action.LEFT_TO_WORKER)
        return _finding(kind, name, Action.REBUILT)

    async def _withdraw(self, name: Name, written: bytes) -> None:
        """Remove the meta file that this scrub wrote for an entity that is gone, and no other."""
        present = await self._read(meta_path(*name))
        if present is None or present.data != written or not self._store.removes:
            # Where entities only vanish by somebody else's hand, the next scrub tells the orphan.
            return
        with contextlib.suppress(VersionMismatch):
            await self._store.remove(meta_path(*name), present.etag)

    async def _settled(self, name: Name, stored: Stored, meta: Stored | None) -> bool:
        await asyncio.sleep(self._pause_s)
        again = await self._read(entity_path(*name))
        later = await self._read_meta(name)
        return (again is not None and again.etag == stored.etag) and (
            (later.etag if later else "") == (meta.etag if meta else "")
        )

    async def _set_aside(self, name: Name, stored: Stored, verdict: Verdict, meta: Stored | None) -> bool:
        return await set_aside(
            self._store,
            self._sealer,
            name,
            stored,
            verdict,
            meta.data if meta is not None else None,
            clock=self._clock,
            random=self._random,
        )

    async def _remove_tombstone(self, name: Name, stored: Stored) -> bool:
        if self._offline is None or not self._tasks.remove_tombstones or self._tasks.dry_run:
            return False
        if self._offline.now_ms - stored.updated_ms < self._rules.tombstone_age_s * 1000:
            return False
        if not self._store.removes:
            # This delete takes no condition, so nobody may have ended the maintenance since.
            await self._offline.check()
        # The meta file first: broken off in between, a tombstone without one is left, not an orphan.
        await self._store.delete(meta_path(*name))
        if not self._store.removes:
            await self._store.delete(entity_path(*name))
            return True
        try:
            await self._store.remove(entity_path(*name), stored.etag)
        except VersionMismatch:
            return False
        return True

    def _count(self, verdict: Verdict, stored: Stored) -> None:
        counts = self._ledger.counts
        counts.bytes += len(stored.data)
        if verdict.header is not None and verdict.header.tombstone:
            counts.tombstones += 1
        else:
            counts.entities += 1

    # -- what else lies there ------------------------------------------------------------

    async def orphan(self, name: Name) -> bool:
        """Whether a meta file has no entity, as far as one look tells."""
        return await self._read(entity_path(*name)) is None and await self._read_meta(name) is not None

    async def settle_orphan(self, name: Name) -> None:
        """Look a second time at a meta file without an entity; note it, or remove it if that is the task."""
        meta = await self._read_meta(name)
        if meta is None or await self._read(entity_path(*name)) is not None:
            return
        if self._tasks.dry_run or not self._tasks.remove_orphans:
            self._ledger.note(_finding(Kind.META_ORPHAN, name))
            return
        await self._store.delete(meta_path(*name))
        self._ledger.note(_finding(Kind.META_ORPHAN, name, Action.REMOVED))
        # Deletes take no condition. Whoever wrote the entity at this very moment gets the file again.
        if await self._read(entity_path(*name)) is not None:
            await self.entity(name)

    async def _read_meta(self, name: Name) -> Stored | None:
        """The meta file; one of absurd size, which is not read, describes nothing."""
        try:
            return await self._read(meta_path(*name))
        except Corrupt:
            info = await self._store.head(meta_path(*name))
            return Stored(b"", info.etag, info.updated_ms)

    async def _read(self, path: str) -> Stored | None:
        try:
            return await self._store.get(path)
        except NotFound:
            return None


def _finding(kind: Kind, name: Name, action: Action = Action.NONE, detail: str = "") -> Finding:
    return Finding(kind=kind, action=action, schema_id=name[0], key=name[1], detail=detail)
