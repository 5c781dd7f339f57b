"""A change feed over real routers and real committers on one store, in virtual time, with faults.

Writers write and are cut off, puts land late, replies are lost, workers die, the main worker is started
anew; readers follow with the tokens that they were given. At the end every reader must have seen the last
state of each entity, and of no entity an older version after a newer one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from sim.world import SimClock

from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.format import is_tombstone_size
from deltadatabase.errors import DeltaError, LinkLost, OutcomeUnknown, Unavailable
from deltadatabase.gateway.changes import ChangeLog
from deltadatabase.gateway.following import Batch, Following
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.ports import Page
from deltadatabase.gateway.positions import CatchUp
from deltadatabase.model import Command, ListedEntity, Result
from deltadatabase.placement.membership import Member, Placement
from deltadatabase.storage.base import Condition, Stored
from deltadatabase.storage.paths import entity_path
from support.clocks import SeededRandom
from support.fake_store import FakeStore
from support.workers import KEYRING, make_committer

SCHEMA = "notes"
KEYS = ("a", "b", "c", "d e", "f")
SHARDS = 8
SKEW_MS = 40_000
LATE_S = 45.0


class FeedStore(FakeStore):
    """Stamps objects by a clock of its own; while ``faulty``, puts may come late or lose their reply."""

    def __init__(self, clock: SimClock, chance: random.Random) -> None:
        super().__init__()
        self._clock = clock
        self._chance = chance
        self.skew_ms = chance.randrange(-SKEW_MS, SKEW_MS)
        self.faulty = True
        self.late: set[asyncio.Task[str]] = set()

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        kind = self._chance.random() if self.faulty else 1.0
        await asyncio.sleep(self._chance.random() * 0.05)
        if kind < 0.06:
            late = asyncio.ensure_future(
                self._put_after(self._chance.random() * LATE_S, path, data, condition)
            )
            self.late.add(late)
            late.add_done_callback(self.late.discard)
            return await asyncio.shield(late)
        etag = await self._put_after(0.0, path, data, condition)
        if kind < 0.12:
            raise OutcomeUnknown("no reply")
        return etag

    async def _put_after(self, delay_s: float, path: str, data: bytes, condition: Condition) -> str:
        await asyncio.sleep(delay_s)
        etag = await super().put(path, data, condition)
        stored = self.objects[path]
        self.objects[path] = Stored(stored.data, stored.etag, self._clock.wall_ms() + self.skew_ms)
        return etag


class Listing:
    """Pages of a schema's objects."""

    def __init__(self, store: FeedStore, page: int) -> None:
        self._store = store
        self._page = page

    async def list(
        self, schema_id: str, *, prefix: str = "", after: str = "", limit: int = 1000, deleted: bool = False
    ) -> Page:
        folder, end = f"files/{schema_id}/", ".json.enc"
        found = await self._store.list(
            folder, after=f"{folder}{after}{end}" if after else "", limit=min(limit, self._page)
        )
        entities = tuple(
            ListedEntity(
                info.path[len(folder) : -len(end)],
                info.size_bytes,
                info.updated_ms,
                is_tombstone_size(info.size_bytes),
            )
            for info in found
        )
        return Page(entities, entities[-1].name if len(found) == min(limit, self._page) else "")


class Link:
    """To one committer. Once ``broken``, what is under way is lost to the caller, and goes on."""

    local = False

    def __init__(self, world: FeedWorld) -> None:
        self._world = world
        self._committer = make_committer(world.store, clock=world.clock, seed=world.chance.randrange(1 << 30))
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running: set[asyncio.Task[Result]] = set()

    async def call(self, command: Command) -> Result:
        if self.broken.done():
            raise Unavailable("down", code="link_down")
        chance = self._world.chance
        await asyncio.sleep(chance.random() * 0.01)
        running = asyncio.ensure_future(self._execute(command))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        # Nobody may want to know any more.
        running.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait(
            {running, self.broken}, timeout=command.timeout_ms / 1000, return_when=asyncio.FIRST_COMPLETED
        )
        await asyncio.sleep(chance.random() * 0.05)
        if self.broken.done() or not running.done():
            raise LinkLost("no answer")
        return running.result()

    async def _execute(self, command: Command) -> Result:
        fast = self._committer.fast(command)
        return fast if fast is not None else await self._committer.execute(command)


class Reader:
    """Somebody who follows, and remembers what he was told."""

    def __init__(self, world: FeedWorld, name: str) -> None:
        self._world = world
        self._name = name
        self.token = ""
        self.seen: dict[str, tuple[int, bool]] = {}
        self._documents = world.chance.random() < 0.3
        self.start: dict[str, int] = {}

    async def look(self) -> bool:
        """Read one page; whether there may be more. The main worker may be gone meanwhile."""
        following = self._world.following
        if not self.token:
            self.token = following.token(SCHEMA, following.now(SCHEMA))
            self.start = self._world.acknowledged.copy()
            return True
        batch: Batch = await following.read(
            SCHEMA,
            following.position(SCHEMA, self.token),
            self._world.chance.randrange(1, 4),
            documents=self._documents,
        )
        for delivery in batch.deliveries:
            change = delivery.change
            before = self.seen.get(change.key, (0, False))[0]
            assert change.version >= before, f"{self._name}: {change.key} went back from {before}: {change}"
            self.seen[change.key] = (change.version, change.deleted)
            assert delivery.document == (b"1" if self._documents and not change.deleted else None)
        if self._world.following is following:
            self.token = following.token(SCHEMA, batch.position)
        return batch.more

    async def follow(self, ends: asyncio.Event) -> None:
        while not ends.is_set():
            with contextlib.suppress(DeltaError):
                await self.look()
            await asyncio.sleep(self._world.chance.random() * 6.0)


class FeedWorld:
    """See the module.

    Args:
        seed: of everything that is drawn.
        make: makes the change feed, or a broken one.
    """

    def __init__(self, seed: int, make: Callable[..., Following] = Following) -> None:
        self.chance = random.Random(seed)
        self._make = make
        self._seed = seed
        self.clock = SimClock()
        self.store = FeedStore(self.clock, self.chance)
        self.acknowledged: dict[str, int] = {}
        self._epoch = 0
        self._starts = 0
        self._names = 0
        self.router: Router
        self.following: Following
        self._links: dict[str, Link] = {}

    async def start_main(self) -> None:
        """Start a main worker, in the place of the one before; its workers lose their links."""
        for link in self._links.values():
            if not link.broken.done():
                link.broken.set_result(None)
        if self._starts:
            await self.following.close()
        self._starts += 1
        self._epoch += 1000
        drawn = SeededRandom(self._seed * 1000 + self._starts)
        self.router = Router(clock=self.clock, random=drawn, timeout_ms=10_000)
        self.router.bind(Placement(SHARDS, epoch=self._epoch, epoch_limit=self._epoch + 1000))
        self.following = self._make(
            self.router,
            Listing(self.store, self.chance.randrange(1, 4)),
            lambda: "database",
            clock=self.clock,
            random=drawn,
            log=ChangeLog(clock=self.clock, random=drawn, noted_max=self.chance.choice([2, 4, 1000])),
        )
        self.router.observer = self.following
        self._links = {}
        for _ in range(2):
            await self.join()

    async def join(self) -> None:
        """Let one more worker in."""
        self._names += 1
        name = f"w{self._names}"
        self._links[name] = Link(self)
        await self.router.join(Member(name, name), self._links[name])

    async def kill_worker(self) -> None:
        """Lose one worker, and get another."""
        name = self.chance.choice(list(self._links))
        link = self._links.pop(name)
        if not link.broken.done():
            link.broken.set_result(None)
        self.router.leave(name)
        await self.join()

    async def write(self, ends: asyncio.Event) -> None:
        """Write and delete; sometimes go away in the middle."""
        while not ends.is_set():
            key = self.chance.choice(KEYS)
            deletes = self.chance.random() < 0.3
            router = self.router
            call = router.delete(SCHEMA, key) if deletes else router.put_one(SCHEMA, key, b"1")
            patience_s = self.chance.random() * 0.1 if self.chance.random() < 0.15 else 60.0
            try:
                async with asyncio.timeout(patience_s):
                    result = await call
            except (DeltaError, TimeoutError):
                pass
            else:
                if result.version:
                    self.acknowledged[key] = max(self.acknowledged.get(key, 0), result.version)
            await asyncio.sleep(self.chance.random() * self.chance.choice([0.1, 1.0, 20.0]))

    async def disturb(self, ends: asyncio.Event) -> None:
        while not ends.is_set():
            await asyncio.sleep(self.chance.random() * 60.0)
            await (self.start_main() if self.chance.random() < 0.5 else self.kill_worker())

    def truth(self, key: str) -> tuple[int, bool]:
        """Version of an entity as stored, and whether it is deleted; 0 without one."""
        stored = self.store.objects.get(entity_path(SCHEMA, key))
        if stored is None:
            return (0, False)
        header, _ = Sealer(KEYRING, SeededRandom()).open(stored.data, SCHEMA, key)
        return (header.version, header.tombstone)

    async def run(self) -> None:
        """Let all work for some minutes, then be quiet, and judge. Raises AssertionError."""
        await self.start_main()
        readers = [Reader(self, f"reader {number}") for number in range(3)]
        for reader in readers:
            await reader.look()
        ends = asyncio.Event()
        tasks = [asyncio.ensure_future(self.write(ends)) for _ in range(2)]
        tasks += [asyncio.ensure_future(reader.follow(ends)) for reader in readers]
        tasks.append(asyncio.ensure_future(self.disturb(ends)))
        await asyncio.sleep(120.0 + self.chance.random() * 120.0)
        self.store.faulty = False
        ends.set()
        await asyncio.gather(*tasks)
        # Until everything that is on its way has landed and was looked for; readers go on meanwhile.
        for _ in range(30):
            await asyncio.sleep(5.0)
            for reader in readers:
                # An entity whose put comes late is locked so long.
                with contextlib.suppress(DeltaError):
                    await reader.look()
        for reader in readers:
            for _ in range(200):
                position = self.following.position(SCHEMA, reader.token)
                if not await reader.look() and not isinstance(position, CatchUp):
                    break
            else:
                raise AssertionError("a reader never comes to an end")
        assert not self.store.late
        for key in KEYS:
            stored = self.truth(key)
            for reader in readers:
                if stored[0] > reader.start.get(key, 0):
                    told = reader.seen.get(key)
                    assert told == stored, f"{key}: told of {told}, stored is {stored}"
        await self.following.close()
