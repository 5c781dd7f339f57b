"""Router, workers and store in virtual time, with everything between them going wrong.

The decision code is the real one: ``gateway.forwarding.Router`` and ``worker.commit.Committer``.
Only time, randomness, the store and the links are replaced.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from support.workers import Schemas

from deltadatabase.errors import (
    AlreadyExists,
    DeltaError,
    LinkLost,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.gateway.forwarding import Router
from deltadatabase.limits import EPOCH_BLOCK, HEARTBEAT_INTERVAL_S, MEMBERSHIP_TIMEOUT_S
from deltadatabase.model import Command, Header, Result
from deltadatabase.placement.membership import Member, Placement
from deltadatabase.storage.base import Condition, ObjectInfo, Stored, When
from deltadatabase.worker.cache import Cache
from deltadatabase.worker.commit import Committer
from deltadatabase.worker.membership import MembershipLease
from sim.history import Operation

SHARDS = 8
STORE_TIMEOUT_S = 1.0
REQUEST_TIMEOUT_MS = 4_000


class SimClock:
    """The loop's virtual time; the wall clock also jumps."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.skew_ms = 0

    def wall_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000) + self.skew_ms

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


class PlainSealer:
    """Stands in for encryption: headers travel beside the document, and each put is unique."""

    def __init__(self) -> None:
        self.sealed: dict[bytes, tuple[Header, bytes]] = {}

    def seal(self, header: Header, document: bytes) -> bytes:
        token = len(self.sealed).to_bytes(8, "big")
        self.sealed[token] = (header, document)
        return token

    def open(self, data: bytes, schema_id: str, key: str) -> tuple[Header, bytes]:
        return self.sealed[data]


class SimStore:
    """One object store, at its moments slow, down, or silent after it did what it was asked."""

    backend = "memory"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.objects: dict[str, Stored] = {}
        self.trouble = 0.0
        self.ignore_conditions = False

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        rng = self._rng
        if rng.random() < self.trouble * 0.3:
            await asyncio.sleep(rng.uniform(0.001, 0.05))
            raise Unavailable("refused")
        landing = asyncio.ensure_future(self._land(path, data, condition, rng.expovariate(1 / 0.01)))
        if rng.random() < self.trouble:
            # Lost on the way: it may land much later, or never; nobody is told.
            if rng.random() < 0.3:
                landing.cancel()
            else:
                landing.add_done_callback(lambda done: done.cancelled() or done.exception())
                await asyncio.sleep(rng.choice([0.0, 0.02, STORE_TIMEOUT_S]))
            raise OutcomeUnknown("no reply")
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                return await asyncio.shield(landing)
        except TimeoutError:
            landing.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise OutcomeUnknown("too slow") from None

    async def _land(self, path: str, data: bytes, condition: Condition, delay_s: float) -> str:
        rng = self._rng
        late = rng.random() < self.trouble
        await asyncio.sleep(delay_s + (rng.uniform(0.5, 8.0) if late else 0.0))
        present = self.objects.get(path)
        if not self.ignore_conditions:
            if condition is When.ABSENT and present is not None:
                raise AlreadyExists("object exists")
            if isinstance(condition, str) and (present is None or present.etag != condition):
                raise VersionMismatch("object changed")
        self.objects[path] = Stored(data, data.hex(), 0)
        if rng.random() < self.trouble:
            await asyncio.sleep(10 * STORE_TIMEOUT_S)  # The reply is lost.
        return data.hex()

    async def get(self, path: str) -> Stored:
        await asyncio.sleep(self._rng.expovariate(1 / 0.005))
        if self._rng.random() < self.trouble * 0.5:
            raise Unavailable("no reply")
        stored = self.objects.get(path)
        await asyncio.sleep(self._rng.expovariate(1 / 0.005))
        if stored is None:
            raise NotFound("no object")
        return stored

    async def head(self, path: str) -> ObjectInfo:
        stored = await self.get(path)
        return ObjectInfo(path, len(stored.data), stored.etag, stored.updated_ms)


@dataclass(eq=False)
class Worker:
    """One instance of a worker. It can be stopped for a while, and cut off."""

    world: World
    name: str
    committer: Committer
    lease: MembershipLease
    member: bool = True
    killed: bool = False
    running: asyncio.Event = field(default_factory=asyncio.Event)
    pending: dict[asyncio.Future[Result], None] = field(default_factory=dict)

    async def call(self, command: Command) -> Result:
        """The link: request and reply travel, and both may be lost."""
        world, rng = self.world, self.world.rng
        if self.killed or not self.member:
            raise Unavailable("down", code="link_down")
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.pending[answer] = None  # In order: a seed is one history.
        task = asyncio.create_task(self._serve(command, answer))
        world.background.add(task)
        task.add_done_callback(world.background.discard)
        try:
            async with asyncio.timeout(command.timeout_ms / 1000):
                result = await answer
                await asyncio.sleep(rng.expovariate(1 / 0.002))
                return result
        except TimeoutError:
            raise OutcomeUnknown("no answer in time", code="timeout") from None
        finally:
            self.pending.pop(answer, None)

    async def _serve(self, command: Command, answer: asyncio.Future[Result]) -> None:
        rng = self.world.rng
        await asyncio.sleep(rng.expovariate(1 / 0.002))
        await self.running.wait()
        for _ in range(2 if rng.random() < self.world.duplicates else 1):
            try:
                result = self.committer.fast(command) or await self.committer.execute(command)
            except DeltaError as exc:
                await self.running.wait()
                if not answer.done():
                    answer.set_exception(exc)
                return
            await self.running.wait()
            if not answer.done():
                answer.set_result(result)
            if not result.found:
                return  # What left no write id behind would be a new request if it came again.

    def cut(self) -> None:
        """The link breaks: whoever waits learns nothing."""
        self.member = False
        for answer in list(self.pending):
            if not answer.done():
                answer.set_exception(LinkLost("broke"))


class PausedStore:
    """A worker's way to the store: while the worker is stopped, nothing new is sent or heard."""

    backend = "memory"

    def __init__(self, store: SimStore, running: asyncio.Event) -> None:
        self._store = store
        self._running = running

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


class World:
    """Everything, from one seed.

    Args:
        seed: of every random choice.
        plant: changes something after the parts are built: a bug to be found.
    """

    def __init__(self, seed: int, plant: Callable[[World], None] | None = None) -> None:
        self.rng = random.Random(seed)
        self.clock = SimClock(self.rng)
        self.sealer = PlainSealer()
        self.store = SimStore(self.rng)
        self.store.trouble = self.rng.choice([0.0, 0.02, 0.1])
        self.duplicates = self.rng.choice([0.0, 0.05])
        self.history: list[Operation] = []
        self.background: set[asyncio.Task[None]] = set()
        self.workers: list[Worker] = []
        self.highest_epoch = 0
        self.router = self._new_router()
        self.on_worker: Callable[[Worker], None] = lambda worker: None
        self.on_router: Callable[[Router], None] = lambda router: None
        self._names = 0
        if plant is not None:
            plant(self)
            self.on_router(self.router)

    def _new_router(self) -> Router:
        router = Router(clock=self.clock, random=self.rng.randbytes, timeout_ms=REQUEST_TIMEOUT_MS)
        known = self.highest_epoch
        self.highest_epoch = known + EPOCH_BLOCK
        router.bind(Placement(SHARDS, epoch=known, epoch_limit=self.highest_epoch))
        return router

    # -- what happens to workers -------------------------------------------------------

    async def join(self) -> None:
        """A new worker, or one under the name of one that went."""
        self._names += 1
        running = asyncio.Event()
        running.set()
        lease = MembershipLease(self.clock, renewed_s=self.clock.monotonic_s())
        worker = Worker(
            self,
            f"w{self._names % 5}/{self._names}",
            Committer(
                PausedStore(self.store, running),  # type: ignore[arg-type]
                lambda: self.sealer,
                Schemas(),
                Cache(bytes_max=self.rng.choice([0, 3_000, 1 << 20])),
                clock=self.clock,
                lease=lease,
                sidecar=None,
            ),
            lease,
            running=running,
        )
        self.on_worker(worker)
        self.workers.append(worker)
        router = self.router
        watch = asyncio.create_task(self._watch(router, worker))
        self.background.add(watch)
        watch.add_done_callback(self.background.discard)
        await router.join(Member(worker.name.split("/")[0], worker.name), worker)

    async def _watch(self, router: Router, worker: Worker) -> None:
        """Heartbeats both ways; silence ends the membership."""
        heard = self.clock.monotonic_s()
        while worker.member and router is self.router:
            sent = self.clock.monotonic_s()
            if worker.running.is_set() and not worker.killed:
                heard = sent
                await asyncio.sleep(self.rng.uniform(0.0, 0.05))
                worker.lease.renewed_s = max(worker.lease.renewed_s, sent)
            if worker.killed or self.clock.monotonic_s() - heard > MEMBERSHIP_TIMEOUT_S:
                break
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)
        if worker.member and router is self.router:
            worker.cut()
            router.leave(worker.name)
        worker.member = False

    def kill(self, worker: Worker) -> None:
        """As kill -9: nothing more is sent; what the store already has may land."""
        worker.killed = True
        worker.running.clear()
        worker.cut()
        self.router.leave(worker.name)

    async def pause(self, worker: Worker, seconds: float) -> None:
        """As SIGSTOP and SIGCONT."""
        worker.running.clear()
        await asyncio.sleep(seconds)
        if not worker.killed:
            worker.running.set()

    async def drain(self, worker: Worker) -> None:
        """As SIGTERM."""
        await self.router.drain(worker.name)
        if worker.member:
            worker.cut()
            self.router.leave(worker.name)

    def restart_router(self) -> None:
        """The main worker dies and comes back; its workers join it anew."""
        for worker in self.workers:
            if worker.member:
                worker.cut()
        self.router = self._new_router()
        self.on_router(self.router)

    def members(self) -> list[Worker]:
        """Workers that the router counts on."""
        return [worker for worker in self.workers if worker.member and not worker.killed]
