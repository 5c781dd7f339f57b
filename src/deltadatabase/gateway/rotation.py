"""Rotation of the master key, online: offer it, make it primary, seal everything anew, retire the old.

The order is what makes it safe to throw the old key away at the end:

1. *offering*: every member gets the new key and says that it can read what is sealed with it.
2. *promoting*: it becomes the primary key, which survives a restart from here on; every member says
   that it seals with it. Who joins from now on gets it, too.
3. *settling*: puts that were sealed before may still land, for as long as a request and a put last.
4. *resealing*: one walk over all objects, tombstones included; each is sealed anew by its owner.
   Whatever appears behind the walk was sealed with the new key.
5. *finished*: the database notes that the former keys are retired; or *blocked*: objects were met that
   no key opens, and the former keys stay.

How far it is, is kept in the state directory; a main worker that starts goes on where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import msgspec

from deltadatabase.clock import Clock
from deltadatabase.crypto.keyring import Keyring
from deltadatabase.errors import Corrupt, DeltaError, Invalid, Unavailable
from deltadatabase.gateway.keys import Keys
from deltadatabase.limits import REQUEST_TIMEOUT_MS, STORE_TIMEOUT_S
from deltadatabase.model import Result
from deltadatabase.statefolder import StateFolder, unusable
from deltadatabase.storage.paths import parse_entity_path
from deltadatabase.telemetry.logging import get_logger

FILE: Final = "rotation.json"
FORMAT: Final = 1
SETTLE_S: Final = REQUEST_TIMEOUT_MS / 1000 + STORE_TIMEOUT_S
"""A put that was sealed before the last member's second word lands within this time, or never."""
CONCURRENCY: Final = 32
SAVE_INTERVAL_S: Final = 2.0
PAUSE_S: Final = 0.5
WATCH_S: Final = 0.1
KEY_TRIES: Final = 5

T = TypeVar("T")

log = get_logger(__name__)


class Phase(enum.StrEnum):
    """How far a rotation is."""

    IDLE = "idle"
    OFFERING = "offering"
    PROMOTING = "promoting"
    SETTLING = "settling"
    RESEALING = "resealing"
    FINISHED = "finished"
    BLOCKED = "blocked"


ENDED: Final = frozenset({Phase.IDLE, Phase.FINISHED, Phase.BLOCKED})


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a rotation.

    Attributes:
        format: of the file.
        phase: how far it is.
        to_key: id of the new primary key, in hex.
        paused: an admin stopped it.
        started_ms, finished_ms: wall clock; 0: not yet.
        after: every object up to this name is done.
        total: objects there were when the walk began.
        checked: objects that are done.
        resealed: of them, those that were sealed with another key.
        damaged: of them, those that fail their integrity check.
        unreadable: of them, those that are sealed with a key that is not there.
        retired: ids of the keys that can be thrown away.
    """

    format: int = FORMAT
    phase: Phase = Phase.IDLE
    to_key: str = ""
    paused: bool = False
    started_ms: int = 0
    finished_ms: int = 0
    after: str = ""
    total: int = 0
    checked: int = 0
    resealed: int = 0
    damaged: int = 0
    unreadable: int = 0
    retired: tuple[str, ...] = ()


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many objects each key seals, by one walk over all; ``complete`` once it is at the end."""

    complete: bool = False
    total: int = 0
    checked: int = 0
    damaged: int = 0
    unreadable: int = 0
    keys: dict[str, int] = msgspec.field(default_factory=dict)


class RotationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A rotation as admins see it.

    Attributes:
        running: work on it goes on now.
        primary: id of the key that seals new writes.
        readable: ids of all keys that members can open objects with.
        waiting_for: workers that have not taken the present keyring over.
        trouble: code of the last error that it waits out; "" when there is none.
        kept: keys are made and kept in the state directory; else they are given by the operator.
        progress: how far it is.
        count: what a dry run found last; None without one.
    """

    running: bool
    primary: str
    readable: list[str]
    waiting_for: list[str]
    trouble: str
    kept: bool
    progress: Progress
    count: Count | None


class KeySource(Protocol):
    """Where master keys come from and are kept. Its methods block."""

    @property
    def kept(self) -> bool:
        """Whether keys are made and kept in the state directory; else the operator gives them."""
        ...

    def target(self, present: Keyring) -> Keyring:
        """The keyring to rotate to: its primary is the new key, and it has every present key.

        Raises:
            Conflict: ``nothing_to_rotate``: says what has to be given first.
        """
        ...

    def adopt(self, keyring: Keyring) -> None:
        """Make sure that a restart finds this keyring. Raises Unavailable."""
        ...

    def retire(self, key_ids: Sequence[str]) -> None:
        """Make sure that a restart does not find these keys (ids in hex). Raises Unavailable."""
        ...


class Members(Protocol):
    """The cluster (``members.Cluster``)."""

    def behind(self) -> Sequence[str]: ...

    def present(self) -> int: ...


class Objects(Protocol):
    """The router (``forwarding.Router``)."""

    async def object_names(self, after: str) -> tuple[str, ...]: ...

    async def reseal(self, schema_id: str, key: str, key_id: bytes) -> Result: ...

    async def key_of(self, schema_id: str, key: str) -> Result: ...

    async def retire_key(self, key_id: str) -> bool: ...


class Rotation:
    """Rotates the master key of one cluster, one rotation at a time.

    Args:
        keys: the keyring in force; replaced here.
        members: who must take it over.
        objects: the stored objects.
        folder: keeps how far it is.
        source: where keys come from.
        clock: time.
        settle_s: time for late puts; only tests have another.
        on_event: told of each step, for the audit log.

    Raises:
        StartupError: ``state_unusable``: the kept progress cannot be read.
    """

    def __init__(
        self,
        keys: Keys,
        members: Members,
        objects: Objects,
        folder: StateFolder,
        source: KeySource,
        *,
        clock: Clock,
        settle_s: float = SETTLE_S,
        on_event: Callable[[str, Progress], None] = lambda step, progress: None,
    ) -> None:
        self._keys = keys
        self._members = members
        self._objects = objects
        self._folder = folder
        self._source = source
        self._clock = clock
        self._settle_s = settle_s
        self._on_event = on_event
        self._progress = _parse(folder.read(FILE))
        self._count: Count | None = None
        self._trouble = ""
        self._saved_s = float("-inf")
        self._steering = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None

    def status(self) -> RotationStatus:
        """How it stands."""
        keyring = self._keys.keyring
        return RotationStatus(
            running=_runs(self._task),
            primary=keyring.primary.key_id.hex(),
            readable=[key_id.hex() for key_id in keyring.ids],
            waiting_for=list(self._members.behind()),
            trouble=self._trouble,
            kept=self._source.kept,
            progress=self._progress,
            count=self._count,
        )

    def resume(self) -> None:
        """Go on with what a former run of the main worker left. Call it once, at the start."""
        if self._progress.phase not in ENDED and not self._progress.paused:
            self._begin()

    async def start(self) -> RotationStatus:
        """Begin a rotation, or go on with one that is not at its end.

        Raises:
            Conflict: ``nothing_to_rotate``.
            Unavailable: the state directory cannot be written.
        """
        async with self._steering:
            if not _runs(self._task):
                await self._save(await self._next())
                self._on_event("started", self._progress)
                self._begin()
        return self.status()

    async def pause(self) -> RotationStatus:
        """Stop it where it is; ``start`` goes on there. Also ends a count."""
        async with self._steering:
            for task in (self._task, self._counting):
                await _end(task)
            if self._progress.phase not in ENDED:
                await self._advance(paused=True)
                self._on_event("paused", self._progress)
        return self.status()

    async def count(self) -> RotationStatus:
        """Begin to count how many objects each key seals; nothing is changed."""
        async with self._steering:
            if not _runs(self._counting):
                self._count = Count()
                self._counting = asyncio.create_task(self._guarded(self._count_all()))
        return self.status()

    async def close(self) -> None:
        """End all work; the next run of the main worker goes on with it."""
        for task in (self._task, self._counting):
            await _end(task)

    # -- the rotation ------------------------------------------------------------------

    async def _next(self) -> Progress:
        """Where ``start`` begins or goes on. Raises Conflict."""
        progress = self._progress
        if progress.phase is Phase.BLOCKED and progress.to_key == self._primary:
            # The key is the primary one already; what was in the way is perhaps gone.
            return self._walk_anew()
        if progress.phase in ENDED:
            target = await asyncio.to_thread(self._source.target, self._keys.keyring)
            to_key = target.primary.key_id.hex()
            return Progress(phase=Phase.OFFERING, to_key=to_key, started_ms=self._clock.wall_ms())
        return msgspec.structs.replace(progress, paused=False)

    def _walk_anew(self) -> Progress:
        """A rotation to the key that is the primary one now, of which nothing is known to be done."""
        return Progress(phase=Phase.SETTLING, to_key=self._primary, started_ms=self._clock.wall_ms())

    @property
    def _primary(self) -> str:
        return self._keys.keyring.primary.key_id.hex()

    def _begin(self) -> None:
        self._trouble = ""
        self._task = asyncio.create_task(self._guarded(self._rotate()))

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except DeltaError as exc:
            self._trouble = exc.code
            log.error(
                "the rotation stopped; deltadb rotate goes on with it", code=exc.code, detail=exc.detail
            )
        except Exception as exc:  # noqa: BLE001 - nobody waits for this task: it has to be told
            self._trouble = "internal"
            log.error("the rotation stopped unexpectedly; deltadb rotate goes on with it", error=exc)

    async def _rotate(self) -> None:
        if self._progress.phase is Phase.OFFERING:
            if self._progress.to_key != self._primary:
                await self._promote()
            await self._advance(phase=Phase.PROMOTING)
        if self._progress.to_key != self._primary and len(self._keys.keyring.ids) == 1:
            log.warning("a rotation to a key that is not there any more is given up")
            await self._save(Progress())
            return
        if self._progress.to_key != self._primary:
            # The operator has changed the keys meanwhile. What was sealed anew may need a key that
            # is not the primary one any more, so nothing counts that was done before.
            log.warning("the master key was changed during a rotation; it begins anew", key_id=self._primary)
            await self._save(self._walk_anew())
        await self._taken_over()
        if self._progress.phase is Phase.PROMOTING:
            await self._advance(phase=Phase.SETTLING)
            self._on_event("promoted", self._progress)
        if self._progress.phase is Phase.SETTLING:
            await asyncio.sleep(self._settle_s)
            total = 0
            async for page in self._pages(""):
                total += len(page)
            await self._advance(phase=Phase.RESEALING, total=total, after="")
        await self._reseal_all()
        await self._finish()

    async def _promote(self) -> None:
        """Make the new key readable everywhere, then lasting and primary."""
        target = await asyncio.to_thread(self._source.target, self._keys.keyring)
        # Another one than when it began, perhaps: nothing is sealed with it yet.
        await self._advance(to_key=target.primary.key_id.hex())
        self._keys.keyring = self._keys.keyring.with_readable(target.primary)
        await self._taken_over()
        # To its end, also when this rotation is paused in the middle of it.
        adopting = asyncio.ensure_future(self._adopt(target))
        try:
            await asyncio.shield(adopting)
        except asyncio.CancelledError:
            await adopting
            raise

    async def _adopt(self, target: Keyring) -> None:
        await asyncio.to_thread(self._source.adopt, target)
        self._keys.keyring = self._keys.keyring.promoted(target.primary.key_id)

    async def _taken_over(self) -> None:
        """Wait until every member works with the keyring in force, and somebody is there at all."""
        while self._members.behind() or not self._members.present():  # noqa: ASYNC110 - a rare look
            await asyncio.sleep(WATCH_S)

    async def _reseal_all(self) -> None:
        key_id = self._keys.keyring.primary.key_id
        async for page in self._pages(self._progress.after):
            outcomes = await self._each(page, lambda name: self._objects.reseal(*name, key_id))
            resealed = [outcome for outcome in outcomes if isinstance(outcome, Result)]
            wrong = sum(outcome.found and outcome.key_id != key_id for outcome in resealed)
            progress = self._progress
            self._progress = msgspec.structs.replace(
                progress,
                after=page[-1],
                checked=progress.checked + len(outcomes),
                resealed=progress.resealed + sum(outcome.number for outcome in resealed),
                damaged=progress.damaged + outcomes.count("damaged"),
                unreadable=progress.unreadable + outcomes.count("unreadable") + wrong,
            )
            if self._clock.monotonic_s() - self._saved_s > SAVE_INTERVAL_S:
                await self._save(self._progress)

    async def _finish(self) -> None:
        progress, now_ms = self._progress, self._clock.wall_ms()
        if progress.damaged or progress.unreadable:
            await self._advance(phase=Phase.BLOCKED, finished_ms=now_ms)
            self._on_event("blocked", self._progress)
            return
        ids = [key_id.hex() for key_id in self._keys.keyring.ids]
        retired = [key_id for key_id in ids if key_id != self._primary]
        for key_id in retired:
            await self._patiently(partial(self._objects.retire_key, key_id))
        # Nobody opens anything with them from here on: whoever saw one could forge what it seals.
        await asyncio.to_thread(self._source.retire, retired)
        self._keys.keyring = self._keys.keyring.without(retired)
        await self._taken_over()
        await self._advance(phase=Phase.FINISHED, finished_ms=now_ms, retired=tuple(retired))
        self._on_event("finished", self._progress)
        log.info("rotation finished", key_id=progress.to_key, retired=retired, resealed=progress.resealed)

    # -- the walk ----------------------------------------------------------------------

    async def _count_all(self) -> None:
        total = 0
        async for page in self._pages(""):
            total += len(page)
        found: Counter[str] = Counter()
        async for page in self._pages(""):
            for outcome in await self._each(page, lambda name: self._objects.key_of(*name)):
                if isinstance(outcome, str):
                    found[outcome] += 1
                elif outcome.found:
                    found[outcome.key_id.hex()] += 1
                found["checked"] += 1
            self._count = _count(found, total)
        self._count = msgspec.structs.replace(_count(found, total), complete=True)

    async def _pages(self, after: str) -> AsyncIterator[Sequence[str]]:
        """Names of entities' objects in order, page by page."""
        while True:
            names = await self._patiently(partial(self._objects.object_names, after))
            if not names:
                # That is the end only if it is still so a moment later, for another worker as well.
                await asyncio.sleep(PAUSE_S)
                names = await self._patiently(partial(self._objects.object_names, after))
            if not names:
                return
            after = names[-1]
            if entities := [name for name in names if parse_entity_path(name) is not None]:
                yield entities

    async def _each(
        self, paths: Sequence[str], call: Callable[[tuple[str, str]], Awaitable[Result]]
    ) -> list[Result | str]:
        """Do something with each entity, a bounded number at a time."""
        gate = asyncio.Semaphore(CONCURRENCY)

        async def one(path: str) -> Result | str:
            name = parse_entity_path(path)
            assert name is not None
            tries = 0
            async with gate:
                while True:
                    try:
                        result = await self._patiently(partial(call, name))
                        if result.found or not await self._listed(path):
                            return result
                    except Corrupt:
                        return "damaged"
                    except (Invalid, Unavailable):
                        pass
                    # Its key may be on its way to an owner that joined just now, or its owner does not
                    # see what others see.
                    tries += 1
                    if tries >= KEY_TRIES:
                        return "unreadable"
                    await asyncio.sleep(PAUSE_S)

        return list(await asyncio.gather(*(one(path) for path in paths)))

    async def _listed(self, path: str) -> bool:
        return path in await self._patiently(partial(self._objects.object_names, path[:-1]))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Try until it is done; only what no patience cures is raised."""
        while True:
            try:
                result = await call()
            except (Corrupt, Invalid):
                raise
            except DeltaError as exc:
                if exc.code == "key_unavailable":
                    raise
                self._trouble = exc.code
                await asyncio.sleep(PAUSE_S)
            else:
                self._trouble = ""
                return result

    # -- what is kept ------------------------------------------------------------------

    async def _advance(self, **changes: Any) -> None:
        await self._save(msgspec.structs.replace(self._progress, **changes))

    async def _save(self, progress: Progress) -> None:
        self._progress = progress
        # A thread that writes goes on when its task is cancelled; nobody else may write meanwhile.
        await asyncio.shield(asyncio.ensure_future(self._write()))

    async def _write(self) -> None:
        async with self._writing:
            try:
                await asyncio.to_thread(self._folder.write, FILE, msgspec.json.encode(self._progress))
            except OSError:
                raise Unavailable("the state directory cannot be written", code="state_unavailable") from None
            self._saved_s = self._clock.monotonic_s()


def _parse(data: bytes | None) -> Progress:
    if data is None:
        return Progress()
    try:
        progress = msgspec.json.decode(data, type=Progress)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        progress = None
    if progress is None or progress.format != FORMAT:
        raise unusable(f"holds a {FILE} that this version cannot read; remove it, then rotate again")
    return progress


def _count(found: Counter[str], total: int) -> Count:
    keys = {name: number for name, number in sorted(found.items()) if name not in Count.__struct_fields__}
    return Count(
        total=total,
        checked=found["checked"],
        damaged=found["damaged"],
        unreadable=found["unreadable"],
        keys=keys,
    )


def _runs(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None and not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
