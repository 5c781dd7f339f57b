"""The cluster as the main worker knows it: who has joined, which database is served, what is wrong.

Effects on members go through here in one order, whether a worker is a process that joined over
gRPC or the embedded one: bind the database, reserve epochs, join the router, watch heartbeats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from deltadatabase.clock import Clock, Random
from deltadatabase.errors import Conflict, DeltaError, Invalid, Unavailable
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.keys import Keys
from deltadatabase.gateway.moves import FOREIGN_WRITER, STORE_GONE
from deltadatabase.gateway.state import ClusterState
from deltadatabase.limits import (
    EPOCH_BLOCK,
    EPOCH_MAX,
    MEMBERSHIP_TIMEOUT_S,
    SHARD_COUNT_MAX,
    STORE_TIMEOUT_S,
    TEMPLATE_POLL_S,
    WRITE_ID_BYTES,
)
from deltadatabase.model import (
    Command,
    MemberInfo,
    MemberState,
    Op,
    ReadinessCheck,
    Result,
    StoreReport,
    StoreSight,
)
from deltadatabase.placement.health import Heartbeats
from deltadatabase.placement.membership import Member, Placement
from deltadatabase.telemetry.logging import get_logger

WATCH_INTERVAL_S: Final = 0.1
RESERVE_AGAIN_S: Final = 1.0
BIND_ATTEMPTS_MAX: Final = 3
#: A member has looked at its store again after so long: a pause, a read that may time out, a heartbeat.
SIGHT_FRESH_S: Final = TEMPLATE_POLL_S + STORE_TIMEOUT_S + MEMBERSHIP_TIMEOUT_S
GONE_KEPT_S: Final = 3600.0
GONE_KEPT_MAX: Final = 1000

log = get_logger(__name__)


class MemberLink(Protocol):
    """The way to a worker, which can be cut; ``lost`` tells that it was."""

    lost: asyncio.Event
    local: bool

    @property
    def queued(self) -> int: ...

    def cached(self, command: Command) -> Result | None: ...

    async def call(self, command: Command) -> Result: ...

    def close(self) -> Coroutine[None, None, None]: ...


@dataclass(slots=True, eq=False)
class Membership:
    """One worker's stay in the cluster.

    Attributes:
        info: what ``GET /admin/workers`` shows.
        link: carries its commands.
        on_replaced: tells the worker that another instance took its id.
        watched: whether silence ends it.
        keyring: fingerprint of the keyring that it works with.
        ended: set when the stay is over, for whatever reason.
    """

    info: MemberInfo
    link: MemberLink
    on_replaced: Callable[[], None]
    watched: bool
    keyring: bytes = b""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Cluster:
    """Members, the database that they serve, and readiness.

    Args:
        router: told of joins, moves and deaths.
        state: reserved epochs and schema revisions.
        clock: heartbeat times.
        random: names reservations of epochs.
        keys: the keyring in force, which every member must work with; None: nobody's matter (simulation).
        member_timeout_s: a member not heard of for longer is out.
    """

    def __init__(
        self,
        router: Router,
        state: ClusterState,
        *,
        clock: Clock,
        random: Random,
        keys: Keys | None = None,
        member_timeout_s: float = MEMBERSHIP_TIMEOUT_S,
    ) -> None:
        self._router = router
        self._state = state
        self._clock = clock
        self._random = random
        self._keys = keys
        self._heartbeats = Heartbeats(member_timeout_s)
        self._members: dict[str, Membership] = {}
        self._gone: dict[str, MemberInfo] = {}
        self._reports: dict[str, StoreReport] = {}
        self._database_id = ""
        self._binding = asyncio.Lock()
        self._templates: dict[str, str] | None = None
        self._start_failure: tuple[str, str] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reserving: Command | None = None
        self._without_store: set[str] = set()
        #: Members whose word on the store counts only from this time on, in monotonic seconds.
        self._doubted: dict[str, float] = {}
        #: Since the start: members that joined, asked to be drained, and went without.
        self.joins = 0
        self.drains = 0
        self.losses = 0
        router.on_foreign_term = self._foreign_term
        router.on_epochs_low = self._epochs_low

    # -- what the REST side shows ------------------------------------------------------

    def members(self) -> Sequence[MemberInfo]:
        """Every member, and those that vanished in the last hour, by worker id."""
        self._forget_gone()
        known = dict(self._gone)
        known.update((m.info.worker_id, m.info) for m in self._members.values())
        return [known[worker_id] for worker_id in sorted(known)]

    @property
    def database_id(self) -> str:
        """The database that is served; "" before the first worker has joined."""
        return self._database_id

    def states(self) -> Sequence[MemberState]:
        """The state of each present member; also from another thread."""
        return [membership.info.state for membership in self._members.copy().values()]

    def queued(self) -> int:
        """Commands that wait to be sent to a member; also from another thread."""
        return sum(membership.link.queued for membership in self._members.copy().values())

    def store_reports(self) -> Mapping[str, StoreReport]:
        """The start-up probe of each member's store, by worker id."""
        return {m.info.worker_id: self._reports[instance_id] for instance_id, m in self._members.items()}

    def readiness(self) -> Sequence[ReadinessCheck]:
        """Whether data is served now, and if not, why."""
        closures = self._router.closures
        serving = bool(self._members)
        failure = None if serving else self._start_failure
        placement = self._router.placement
        owned = placement is not None and not placement.orphans()
        return [
            ReadinessCheck("store", False, STORE_GONE, closures[STORE_GONE])
            if STORE_GONE in closures
            else ReadinessCheck("store", True, "ok", "probed by each worker before it joined")
            if failure is None and (serving or self._database_id)
            else ReadinessCheck("store", False, *(failure or ("no_worker", "no worker has opened it yet"))),
            ReadinessCheck("workers", True, "ok", f"workers={len(self._members)}")
            if serving
            else ReadinessCheck("workers", False, "no_worker", "no worker has joined"),
            ReadinessCheck("placement", True, "ok", f"epoch={placement.epoch}")
            if placement is not None and owned
            else ReadinessCheck("placement", False, "no_owner", "some shards have no owner"),
            ReadinessCheck("ownership", True, "ok", "no other main worker was seen on this store")
            if FOREIGN_WRITER not in closures
            else ReadinessCheck("ownership", False, FOREIGN_WRITER, closures[FOREIGN_WRITER]),
        ]

    # -- memberships -------------------------------------------------------------------

    async def admit(
        self,
        info: MemberInfo,
        report: StoreReport,
        link: MemberLink,
        *,
        keyring: bytes = b"",
        on_replaced: Callable[[], None] = lambda: None,
        watched: bool = True,
    ) -> Membership:
        """Make a worker that has opened its store a member, and move its shards to it.

        Args:
            info: the worker; its state and time are set here.
            report: what it found in its store.
            link: its data link, already open.
            keyring: fingerprint of the keyring that it was given.
            on_replaced: called when a later instance takes its id.
            watched: whether it must be heard of regularly.

        Raises:
            Conflict: its store is another database, or another main worker uses it.
            Unavailable: ``keys_changed``: it joined with a keyring of before.
            DeltaError: epochs could not be reserved.
        """
        async with self._binding:
            await self._bind(report, link)
        if not self._is_in_force(keyring):
            # It would seal with a key that all the others have left behind, unnoticed by a rotation.
            raise Unavailable("the master keys changed while this worker joined", code="keys_changed")
        self._start_failure = None
        membership = Membership(info, link, on_replaced, watched, keyring)
        placement = self._router.placement
        former = placement.instance_of(info.worker_id) if placement else None
        if former is not None and (old := self._members.get(former)) is not None:
            log.warning("worker id was taken over by a newer instance", worker_id=info.worker_id)
            old.on_replaced()
            self.leave(former)
        self._gone.pop(info.worker_id, None)
        self._reports[info.instance_id] = report
        self._members[info.instance_id] = membership
        if watched:
            self._heartbeats.heard(info.instance_id, self._clock.monotonic_s())
        self._seen(membership, MemberState.AVAILABLE)
        self.joins += 1
        await self._router.join(Member(info.worker_id, info.instance_id), link)
        log.info("worker joined", worker_id=info.worker_id, workers=len(self._members), epoch=self.epoch)
        return membership

    def heard(
        self,
        instance_id: str,
        highest_epoch_stored: int,
        sight: StoreSight = StoreSight.UNSPECIFIED,
        keyring: bytes = b"",
    ) -> None:
        """Take a heartbeat in. Ignored for who is no member."""
        membership = self._members.get(instance_id)
        if membership is None:
            return
        if keyring and keyring != membership.keyring:
            membership.keyring = keyring
            if self._keys is not None and self._is_in_force(keyring):
                membership.info = msgspec.structs.replace(membership.info, key_id=self._keys.label())
        if membership.watched:
            self._heartbeats.heard(instance_id, self._clock.monotonic_s())
        self._seen(membership, membership.info.state)
        if highest_epoch_stored > self._reserved():
            self._close_foreign()
        if sight is StoreSight.GONE:
            self._without_store.add(instance_id)
        elif sight is StoreSight.HELD:
            self._without_store.discard(instance_id)
            if self._clock.monotonic_s() >= self._doubted.get(instance_id, 0.0):
                self._doubted.pop(instance_id, None)
        self._close_or_reopen()

    def present(self) -> int:
        """Number of members."""
        return len(self._members)

    def behind(self) -> Sequence[str]:
        """Worker ids of the members that do not work with the keyring in force yet."""
        return [m.info.worker_id for m in self._members.values() if not self._is_in_force(m.keyring)]

    def _is_in_force(self, keyring: bytes) -> bool:
        return self._keys is None or keyring == self._keys.fingerprint()

    async def drain(self, instance_id: str) -> None:
        """Move everything away from a member; returns when it owns nothing any more."""
        if (membership := self._members.get(instance_id)) is None:
            return
        self.drains += membership.info.state is not MemberState.DRAINING
        self._seen(membership, MemberState.DRAINING)
        log.info("worker drains", worker_id=membership.info.worker_id)
        await self._router.drain(instance_id)

    def leave(self, instance_id: str) -> None:
        """End a stay: its shards go to others at once, its link is cut."""
        membership = self._members.pop(instance_id, None)
        if membership is None:
            return
        self._heartbeats.forget(instance_id)
        self._reports.pop(instance_id, None)
        self._router.leave(instance_id)
        self._doubted.pop(instance_id, None)
        if instance_id in self._without_store:
            # Who missed the database goes without having found it again. The others may not have
            # looked since; what they say is believed once they must have.
            self._without_store.discard(instance_id)
            fresh_s = self._clock.monotonic_s() + SIGHT_FRESH_S
            self._doubted.update((other, fresh_s) for other in self._members)
        self._close_or_reopen()
        info = membership.info
        self.losses += info.state is not MemberState.DRAINING
        self._forget_gone()
        if info.state is not MemberState.DRAINING and len(self._gone) < GONE_KEPT_MAX:
            self._gone[info.worker_id] = msgspec.structs.replace(info, state=MemberState.UNREACHABLE)
        membership.ended.set()
        self._spawn(membership.link.close())
        log.info("worker left", worker_id=info.worker_id, workers=len(self._members), epoch=self.epoch)

    def start_failed(self, worker_id: str, code: str, detail: str) -> None:
        """A worker could not open the store: say so in ``/readyz``."""
        self._start_failure = (code, detail)
        log.error("worker cannot serve", worker_id=worker_id, code=code, detail=detail)

    @property
    def epoch(self) -> int:
        """The present epoch, 0 before the first member."""
        return self._router.placement.epoch if self._router.placement else 0

    def polls(self, instance_id: str) -> bool:
        """Whether this member is the one that watches templates and epochs in the store."""
        return next(iter(self._members), None) == instance_id

    def templates_seen(self, templates: Mapping[str, str]) -> None:
        """Take a snapshot of all templates in; raise the revision of what others changed."""
        before = self._templates
        self._templates = dict(templates)
        changed = changed_templates(before or {}, templates)
        self._router.revisions.raise_for(changed)
        if changed and before is not None:
            log.info("schemas changed in the store", schema_ids=changed[:20], count=len(changed))

    async def watch(self) -> None:
        """End the stay of members that are not heard of. Runs until cancelled."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            for instance_id in self._heartbeats.expired(self._clock.monotonic_s()):
                if (membership := self._members.get(instance_id)) is not None:
                    log.warning("worker is silent", worker_id=membership.info.worker_id)
                self.leave(instance_id)

    async def close(self) -> None:
        """End every stay and cut every link."""
        for instance_id, membership in list(self._members.items()):
            await membership.link.close()
            self.leave(instance_id)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- database and epochs -----------------------------------------------------------

    async def _bind(self, report: StoreReport, link: MemberLink) -> None:
        database = report.database
        if not 0 < database.shards <= SHARD_COUNT_MAX or database.highest_epoch > EPOCH_MAX - EPOCH_BLOCK:
            raise Invalid("the worker reports a database that cannot be")
        placement = self._router.placement
        if placement is not None:
            if database.database_id != self._database_id:
                raise Conflict("the worker's store holds another database", code="other_database")
            if database.highest_epoch > self._reserved():
                self._close_foreign()
            # A store that was gone for others is no obstacle: this worker has just opened it.
            if (detail := self._router.closures.get(FOREIGN_WRITER)) is not None:
                raise Conflict(detail, code=FOREIGN_WRITER)
            return
        expected = database.highest_epoch
        for _ in range(BIND_ATTEMPTS_MAX):
            known = max(expected, self._state.epoch_limit(database.database_id))
            limit = known + EPOCH_BLOCK
            result = await link.call(self._reservation(expected, limit))
            if result.found:
                break
            # Reserved since the worker looked: mostly by this main worker, whose reply was lost.
            expected = result.number
        else:
            raise Unavailable("another main worker is starting on this store", code="foreign_writer")
        self._state.set_epoch_limit(database.database_id, limit)
        self._database_id = database.database_id
        self._router.bind(Placement(database.shards, epoch=known, epoch_limit=limit), backend=report.backend)

    def _reservation(self, expected: int, highest: int) -> Command:
        return Command(
            op=Op.RESERVE_EPOCHS, term=expected, number=highest, write_id=self._random(WRITE_ID_BYTES)
        )

    def _reserved(self) -> int:
        """Highest epoch that this main worker may find in the store."""
        if self._reserving is not None:
            return self._reserving.number
        return self._router.placement.epoch_limit if self._router.placement else 0

    def _epochs_low(self) -> None:
        placement = self._router.placement
        if self._reserving is None and placement is not None:
            limit = placement.epoch_limit
            self._reserving = self._reservation(limit, limit + EPOCH_BLOCK)
            self._spawn(self._reserve_more(placement, self._reserving))

    async def _reserve_more(self, placement: Placement, reservation: Command) -> None:
        # The same reservation until its outcome is known: a lost reply is then recognised.
        while True:
            try:
                if not (await self._router.any_worker(reservation)).found:
                    self._close_foreign()
                    return
                self._state.set_epoch_limit(self._database_id, reservation.number)
            except DeltaError as exc:
                log.warning("no further epochs could be reserved yet", code=exc.code)
                await asyncio.sleep(RESERVE_AGAIN_S)
            else:
                placement.epoch_limit = reservation.number
                self._reserving = None
                self._router.retry_orphans()
                return

    def _foreign_term(self, term: int) -> None:
        log.error("an entity was written under a term that was never issued here", term=term)
        self._close_foreign()

    def _close_foreign(self) -> None:
        if FOREIGN_WRITER not in self._router.closures:
            log.error("another main worker uses this store; stop one of the two, then restart the other")
            self._router.close(FOREIGN_WRITER, "another main worker uses this store")

    def _close_or_reopen(self) -> None:
        """Serve data only while no member misses the database in its store."""
        closed = STORE_GONE in self._router.closures
        missing = self._without_store or self._doubted
        if missing and not closed:
            log.error("the store does not hold this database any more; restore it", code=STORE_GONE)
            self._router.close(STORE_GONE, "the store does not hold this database any more")
        elif closed and not missing:
            log.info("no member misses the database in its store any more; serving goes on")
            # A schema that was not found meanwhile would be taken for none, and validate nothing.
            self._router.revisions.raise_all()
            self._router.reopen(STORE_GONE)

    def _forget_gone(self) -> None:
        horizon = self._clock.wall_ms() - GONE_KEPT_S * 1000
        self._gone = {name: info for name, info in self._gone.items() if info.last_seen_ms > horizon}

    def _seen(self, membership: Membership, state: MemberState) -> None:
        membership.info = msgspec.structs.replace(
            membership.info, state=state, last_seen_ms=self._clock.wall_ms()
        )

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def changed_templates(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the schema ids that were added, removed or replaced between two snapshots."""
    names = before.keys() | now.keys()
    return sorted(schema_id for schema_id in names if before.get(schema_id) != now.get(schema_id))
