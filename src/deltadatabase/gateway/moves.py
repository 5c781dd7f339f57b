"""Who owns what now: the joined workers, the shards that move, and whether data is served at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from deltadatabase.clock import Clock
from deltadatabase.errors import (
    DeltaError,
    Overloaded,
    Unavailable,
)
from deltadatabase.gateway.revisions import Revisions
from deltadatabase.limits import (
    HELD_REQUESTS_MAX,
)
from deltadatabase.model import Command, Result
from deltadatabase.placement.membership import Member, Placement

RETRY_PAUSE_S: Final = 0.02
FOREIGN_WRITER: Final = "foreign_writer"
STORE_GONE: Final = "store_gone"
EPOCHS_LOW: Final = 1000


class Link(Protocol):
    """The way to one worker; ``local``: in this process, so that ``cached`` may answer."""

    local: bool

    def cached(self, command: Command) -> Result | None:
        """Answer a read at once, if nothing has to be waited for; else None. Raises DeltaError."""
        ...

    async def call(self, command: Command) -> Result:
        """Send a command and wait for its answer. Raises DeltaError."""
        ...


class Observer(Protocol):
    """Hears of every write that may have been applied (``following``). No method blocks or raises."""

    def written(self, command: Command, result: Result) -> None:
        """A write was applied, or met nothing to do; the answer leaves now."""
        ...

    def uncertain(self, command: Command) -> None:
        """A write ended otherwise, and was perhaps applied or may be yet."""
        ...

    def reopened(self) -> None:
        """Data are served again; the store may hold others than before."""
        ...


class Moves:
    """Knows the owner of each shard, and moves shards without failing a request.

    Args:
        clock: monotonic time for deadlines.
        move_hold_s: for how long requests wait at the most while their shard moves.
    """

    def __init__(self, *, clock: Clock, move_hold_s: float) -> None:
        self._clock = clock
        self.revisions = Revisions()
        self._move_hold_s = move_hold_s
        self._placement: Placement | None = None
        self._links: dict[str, Link] = {}
        #: Some worker is, or was, in this process.
        self._any_local = False
        self._in_flight: list[int] = []
        self._held: dict[int, asyncio.Future[None]] = {}
        self._held_requests = 0
        self._quiet = asyncio.Event()
        self._changed: asyncio.Future[None] | None = None
        self._rebalancing = asyncio.Lock()
        #: Each worker can list only the shards that it owns.
        self.lists_by_owner = False
        #: How often a shard got another owner.
        self.moves = 0
        self._closures: dict[str, str] = {}
        self._closings = 0
        #: Hears of writes.
        self.observer: Observer | None = None
        #: Called when few of the reserved epochs are left.
        self.on_epochs_low: Callable[[], None] = lambda: None

    @property
    def in_flight(self) -> int:
        """Commands on entities that workers have; also from another thread."""
        return sum(self._in_flight)

    @property
    def held_requests(self) -> int:
        """Requests that wait while their shard moves."""
        return self._held_requests

    @property
    def closures(self) -> Mapping[str, str]:
        """Why no data is served now: reason codes, each with a sentence; empty while it is."""
        return self._closures

    def close(self, code: str, detail: str) -> None:
        """Serve no data from now on, for one reason more."""
        self._closings += code not in self._closures
        self._closures.setdefault(code, detail)

    def reopen(self, code: str) -> None:
        """Take one reason away; data is served again if it was the only one.

        Every term is raised. What workers read while it held, absence above all, may be in their
        caches and on its way, and must not be taken for the present. For ``store_gone`` alone:
        nothing undoes a second main worker.
        """
        assert code == STORE_GONE
        if self._closures.pop(code, None) is None or self._placement is None:
            return
        self._placement.release()
        self._apply(self._placement.orphans())
        if self.observer is not None:
            self.observer.reopened()

    def check_open(self) -> None:
        """Raise Unavailable while no data is served."""
        if self._closures:
            # The reason that no operator can wait out goes first.
            code = FOREIGN_WRITER if FOREIGN_WRITER in self._closures else next(iter(self._closures))
            raise Unavailable(self._closures[code], code=code)

    @property
    def placement(self) -> Placement | None:
        """The table, once a database is bound."""
        return self._placement

    def bind(self, placement: Placement, *, backend: str = "") -> None:
        """Serve one database, on this kind of store, from now on. Called once, before the first ``join``."""
        self._placement = placement
        self.lists_by_owner = backend == "directory"
        self.revisions.begin(placement.epoch)
        self._in_flight = [0] * placement.shards

    async def join(self, member: Member, link: Link) -> None:
        """Let a worker in and move its shards to it, without failing a request."""
        placement = self._bound()
        self._links[member.instance_id] = link
        self._any_local = self._any_local or link.local
        placement.add(member)
        await self._rebalance()

    async def drain(self, instance_id: str) -> None:
        """Move everything away from a worker that wants to go."""
        self._bound().drain(instance_id)
        await self._rebalance()

    def leave(self, instance_id: str) -> None:
        """End a membership at once: the worker died, or is gone after its drain."""
        placement = self._bound()
        self._links.pop(instance_id, None)
        placement.remove(instance_id)
        self._apply(placement.orphans())

    def retry_orphans(self) -> None:
        """Give shards without an owner away; after epochs ran out and were reserved again."""
        self._apply(self._bound().orphans())

    async def _rebalance(self) -> None:
        """Hold the moving shards' requests, let those in flight end, then raise the terms."""
        async with self._rebalancing:
            placement = self._bound()
            moving = placement.pending()
            if not moving:
                return
            hold: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            for shard in moving:
                self._held[shard] = hold
            try:
                await self._wait_quiet(moving)
                self._apply(moving)
            finally:
                for shard in moving:
                    self._held.pop(shard, None)
                hold.set_result(None)

    async def _wait_quiet(self, shards: list[int]) -> None:
        deadline = self._clock.monotonic_s() + self._move_hold_s
        while busy := [shard for shard in shards if self._in_flight[shard]]:
            left = deadline - self._clock.monotonic_s()
            if left <= 0:
                return  # Safe all the same: late replies are dropped, their writes looked up.
            shards = busy
            self._quiet.clear()
            try:
                async with asyncio.timeout(left):
                    await self._quiet.wait()
            except TimeoutError:
                return

    def _apply(self, shards: list[int]) -> None:
        placement = self._bound()
        try:
            self.moves += len(placement.apply(shards))
        except Unavailable:
            self.on_epochs_low()  # The shards stay without an owner (503) until some are reserved.
        else:
            if placement.epoch_limit - placement.epoch < EPOCHS_LOW:
                self.on_epochs_low()
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    def _bound(self) -> Placement:
        if self._placement is None:
            raise Unavailable("no worker has joined", code="no_worker")
        return self._placement

    async def _wait_held(self, hold: asyncio.Future[None]) -> None:
        if self._held_requests >= HELD_REQUESTS_MAX:
            raise Overloaded("too many requests wait for shards that are moving", code="moving")
        self._held_requests += 1
        try:
            await asyncio.shield(hold)
        finally:
            self._held_requests -= 1

    async def _pause(self, deadline: float, exc: DeltaError) -> None:
        """Wait for a change of placement, or a moment; raise when the time is up."""
        left = deadline - self._clock.monotonic_s()
        if left <= RETRY_PAUSE_S:
            raise Unavailable("the workers did not answer in time", code="timeout") from exc
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(RETRY_PAUSE_S):
                await asyncio.shield(self._changed)
        except TimeoutError:
            return

    def _counts(self, shard: int, term: int) -> bool:
        """Whether a reply counts: nobody else owns the shard since, and data is served still.

        What was read from, or committed into, a store that does not hold the database any more
        must not be told once that is known.
        """
        assert self._placement is not None
        return self._placement.terms[shard] == term and not self._closures
