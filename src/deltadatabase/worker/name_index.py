"""The names of a schema's entities in order, where the store has no order of its own: a directory.

A worker keeps them for the shards that it owns, from the first listing on. It reads the folder
once and then follows its own commits: the owner is the only writer of its shards. So an index is
good for exactly the terms under which it was begun, and another one is made when a listing comes
with a newer term. What a former owner puts late, without having been told to be successful, shows
as soon as this worker reads or writes that entity, or when the folder is read again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from deltadatabase import limits
from deltadatabase.clock import Clock
from deltadatabase.errors import NotOwner, Unavailable
from deltadatabase.placement.ring import shard_of
from deltadatabase.storage.base import Store
from deltadatabase.storage.paths import (
    escape_key,
    listing_order,
    schema_folder,
    stored_name_of,
    unescape_key,
)
from deltadatabase.storage.sorted_names import SortedNames
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.worker.cache import Name

log = get_logger(__name__)

Terms = tuple[int, ...]
"""For each shard its term if this worker owns it, else 0."""
_CHANGES_LEFT_MAX: Final = 256
_MERGED_AT_ONCE_MAX: Final = 4096
"""What is taken over in the event loop itself: a few milliseconds at the most."""


class Index:
    """One schema's names.

    Attributes:
        names: escaped keys, deleted entities among them while their tombstones lie there.
        terms: under which it was begun. Names of other shards are not in it.
    """

    def __init__(self, schema_id: str, terms: Terms) -> None:
        self.names = SortedNames(suffix=listing_order(""))
        self.terms = terms
        self.folder_ms = 0
        self.built_s = 0.0
        self.used_s = 0.0
        self._schema_id = schema_id

    def after(self, terms: Terms, after: str, prefix: str, count: int) -> tuple[list[str], str]:
        """The next names of shards that have a term in ``terms``.

        Returns:
            At most ``count`` names, and the name to go on after; "" at the end.
        """
        names = self.names.after(after, prefix, count=count)
        following = names[-1] if len(names) == count else ""
        if terms != self.terms:
            # Some were given away since; nobody tells this index what becomes of them.
            names = [name for name in names if owned(terms, self._schema_id, name)]
        return names, following

    def covers(self, terms: Terms) -> bool:
        """Whether it was begun under just these terms of the shards that are owned now."""
        return self.terms == terms or (
            len(self.terms) == len(terms)
            and all(not term or term == own for own, term in zip(self.terms, terms, strict=True))
        )

    def put_all(self, changes: Mapping[str, bool]) -> None:
        """Take over changes: names, and whether each is there now."""
        for name, present in changes.items():
            self.put(name, present=present)

    def put(self, name: str, *, present: bool) -> None:
        """Take over one change."""
        if not present:
            self.names.discard(name)
        elif owned(self.terms, self._schema_id, name):
            self.names.add(name)


class _Changes:
    """What was committed in a schema while its folder is being read."""

    def __init__(self) -> None:
        self._changed: dict[str, bool] = {}

    def put(self, name: str, *, present: bool) -> None:
        self._changed[name] = present

    def take(self) -> dict[str, bool]:
        changed, self._changed = self._changed, {}
        return changed

    def __len__(self) -> int:
        return len(self._changed)


class NameIndexes:
    """The indexes of one worker. Used from one event loop.

    Args:
        store: a directory.
        clock: monotonic time.
        bytes_max: of all of them; beyond it, the one that was used longest ago goes.
        idle_s: one that is not used for so long goes.
        refresh_s: after so long the folder is read again, if names came or went there.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        bytes_max: int = limits.NAME_INDEX_BYTES_MAX,
        idle_s: float = limits.NAME_INDEX_IDLE_S,
        refresh_s: float = limits.NAME_INDEX_REFRESH_S,
    ) -> None:
        self._store = store
        self._clock = clock
        self._bytes_max = bytes_max
        self._idle_s = idle_s
        self._refresh_s = refresh_s
        self._indexes: dict[str, Index] = {}
        self._followers: dict[str, list[_Changes]] = {}
        self._building: dict[str, tuple[Terms, asyncio.Task[None]]] = {}
        self._growing: list[Index] = []
        self._too_large: dict[str, tuple[Terms, float]] = {}
        self._gate = asyncio.Semaphore(limits.NAME_INDEX_BUILDS_MAX)
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False
        #: Folders that were read from beginning to end.
        self.scans = 0

    @property
    def bytes(self) -> int:
        """About what all of them take in memory."""
        return sum(index.names.bytes for index in (*self._indexes.values(), *self._growing))

    def stored(self, name: Name) -> None:
        """Take note that an entity's object is in the store: after each put and each load of it."""
        self._put(name, present=True)

    def removed(self, name: Name) -> None:
        """Take note that an entity's object was removed from the store."""
        self._put(name, present=False)

    def _put(self, name: Name, *, present: bool) -> None:
        schema_id, key = name
        followers = self._followers.get(schema_id)
        index = self._indexes.get(schema_id)
        if followers is None and index is None:
            return
        escaped = escape_key(key)
        for follower in followers or ():
            follower.put(escaped, present=present)
        if index is not None:
            index.put(escaped, present=present)

    async def get(self, schema_id: str, terms: Terms) -> Index | None:
        """The schema's index under these terms; made first if need be.

        It is good until the next wait: another one may take its place. Making it goes on when the
        caller goes away. None: it would be too large.

        Raises:
            NotOwner: a newer term is known here.
            Unavailable: the folder cannot be read.
        """
        while not self._closed:
            now_s = self._clock.monotonic_s()
            index = self._indexes.get(schema_id)
            if index is not None and index.covers(terms):
                index.used_s = now_s
                if now_s - index.built_s > self._refresh_s:
                    index.built_s = now_s
                    await self._refresh(index, schema_id, terms)
                    continue
                return index
            if index is not None:
                _check_newer(terms, index.terms)
                del self._indexes[schema_id]
            if (known := self._too_large.get(schema_id)) is not None:
                if known[0] == terms and now_s - known[1] < self._refresh_s:
                    return None
                del self._too_large[schema_id]
            task = self._build(schema_id, terms)
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        raise Unavailable("the worker stopped")

    async def smallest(
        self, schema_id: str, terms: Terms, after: str, prefix: str, count: int
    ) -> tuple[list[str], str]:
        """As ``Index.after``, without an index: by reading the whole folder."""
        best = _Smallest(after, prefix, count)
        changes = _Changes()
        with self._following(schema_id, changes):
            async for names in self._names(schema_id):
                best.update(name for name in names if best.wants(name) and owned(terms, schema_id, name))
            best.update(
                name
                for name, present in changes.take().items()
                if present and best.wants(name) and owned(terms, schema_id, name)
            )
        names = best.names()
        return names, names[-1] if len(names) == count else ""

    async def close(self) -> None:
        """Stop reading folders, and forget all."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        tasks = [task for _, task in self._building.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._indexes.clear()

    # -- making one --------------------------------------------------------------------

    async def _refresh(self, index: Index, schema_id: str, terms: Terms) -> None:
        """Read the folder anew, beside the listings, if names came or went there since."""
        if await self._store.folder_ms(schema_folder(schema_id)) != index.folder_ms:
            self._build(schema_id, terms)

    def _build(self, schema_id: str, terms: Terms) -> asyncio.Task[None]:
        known = self._building.get(schema_id)
        if known is not None:
            if known[0] == terms:
                return known[1]
            _check_newer(terms, known[0])
            known[1].cancel()
        task = asyncio.create_task(self._make(schema_id, terms))
        self._building[schema_id] = terms, task
        task.add_done_callback(lambda done: self._made(schema_id, done))
        return task

    def _made(self, schema_id: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever waits for it is told; perhaps nobody does any more.
            log.warning("a folder could not be read for its names", error=error)
        if (known := self._building.get(schema_id)) is not None and known[1] is task:
            del self._building[schema_id]

    async def _make(self, schema_id: str, terms: Terms) -> None:
        async with self._gate:
            started_s = self._clock.monotonic_s()
            index = Index(schema_id, terms)
            changes = _Changes()
            with self._following(schema_id, changes), self._counted(index):
                # Asked before it is read: what comes meanwhile makes it look changed, which is no harm.
                index.folder_ms = await self._store.folder_ms(schema_folder(schema_id))
                batch: list[str] = []
                async for names in self._names(schema_id):
                    batch += [name for name in names if owned(terms, schema_id, name)]
                    if len(batch) >= limits.NAME_INDEX_BATCH:
                        await _merge(index, batch)
                        batch.clear()
                        if not self._make_room(index):
                            self._give_up(schema_id, terms)
                            return
                await _merge(index, batch)
                if not self._make_room(index):
                    self._give_up(schema_id, terms)
                    return
                while len(changes) > _CHANGES_LEFT_MAX:
                    await asyncio.to_thread(index.put_all, changes.take())
                # No wait from here on: the next change goes to the index itself.
                index.put_all(changes.take())
            index.built_s = index.used_s = self._clock.monotonic_s()
            self._indexes[schema_id] = index
            self._sweep_later()
            log.debug("names indexed", names=len(index.names), seconds=index.built_s - started_s)

    async def _names(self, schema_id: str) -> AsyncIterator[list[str]]:
        """Stored names of the entities in a folder, of every shard."""
        self.scans += 1
        async with contextlib.aclosing(self._store.scan(schema_folder(schema_id))) as parts:
            async for part in parts:
                yield [name for file in part if (name := stored_name_of(file)) is not None]

    @contextmanager
    def _following(self, schema_id: str, changes: _Changes) -> Iterator[None]:
        """Have the changes of a schema noted while this is entered.

        A file that is overwritten while its folder is read may not come at all.
        """
        followers = self._followers.setdefault(schema_id, [])
        followers.append(changes)
        try:
            yield
        finally:
            followers.remove(changes)
            if not followers:
                del self._followers[schema_id]

    # -- room --------------------------------------------------------------------------

    @contextmanager
    def _counted(self, index: Index) -> Iterator[None]:
        self._growing.append(index)
        try:
            yield
        finally:
            self._growing.remove(index)

    def _make_room(self, index: Index) -> bool:
        """Drop others until all fit; False if this one alone is too large."""
        while self.bytes > self._bytes_max and self._indexes:
            del self._indexes[min(self._indexes, key=lambda name: self._indexes[name].used_s)]
        return index.names.bytes <= self._bytes_max

    def _give_up(self, schema_id: str, terms: Terms) -> None:
        self._too_large[schema_id] = terms, self._clock.monotonic_s()
        log.warning("a schema has too many entities for an index; each page of it reads the whole folder")

    def _sweep_later(self) -> None:
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(self._idle_s, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        oldest_s = self._clock.monotonic_s() - self._idle_s
        for schema_id in [name for name, index in self._indexes.items() if index.used_s <= oldest_s]:
            del self._indexes[schema_id]
        if self._indexes:
            self._sweep_later()


class _Smallest:
    """The first names in order of those that it is given."""

    def __init__(self, after: str, prefix: str, count: int) -> None:
        self._order = listing_order(after) if after else ""
        self._prefix = prefix
        self._count = count
        self._names: set[str] = set()
        self._ceiling: str | None = None

    def wants(self, name: str) -> bool:
        order = listing_order(name)
        return (
            order > self._order
            and name.startswith(self._prefix)
            and (self._ceiling is None or order < self._ceiling)
        )

    def update(self, names: Iterable[str]) -> None:
        self._names.update(names)
        if len(self._names) > 4 * self._count:
            kept = self.names()
            self._names = set(kept)
            self._ceiling = listing_order(kept[-1])

    def names(self) -> list[str]:
        return sorted(self._names, key=listing_order)[: self._count]


async def _merge(index: Index, names: list[str]) -> None:
    if len(names) < _MERGED_AT_ONCE_MAX:
        index.names.update(names)
    else:
        await asyncio.to_thread(index.names.update, names)


def owned(terms: Terms, schema_id: str, name: str) -> bool:
    """Whether an entity's shard, by its stored name, has a term in ``terms``."""
    return terms[shard_of(schema_id, unescape_key(name), len(terms))] > 0


def _check_newer(terms: Terms, known: Terms) -> None:
    """Refuse terms that were outdated before they came. Raises NotOwner."""
    if any(0 < term < newer for term, newer in zip(terms, known, strict=False)):
        raise NotOwner("shard has a newer owner")
