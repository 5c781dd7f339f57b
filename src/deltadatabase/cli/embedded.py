"""The worker in the process of ``deltadb serve``: the same engine, without the way over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from deltadatabase.cli.main_worker import MainWorker
from deltadatabase.cli.running import clock
from deltadatabase.cli.stores import node_options, open_configured_store
from deltadatabase.clock import system_random
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring
from deltadatabase.errors import DeltaError, OutcomeUnknown, Overloaded, StartupError, Unavailable
from deltadatabase.gateway.members import Cluster, MemberLink
from deltadatabase.limits import HEARTBEAT_INTERVAL_S, TEMPLATE_POLL_S
from deltadatabase.model import MemberInfo, MemberState, StoreReport
from deltadatabase.rpc.link import Handler
from deltadatabase.rpc.local import LocalLink
from deltadatabase.rpc.traced import TracedHandler, TracedLink
from deltadatabase.settings import ServeSettings
from deltadatabase.storage.base import Store
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.worker.metrics import WorkerMetrics
from deltadatabase.worker.node import Node
from deltadatabase.worker.opening import examine, refresh
from deltadatabase.worker.presence import Presence, PresentLease
from deltadatabase.worker.store_check import StoreCheck
from deltadatabase.worker.watching import StoreWatch

EMBEDDED_ID: Final = "embedded"
EXAMINE_AGAIN_S: Final = 0.5

log = get_logger(__name__)


class _AlwaysHolds:
    """The lease of a worker in the router's own process: nothing can come between the two."""

    membership = 0

    def holds(self) -> bool:
        return True


@asynccontextmanager
async def embedded(
    settings: ServeSettings, main: MainWorker, counted: WorkerMetrics | None, lost: asyncio.Event
) -> AsyncIterator[None]:
    """Work as long as this is entered; ``lost`` is set when the store is not this server's any more."""
    store = await open_configured_store(
        settings,
        wait_s=settings.store_wait,
        memory=settings.memory,
        journal=settings.journal,
        meter=counted.store if counted else None,
        traces=main.traces,
    )
    tasks: list[asyncio.Task[None]] = []
    try:
        presence = Presence(store, EMBEDDED_ID, clock=clock, random=system_random)
        keyring = main.keys.keyring
        report = await _examined(store, keyring, presence, wait_s=settings.store_wait)
        usable = keyring.without(report.database.retired_keys)
        holder = _KeyHolder(store, presence, report, keyring, Sealer(usable, system_random))
        node = Node(
            store,
            lambda: holder.sealer,
            report,
            clock=clock,
            lease=PresentLease(_AlwaysHolds(), presence),
            options=node_options(settings),
            audit=main.audit,
        )
        if counted is not None:
            counted.watch(node)
        await main.cluster.admit(
            MemberInfo(
                worker_id=EMBEDDED_ID,
                instance_id=main.instance_id,
                state=MemberState.AVAILABLE,
                key_id=main.keys.label(),
                last_seen_ms=clock.wall_ms(),
                address="",
            ),
            report,
            _link_to(node, main, counted),
            keyring=keyring.fingerprint,
            watched=False,
        )
        watch = StoreWatch(store, node.templates)
        check = StoreCheck(store, report.database.database_id)
        tasks.append(asyncio.create_task(_poll(main.cluster, watch, check, main.instance_id)))
        tasks.append(asyncio.create_task(_follow_keys(main, holder)))
        tasks.append(asyncio.create_task(_keep_present(presence, lost)))
        yield
        await node.settle(settings.drain_timeout * 0.3)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()


def _link_to(node: Node, main: MainWorker, counted: WorkerMetrics | None) -> MemberLink:
    """The way to the worker in this process."""
    handler: Handler = node if counted is None else counted.metered(node)
    if main.traces is None:
        return LocalLink(handler)
    return TracedLink(LocalLink(TracedHandler(handler, main.traces)), main.traces)


async def _examined(store: Store, keyring: Keyring, presence: Presence, *, wait_s: float) -> StoreReport:
    """Open the database in a store that answered just now, and may be away again for a moment.

    Raises:
        StartupError: ``store_unreachable`` after ``wait_s`` seconds; else as ``examine``.
    """
    deadline_s = clock.monotonic_s() + wait_s
    while True:
        try:
            return await examine(store, keyring, presence, random=system_random)
        except (Unavailable, OutcomeUnknown, Overloaded) as exc:
            if clock.monotonic_s() + EXAMINE_AGAIN_S > deadline_s:
                raise StartupError(
                    f"the store could not be examined within {wait_s:g} s: {exc.detail}",
                    code="store_unreachable",
                ) from exc
            log.warning("the store went away while it was examined; trying again", code=exc.code)
            await asyncio.sleep(EXAMINE_AGAIN_S)


async def _keep_present(presence: Presence, lost: asyncio.Event) -> None:
    try:
        await presence.keep()
    except StartupError as exc:
        log.error("the store is not to be used any more", code=exc.code, detail=exc.detail)
        lost.set()


@dataclass(slots=True)
class _KeyHolder:
    """What the embedded worker seals with."""

    store: Store
    presence: Presence
    report: StoreReport
    keyring: Keyring
    sealer: Sealer

    async def take_over(self, keyring: Keyring) -> None:
        """Seal with these keys once the database knows them. Raises DeltaError."""
        report = await refresh(self.store, keyring, self.presence, self.report, random=system_random)
        # Nothing is opened with a retired key: whoever saw it could forge what it seals.
        self.sealer = Sealer(keyring.without(report.database.retired_keys), system_random)
        self.keyring = keyring


async def _follow_keys(main: MainWorker, holder: _KeyHolder) -> None:
    """Work with the keyring in force, as a member in another process learns it by heartbeat."""
    while True:
        await asyncio.sleep(HEARTBEAT_INTERVAL_S)
        keyring = main.keys.keyring
        if holder.keyring is not keyring:
            try:
                await holder.take_over(keyring)
            except DeltaError as exc:
                log.warning("the keyring was not taken over; it is tried again", code=exc.code)
                continue
        main.cluster.heard(main.instance_id, 0, keyring=keyring.fingerprint)


async def _poll(cluster: Cluster, watch: StoreWatch, check: StoreCheck, instance_id: str) -> None:
    while True:
        cluster.heard(instance_id, 0, await check.look())
        try:
            cluster.heard(instance_id, await watch.highest_epoch())
            cluster.templates_seen(await watch.templates())
        except DeltaError as exc:
            log.warning("the store could not be polled for changed schemas", code=exc.code)
        await asyncio.sleep(TEMPLATE_POLL_S)
