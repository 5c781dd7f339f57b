"""The scrub itself: walk the store in the order of its names, check each object, keep the position.

The walk is one listing of everything below ``files/``, page by page. The objects of a page are
checked many at a time, chunk by chunk; after each chunk the position may be saved, so a scrub that
is broken off repeats less than two seconds of work, and repeating is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

from deltadatabase.clock import Clock, Random
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.errors import Corrupt, Invalid, NotFound, OutcomeUnknown, Unavailable
from deltadatabase.limits import (
    LIST_PAGE_MAX,
    SCRUB_CHUNK,
    SCRUB_CONCURRENCY,
    SCRUB_OBJECT_BYTES_MAX,
    SCRUB_PAGE,
    SCRUB_PAGE_DIRECTORY,
    SCRUB_SAVE_INTERVAL_S,
)
from deltadatabase.maintenance.checking import STORE_PAUSE_S, STORE_TRIES, Checker, Tasks
from deltadatabase.maintenance.findings import Finding, Kind, Ledger
from deltadatabase.maintenance.offline import Offline, Rules, offline
from deltadatabase.maintenance.position import FORMAT, Position
from deltadatabase.maintenance.verdict import Name
from deltadatabase.model import DatabaseInfo
from deltadatabase.schema.validator import compile_schema
from deltadatabase.storage.base import ObjectInfo, Store
from deltadatabase.storage.paths import (
    DATABASE_PATH,
    FILES,
    QUARANTINE,
    TEMPLATES,
    entity_path,
    meta_path,
    parse_entity_path,
    parse_meta_path,
    parse_quarantine_path,
    parse_template_path,
)

T = TypeVar("T")

ORPHAN_PAUSE_S: Final = 1.0


class Progress(Protocol):
    """Told how far the walk is."""

    def __call__(self, done: int, /) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a scrub needs from the program around it.

    Attributes:
        clock, random: time and randomness.
        progress: told the number of objects that are done.
        save: keeps a position.
        stopping: whether to end at the next chunk.
        rules: ages; only tests have others.
        pause_s: pause before a store that does not answer is tried again.
    """

    clock: Clock
    random: Random
    progress: Progress
    save: Callable[[Position], Awaitable[None]]
    stopping: Callable[[], bool]
    rules: Rules = field(default_factory=Rules)
    pause_s: float = STORE_PAUSE_S


class Scrub:
    """One scrub of one store.

    Args:
        store: an open store with a database in it.
        sealer: with all keys there are.
        info: the database's description.
        tasks: what may be changed.
        outside: what it needs from the program.
        resumed: the position of an interrupted scrub of the same database with the same tasks.
    """

    def __init__(
        self,
        store: Store,
        sealer: Sealer,
        info: DatabaseInfo,
        tasks: Tasks,
        outside: Outside,
        *,
        resumed: Position | None = None,
    ) -> None:
        self.ledger = resumed.ledger if resumed is not None else Ledger()
        self._store = store
        self._sealer = sealer
        self._info = info
        self._tasks = tasks
        self._outside = outside
        self._after = resumed.after if resumed is not None else ""
        self._token = (resumed.token if resumed is not None else "") or outside.random(16).hex()
        self._saved_s = outside.clock.monotonic_s()
        self._page = SCRUB_PAGE_DIRECTORY if store.backend == "directory" else SCRUB_PAGE

    async def run(self) -> bool:
        """Look at everything; return False when it was stopped before the end.

        Raises:
            StartupError: ``store_refused``: tombstones are to be removed and workers are there.
            DeltaError: the store stays away. What was done so far is in ``ledger`` and saved.
        """
        # Before anything is done: however it ends, and be it under the maintenance flag, another scrub
        # can go on from here.
        await self._save()
        if not self._tasks.remove_tombstones:
            return await self._run(None)
        async with offline(
            self._store, self._token, rules=self._outside.rules, random=self._outside.random
        ) as right:
            return await self._run(right)

    async def _run(self, right: Offline | None) -> bool:
        checker = Checker(
            self._store,
            self._sealer,
            self._info.keys,
            self._tasks,
            self.ledger,
            offline=right,
            rules=self._outside.rules,
            clock=self._outside.clock,
            random=self._outside.random,
            pause_s=self._outside.pause_s,
        )
        before: frozenset[str] = frozenset()
        while page := await self._list(FILES, self._after, self._page):
            entities = frozenset(info.path for info in page if parse_entity_path(info.path))
            # A meta file comes behind its entity, on this page or the next.
            known = entities | before
            before = entities
            for chunk in _chunks(page, SCRUB_CHUNK):
                if self._outside.stopping():
                    await self._save()
                    return False
                if right is not None:
                    await right.check()
                await self._check(checker, chunk, known)
                self._after = chunk[-1].path
                self._outside.progress(self.ledger.counts.objects)
                if self._outside.clock.monotonic_s() - self._saved_s > SCRUB_SAVE_INTERVAL_S:
                    await self._save()
            if len(page) < self._page:
                break
        if self._outside.stopping():
            await self._save()
            return False
        # Few, and looked at last: a scrub that goes on looks at all of them again.
        await self._templates()
        await self._quarantined()
        if right is not None:
            await right.check()
            await right.forget_marks()
        return True

    async def _check(self, checker: Checker, chunk: Sequence[ObjectInfo], known: frozenset[str]) -> None:
        orphans: list[Name] = []
        slots = asyncio.Semaphore(SCRUB_CONCURRENCY)

        async def check(info: ObjectInfo) -> None:
            async with slots:
                if name := parse_entity_path(info.path):
                    if info.size_bytes > SCRUB_OBJECT_BYTES_MAX:
                        self.ledger.note(_too_large(name))
                        return
                    try:
                        if not await self._readable(partial(checker.entity, name), name):
                            self.ledger.note(_unreadable(name))
                    except Corrupt:
                        # It has grown since it was listed.
                        self.ledger.note(_too_large(name))
                elif name := parse_meta_path(info.path):
                    if entity_path(*name) in known or not await self._patient(partial(checker.orphan, name)):
                        self.ledger.counts.meta_files += 1
                    else:
                        orphans.append(name)
                else:
                    self.ledger.note(Finding(kind=Kind.UNKNOWN_FILE, object=printable(info.path)))

        await _all(check(info) for info in chunk)
        if orphans:
            # Between the removal of an entity and that of its meta file its worker needs a moment.
            await asyncio.sleep(min(ORPHAN_PAUSE_S, self._outside.pause_s))
            await _all(self._patient(partial(checker.settle_orphan, name)) for name in sorted(orphans))
        self.ledger.counts.objects += len(chunk)

    async def _readable(self, check: Callable[[], Awaitable[None]], name: Name) -> bool:
        """Check an entity; False when the store answers and does not give out just this one.

        Raises:
            DeltaError: anything else that failed.
        """
        try:
            await check()
            return True
        except (Unavailable, OutcomeUnknown):
            await self._store.get(DATABASE_PATH)
            for path in (entity_path(*name), meta_path(*name)):
                try:
                    await self._store.get(path)
                except NotFound:
                    continue
                except Unavailable:
                    return False
            raise

    async def _templates(self) -> None:
        for info in await self._everything(TEMPLATES):
            schema_id = parse_template_path(info.path)
            if schema_id is None:
                self.ledger.note(
                    Finding(
                        kind=Kind.TEMPLATE_INVALID,
                        object=printable(info.path),
                        detail="its name is not SCHEMA_ID.json",
                    )
                )
                continue
            try:
                stored = await self._patient(partial(self._store.get, info.path))
                await asyncio.to_thread(compile_schema, stored.data)
            except NotFound:
                continue
            except Corrupt as exc:
                self.ledger.note(
                    Finding(kind=Kind.TEMPLATE_INVALID, schema_id=schema_id, detail=f"code={exc.code}")
                )
            except Invalid as exc:
                self.ledger.note(
                    Finding(kind=Kind.TEMPLATE_INVALID, schema_id=schema_id, detail=f"code={exc.code}")
                )
            else:
                self.ledger.counts.templates += 1

    async def _quarantined(self) -> None:
        for info in await self._everything(QUARANTINE):
            name = parse_quarantine_path(info.path)
            if name is None:
                self.ledger.note(Finding(kind=Kind.QUARANTINED, object=printable(info.path)))
            else:
                self.ledger.note(Finding(kind=Kind.QUARANTINED, schema_id=name[0], key=name[1]))

    async def _everything(self, prefix: str) -> list[ObjectInfo]:
        found: list[ObjectInfo] = []
        while page := await self._list(prefix, found[-1].path if found else "", LIST_PAGE_MAX):
            found += page
            if len(page) < LIST_PAGE_MAX:
                break
        return found

    async def _list(self, prefix: str, after: str, limit: int) -> Sequence[ObjectInfo]:
        return await self._patient(lambda: self._store.list(prefix, after=after, limit=limit))

    async def _patient(self, call: Callable[[], Awaitable[T]]) -> T:
        for _ in range(STORE_TRIES - 1):
            try:
                return await call()
            except (Unavailable, OutcomeUnknown):
                await asyncio.sleep(self._outside.pause_s)
        return await call()

    async def _save(self) -> None:
        self._saved_s = self._outside.clock.monotonic_s()
        await self._outside.save(
            Position(
                format=FORMAT,
                database_id=self._info.database_id,
                tasks=asdict(self._tasks),
                token=self._token if self._tasks.remove_tombstones else "",
                after=self._after,
                ledger=self.ledger,
            )
        )


def _too_large(name: Name) -> Finding:
    """Not read: it would fill the memory, and no message of ours could have brought it here."""
    detail = "it is larger than any entity can be; it was not read"
    return Finding(kind=Kind.UNREADABLE, schema_id=name[0], key=name[1], detail=detail)


def _unreadable(name: Name) -> Finding:
    return Finding(kind=Kind.UNREADABLE, schema_id=name[0], key=name[1])


async def count(store: Store) -> int:
    """Count the objects below ``files/``, for a progress bar; it is out of date at once."""
    limit = SCRUB_PAGE_DIRECTORY if store.backend == "directory" else SCRUB_PAGE
    total, after = 0, ""
    while page := await store.list(FILES, after=after, limit=limit):
        total += len(page)
        if len(page) < limit:
            break
        after = page[-1].path
    return total


def printable(text: str) -> str:
    """The name of an object that is not ours, without what a terminal would obey."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


async def _all(calls: Iterable[Awaitable[object]]) -> None:
    """Await all of them, also when one fails; then raise what the first one raised."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome


def _chunks(page: Sequence[ObjectInfo], size: int) -> Iterable[Sequence[ObjectInfo]]:
    return (page[start : start + size] for start in range(0, len(page), size))
