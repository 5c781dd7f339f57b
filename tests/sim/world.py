"""Router, members, workers and store in virtual time, with everything between them going wrong.

The decision code is the real one: ``gateway.forwarding.Router``, ``gateway.members.Cluster``,
``worker.commit.Committer``, ``storage.database.reserve_epochs``. Only time, randomness, the store,
encryption and the links are replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from support.workers import Schemas

from deltadatabase.errors import DeltaError, LinkLost, OutcomeUnknown, Unavailable
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.members import Cluster
from deltadatabase.limits import HEARTBEAT_INTERVAL_S, MOVE_HOLD_S, RECENT_WRITES_MAX, REJOIN_DELAY_S
from deltadatabase.model import (
    Command,
    DatabaseInfo,
    MemberInfo,
    MemberState,
    Op,
    Result,
    StoreReport,
)
from deltadatabase.storage.base import Stored
from deltadatabase.storage.database import FORMAT, read_database, reserve_epochs
from deltadatabase.storage.paths import DATABASE_PATH
from deltadatabase.worker.cache import Cache
from deltadatabase.worker.commit import Committer
from deltadatabase.worker.creations import Creations
from deltadatabase.worker.membership import MembershipLease
from sim.disk import SimDirectory
from sim.history import Operation
from sim.store import Landings, PausedStore, PlainSealer, RecordedDisk, SimStore

SHARDS = 8
REQUEST_TIMEOUT_MS = 4_000
DATABASE = DatabaseInfo(database_id="d", format=FORMAT, shards=SHARDS, highest_epoch=0, keys={})


class SimClock:
    """The loop's virtual time; the wall clock also jumps."""

    def __init__(self) -> None:
        self.skew_ms = 0

    def wall_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000) + self.skew_ms

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


class Hopeful(Creations):
    """Learns nothing: most entities are there after a moment, and creates would not be tried again."""

    def note(self, schema_id: str, *, created: bool) -> None:
        pass


class State:
    """What a main worker keeps on disk: the epochs that it has reserved."""

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}

    def epoch_limit(self, database_id: str) -> int:
        return self._limits.get(database_id, 0)

    def set_epoch_limit(self, database_id: str, limit: int) -> None:
        self._limits[database_id] = max(limit, self.epoch_limit(database_id))


EVENTS: Mapping[str, int] = {
    "join": 5,
    "kill": 2,
    "pause": 4,
    "overtake": 2,
    "silence": 2,
    "break": 1,
    "drain": 2,
    "main": 1,
    "evict": 2,
    "clock": 1,
    "outage": 1,
    "loss": 2,
}


@dataclass(frozen=True)
class Shape:
    """What a run is like.

    Attributes:
        clients, keys, operations: how many; operations are of each client.
        think_s: mean pause of a client between two operations.
        kinds: weights of put, get, delete and conditional put.
        patches: weight of patches.
        repeats: how often a client sends a write again whose outcome it does not know.
        directory: workers share a directory, call by call; else they have an object store.
        removes: the object store removes tombstones; a directory does anyway.
        tombstone_age_s: how old they get, if so.
        late_s: by how much a put in trouble may land late.
        slow: how often a read is slow, 0 to 1, beside those in trouble.
        recent: how many earlier writes a header remembers. Safety must not hang on it: what is not
            found is unknown.
        event_s: mean time between two events.
        events: weights of what happens.
    """

    clients: int = 4
    keys: int = 3
    operations: int = 22
    think_s: float = 0.15
    kinds: tuple[int, int, int, int] = (4, 5, 1, 2)
    patches: int = 0
    repeats: int = 0
    directory: bool = False
    removes: bool = False
    tombstone_age_s: float = 0.0
    late_s: float = 8.0
    slow: float = 0.0
    recent: int = RECENT_WRITES_MAX
    event_s: float = 0.4
    events: Mapping[str, int] = field(default_factory=lambda: EVENTS)


class Link:
    """The way to one worker: requests and replies travel, and both may be lost."""

    local = True
    """So that some reads are answered from the cache without a wait, as in one process."""

    def __init__(self, worker: Worker) -> None:
        self.lost = asyncio.Event()
        self._worker = worker
        self._pending: dict[asyncio.Future[Result], None] = {}  # In order: a seed is one history.

    def cached(self, command: Command) -> Result | None:
        worker = self._worker
        if self.lost.is_set() or worker.killed or not worker.running.is_set():
            return None
        return worker.committer.fast(command)

    async def call(self, command: Command) -> Result:
        world, rng = self._worker.world, self._worker.world.rng
        if self.lost.is_set():
            raise Unavailable("down", code="link_down")
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._pending[answer] = None
        world.spawn(self._serve(command, answer, copies=2 if rng.random() < world.duplicates else 1))
        try:
            async with asyncio.timeout(command.timeout_ms / 1000):
                result = await answer
                await asyncio.sleep(rng.expovariate(1 / 0.002))
                return result
        except TimeoutError:
            raise OutcomeUnknown("no answer in time", code="timeout") from None
        finally:
            self._pending.pop(answer, None)

    async def _serve(self, command: Command, answer: asyncio.Future[Result], *, copies: int) -> None:
        worker = self._worker
        await asyncio.sleep(worker.world.rng.expovariate(1 / 0.002))
        for _ in range(copies):
            await worker.running.wait()
            if worker.killed:
                return
            try:
                result = await worker.execute(command)
            except DeltaError as exc:
                await worker.running.wait()
                if not answer.done():
                    answer.set_exception(exc)
                return
            await worker.running.wait()
            if not answer.done():
                answer.set_result(result)
            if not result.found:
                return  # What left no write id behind would be a new request if it came again.

    def cut(self) -> None:
        """The link breaks: whoever waits learns nothing."""
        self.lost.set()
        for answer in list(self._pending):
            if not answer.done():
                answer.set_exception(LinkLost("broke"))

    async def close(self) -> None:
        self.cut()


@dataclass(eq=False)
class Worker:
    """One process. It can be stopped for a while, cut off, drained and killed."""

    world: World
    worker_id: str
    committer: Committer
    lease: MembershipLease
    store: PausedStore | SimDirectory
    running: asyncio.Event = field(default_factory=asyncio.Event)
    link: Link | None = None
    instance_id: str = ""
    killed: bool = False
    deaf: bool = False

    async def execute(self, command: Command) -> Result:
        if command.op is Op.RESERVE_EPOCHS:
            found, highest = await reserve_epochs(
                self.store,  # type: ignore[arg-type]
                expected=command.term,
                highest=command.number,
                reservation=command.write_id.hex(),
            )
            return Result(found=found, number=highest)
        return self.committer.fast(command) or await self.committer.execute(command)

    async def live(self) -> None:
        """Join, stay, and join again, until killed."""
        while not self.killed:
            await self.running.wait()
            try:
                await self._stay()
            except DeltaError:
                pass  # Not admitted this time.
            finally:
                self.lease.end()
                if self.link is not None:
                    self.link.cut()
                self.link = None
            await asyncio.sleep(REJOIN_DELAY_S * self.world.rng.random())

    async def _stay(self) -> None:
        world, cluster = self.world, self.world.cluster
        self.instance_id = f"{self.worker_id}/{world.rng.randrange(1 << 32):x}"
        self.link = link = Link(self)
        replaced = asyncio.Event()
        database = await read_database(self.store)  # type: ignore[arg-type]
        membership = await cluster.admit(
            MemberInfo(
                worker_id=self.worker_id,
                instance_id=self.instance_id,
                state=MemberState.AVAILABLE,
                key_id="",
                last_seen_ms=0,
                address="",
            ),
            StoreReport(backend="memory", checks=(), database=database),
            link,
            on_replaced=replaced.set,
        )
        while not membership.ended.is_set() and not self.killed and cluster is world.cluster:
            world.spawn(self._beat(cluster))
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)
            await self.running.wait()
        if replaced.is_set():
            self.end()

    def end(self) -> None:
        """The process is no more."""
        self.killed = True
        if isinstance(self.store, SimDirectory):
            self.store.kill()

    async def _beat(self, cluster: Cluster) -> None:
        """A heartbeat and its answer; the lease counts from when it was sent."""
        clock, rng = self.world.clock, self.world.rng
        sent_s = clock.monotonic_s()
        await asyncio.sleep(rng.uniform(0.0, 0.05))
        if self.deaf or self.killed or cluster is not self.world.cluster:
            return
        cluster.heard(self.instance_id, 0)
        instance_id = self.instance_id
        await asyncio.sleep(rng.uniform(0.0, 0.05))
        await self.running.wait()
        if not self.deaf and self.instance_id == instance_id and self.link is not None:
            self.lease.renewed_s = max(self.lease.renewed_s, sent_s)


class World:
    """Everything, from one seed."""

    def __init__(self, seed: int, shapes: tuple[Shape, ...]) -> None:
        self.rng = random.Random(seed)
        self.shape = self.rng.choice(shapes)
        self.clock = SimClock()
        self.sealer = PlainSealer()
        self.disk = RecordedDisk(self.clock, self.sealer, msgspec.json.encode(DATABASE))
        self.store = SimStore(self.rng, self.sealer, removes=self.shape.removes)
        self.store.trouble = self.rng.choice([0.0, 0.02, 0.1])
        self.store.late_s = self.shape.late_s
        self.store.slow = self.shape.slow
        self.store.objects[DATABASE_PATH] = Stored(msgspec.json.encode(DATABASE), "e0", 0)
        # A repeat is recognised by the write ids that a header remembers.
        self.duplicates = self.rng.choice([0.0, 0.05]) if self.shape.recent else 0.0
        # A short one lets shards move away from writes that are under way.
        self.move_hold_s = self.rng.choice([MOVE_HOLD_S, 0.02])
        self.history: list[Operation] = []
        self.wrong: list[str] = []
        self.repeated = 0
        self.workers: list[Worker] = []
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._state = State()
        self._kept: dict[str, Stored] = {}
        self._names = 0
        self._keys = 0
        self._watching: asyncio.Task[None] | None = None
        self.router, self.cluster = self._main_worker()

    @property
    def landings(self) -> Landings:
        return self.disk.landings if self.shape.directory else self.store.landings

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something beside everything else."""
        task = asyncio.create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def _main_worker(self) -> tuple[Router, Cluster]:
        router = Router(
            clock=self.clock,
            random=self.rng.randbytes,
            timeout_ms=REQUEST_TIMEOUT_MS,
            move_hold_s=self.move_hold_s,
        )
        cluster = Cluster(router, self._state, clock=self.clock, random=self.rng.randbytes)  # type: ignore[arg-type]
        if self._watching is not None:
            self._watching.cancel()
        self._watching = asyncio.create_task(cluster.watch())
        return router, cluster

    # -- what happens ------------------------------------------------------------------

    def join(self) -> None:
        """A new worker starts, perhaps under the id of one that is there or was."""
        self._names += 1
        running = asyncio.Event()
        running.set()
        lease = MembershipLease(self.clock)
        store = (
            SimDirectory(self.disk, f"p{self._names}", self.rng, running=running)
            if self.shape.directory
            else PausedStore(self.store, running)
        )
        committer = Committer(
            store,  # type: ignore[arg-type]
            lambda: self.sealer,
            Schemas(),
            Cache(bytes_max=self.rng.choice([0, 3_000, 1 << 20])),
            clock=self.clock,
            lease=lease,
            sidecar=None,
            tombstone_age_s=self.shape.tombstone_age_s,
            recent_writes_max=self.shape.recent,
            creations=self.rng.choice([Creations, Hopeful])(),
        )
        worker = Worker(self, f"w{self._names % 5}", committer, lease, store, running)
        self.workers.append(worker)
        self.spawn(worker.live())

    def kill(self, worker: Worker) -> None:
        """As kill -9: nothing more is sent; what the store already has may land."""
        worker.end()
        worker.running.clear()
        if worker.link is not None:
            worker.link.cut()
        if self.rng.random() < 0.7:  # Else its connections look alive, and silence tells.
            self.cluster.leave(worker.instance_id)

    async def pause(self, worker: Worker, seconds: float) -> None:
        """As SIGSTOP and SIGCONT."""
        worker.running.clear()
        await asyncio.sleep(seconds)
        if not worker.killed:
            worker.running.set()

    async def silence(self, worker: Worker, seconds: float) -> None:
        """Heartbeats are lost, commands are not."""
        worker.deaf = True
        await asyncio.sleep(seconds)
        worker.deaf = False

    async def drain(self, worker: Worker) -> None:
        """As SIGTERM."""
        await self.cluster.drain(worker.instance_id)
        await worker.committer.settle(1.0)
        worker.end()
        if worker.link is not None:
            worker.link.cut()  # As the process's connections end with it, whoever it talks to by now.
        self.cluster.leave(worker.instance_id)

    def break_link(self, worker: Worker) -> None:
        """The data connection breaks; the main worker ends the membership, the worker joins again."""
        if worker.link is not None:
            worker.link.cut()
            self.cluster.leave(worker.instance_id)

    def restart_main_worker(self, *, state_lost: bool) -> None:
        """The main worker dies and comes back; its workers notice and join it anew."""
        if state_lost:
            self._state = State()
        for worker in self.workers:
            if worker.link is not None:
                worker.link.cut()
        self.router, self.cluster = self._main_worker()
        if not self.store.recording:
            self._miss_store(missing=True)

    async def outage(self, seconds: float) -> None:
        """The store answers nobody."""
        self.store.down = True
        await asyncio.sleep(seconds)
        self.store.down = False

    async def lose_store(self, seconds: float) -> None:
        """The store is emptied, which is noticed at once, and later it is as it was before."""
        if not self.store.recording:
            return
        self._kept, self.store.objects = self.store.objects, {}
        self.store.recording = False
        self._miss_store(missing=True)
        await asyncio.sleep(seconds)
        self._restore()

    def _restore(self) -> None:
        if not self.store.recording:
            self.store.objects = self._kept
            self.store.recording = True
            self._miss_store(missing=False)

    def _miss_store(self, *, missing: bool) -> None:
        """As if one member more looked for the database all the time."""
        (self.cluster._without_store.add if missing else self.cluster._without_store.discard)("watcher")
        self.cluster._close_or_reopen()

    async def rotate(self) -> None:
        """Another master key becomes the primary one, and every entity is sealed anew with it."""
        self._keys += 1
        self.sealer.key_id = b"key%d" % self._keys
        router, key_id = self.router, self.sealer.key_id
        for key in "abcdef"[: self.shape.keys]:
            with contextlib.suppress(DeltaError):
                await router.reseal("s", key, key_id)

    def members(self) -> list[Worker]:
        """Workers that the main worker counts on."""
        known = {info.instance_id for info in self.cluster.members() if info.state is MemberState.AVAILABLE}
        return [worker for worker in self.workers if worker.instance_id in known and not worker.killed]

    def heal(self) -> None:
        """Whatever is broken works again."""
        self.store.trouble = 0.0
        self.store.down = False
        self._restore()
        for worker in self.workers:
            worker.deaf = False
            if not worker.killed:
                worker.running.set()
