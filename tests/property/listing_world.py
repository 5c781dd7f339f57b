"""A router and workers on one store without order, with writers and a reader of lists beside changes.

Everything runs in one event loop; a seed decides the rest. What the reader sees is judged by what
the writers know: see ``Judge``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from support.clocks import FakeClock, SeededRandom
from support.folder_store import FakeFolders
from support.workers import make_committer

from deltadatabase.errors import DeltaError, LinkLost, OutcomeUnknown
from deltadatabase.gateway.forwarding import Router
from deltadatabase.model import Command, Op, Result
from deltadatabase.placement.membership import Member, Placement
from deltadatabase.storage.paths import listing_order, unescape_key
from deltadatabase.worker.listing import Lister
from deltadatabase.worker.name_index import NameIndexes

SHARDS = 16
KEYS = (*(f"k{number}" for number in range(24)), "k1-a", "k1.a", "k/1", "é")

MakeIndexes = Callable[..., NameIndexes]


class Worker:
    """A worker on the store, over a link that may end."""

    local = False

    def __init__(self, store: FakeFolders, seed: int, make_indexes: MakeIndexes) -> None:
        clock = FakeClock(tick_s=0.0001)
        self.indexes = make_indexes(store, clock=clock)
        self._lister = Lister(store, self.indexes)
        self._committer = make_committer(store, clock=clock, names=self.indexes, seed=seed)
        self._cut = asyncio.Event()

    async def call(self, command: Command) -> Result:
        """Execute a command; it goes on here when the link is cut."""
        await asyncio.sleep(0)
        work = asyncio.ensure_future(
            self._lister.page(command) if command.op is Op.LIST else self._committer.execute(command)
        )
        cut = asyncio.ensure_future(self._cut.wait())
        await asyncio.wait({work, cut}, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        if work.done():
            return work.result()
        work.add_done_callback(lambda done: done.exception())
        raise LinkLost("the link broke")

    def cut(self) -> None:
        self._cut.set()


@dataclass
class Known:
    """What is known of one key: whether it is there, and since when nothing is on its way.

    ``there`` is None while that is unknown.
    """

    there: bool | None = False
    changed: int = 0
    busy: bool = False


@dataclass
class Judge:
    """Counts moments, and compares each list with what held from its beginning to its end."""

    known: dict[str, Known] = field(default_factory=lambda: {key: Known() for key in KEYS})
    moment: int = 0
    lists: int = 0

    def now(self) -> int:
        self.moment += 1
        return self.moment

    def judge(self, listed: list[str], begun: int, sure: dict[str, bool]) -> None:
        """``sure``: what was certain when the list was begun, and nothing was on its way for."""
        self.lists += 1
        keys = [unescape_key(name) for name in listed]
        assert listed == sorted(listed, key=listing_order), "out of order"
        assert len(set(keys)) == len(keys), "listed twice"
        for key, there in sure.items():
            known = self.known[key]
            if known.changed > begun or known.busy:
                continue
            if there:
                assert key in keys, f"{key} was there all the time"
            else:
                assert key not in keys, f"{key} was absent all the time"

    def sure(self) -> dict[str, bool]:
        return {
            key: known.there
            for key, known in self.known.items()
            if known.there is not None and not known.busy
        }


class World:
    """Args: seed, and what may hold a planted bug."""

    def __init__(
        self,
        seed: int,
        *,
        make_indexes: MakeIndexes = NameIndexes,
    ) -> None:
        self.rng = random.Random(seed)
        self.store = FakeFolders(part=self.rng.choice((1, 3, 10)))
        self.store.before = self._delay
        self.router = Router(clock=FakeClock(tick_s=0.0001), random=SeededRandom(seed), timeout_ms=60_000)
        self.router.bind(Placement(SHARDS, epoch=100, epoch_limit=10_000), backend="directory")
        self.judge = Judge()
        self.workers: dict[str, Worker] = {}
        self._make_indexes = make_indexes
        self._serial = 0

    async def run(self, lists: int = 6) -> None:
        """Let all go on beside each other until so many lists were judged."""
        for _ in range(self.rng.randint(1, 3)):
            await self.join()
        beside = [asyncio.ensure_future(self._write()) for _ in range(3)]
        beside.append(asyncio.ensure_future(self._change()))
        try:
            while self.judge.lists < lists:
                await self._list()
                for task in beside:
                    if task.done():
                        task.result()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            for worker in self.workers.values():
                worker.cut()
                await worker.indexes.close()

    async def join(self) -> None:
        self._serial += 1
        name = f"w{self._serial}"
        self.workers[name] = Worker(self.store, self._serial, self._make_indexes)
        await self.router.join(Member(name, name), self.workers[name])

    async def _delay(self, operation: str, path: str) -> None:
        for _ in range(self.rng.choice((0, 0, 1, 4))):
            await asyncio.sleep(0)

    async def _change(self) -> None:
        """Workers come, go and die."""
        while True:
            await self._some_time(60)
            if len(self.workers) < 2 or (len(self.workers) < 4 and self.rng.random() < 0.5):
                await self.join()
                continue
            name = self.rng.choice(sorted(self.workers))
            if self.rng.random() < 0.5:
                await self.router.drain(name)
            else:
                self.workers[name].cut()
            self.router.leave(name)
            del self.workers[name]

    async def _write(self) -> None:
        while True:
            await self._some_time(3)
            key = self.rng.choice(KEYS)
            known = self.judge.known[key]
            if known.busy:
                continue
            known.busy = True
            put = self.rng.random() < 0.6
            try:
                if put:
                    await self.router.put_one("s", key, b"{}")
                else:
                    await self.router.delete("s", key)
                known.there = put
            except OutcomeUnknown:
                known.there = None
            except DeltaError as exc:
                assert exc.certain
            known.busy = False
            known.changed = self.judge.now()

    async def _list(self) -> None:
        begun, sure = self.judge.now(), self.judge.sure()
        limit = self.rng.choice((2, 5, 12, 1000))
        listed: list[str] = []
        after = ""
        while True:
            page = await self.router.list("s", after=after, limit=limit)
            assert len(page.entities) <= limit
            listed += [entity.name for entity in page.entities]
            if not (after := page.next):
                break
            await self._some_time(8)
        self.judge.judge(listed, begun, sure)

    async def _some_time(self, turns: int) -> None:
        for _ in range(self.rng.randint(0, turns)):
            await asyncio.sleep(0)
