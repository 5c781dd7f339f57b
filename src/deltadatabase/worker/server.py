"""The proc worker as a program: serve the stream, join, join again, drain, end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from deltadatabase.auth.join import JoinToken
from deltadatabase.clock import Clock, Random
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring
from deltadatabase.errors import DeltaError, StartupError, Unavailable
from deltadatabase.limits import (
    GRPC_MESSAGE_BYTES_MAX_DEFAULT,
    REJOIN_DELAY_S,
    WORKER_WATCHERS_MAX,
    WORKER_WATCHERS_OF_ONE_MAX,
)
from deltadatabase.model import Command, Result, StoreReport
from deltadatabase.rpc import channels
from deltadatabase.rpc.channels import Health, Tls
from deltadatabase.rpc.connections import ConnectionGuard, connections_max
from deltadatabase.rpc.doorkeeper import Doorkeeper
from deltadatabase.rpc.doorway import Places
from deltadatabase.rpc.exchange import ExchangeService
from deltadatabase.rpc.link import Handler
from deltadatabase.rpc.traced import TracedHandler
from deltadatabase.storage.base import Store
from deltadatabase.telemetry.audit import Action, Audit, Outcome
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.telemetry.tracing import Tracing
from deltadatabase.worker.asking import Applicant
from deltadatabase.worker.membership import (
    Checked,
    Identity,
    MembershipClient,
    MembershipLease,
    Polled,
)
from deltadatabase.worker.metrics import WorkerMetrics
from deltadatabase.worker.node import Node, NodeOptions
from deltadatabase.worker.opening import examine, refresh
from deltadatabase.worker.presence import Presence, PresentLease
from deltadatabase.worker.store_check import StoreCheck
from deltadatabase.worker.watching import StoreWatch

SAY_AGAIN_S: Final = 10.0
EXCHANGE: Final = f"/{channels.PROC_WORKER_SERVICE}/Exchange"

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """How one proc worker runs.

    Attributes:
        main_addr: the main worker's control plane, ``host:port``.
        worker_id: name of this worker, the same after a restart.
        grpc_addr: where the data service listens; port 0 takes a free one.
        advertise_addr: what the main worker is told instead; "" tells it ``grpc_addr``.
        backend: ``s3`` or ``directory``.
        token: looks the join token up.
        trusts_unproven: see ``Applicant``.
        version: of this program.
        node: tunable parts of the engine.
        drain_timeout_s: longest time from the wish to end until the end.
        tls: certificates; None: plain text.
        message_bytes_max: largest gRPC message.
    """

    main_addr: str
    worker_id: str
    grpc_addr: str
    advertise_addr: str
    backend: str
    token: Callable[[], JoinToken | None]
    trusts_unproven: bool
    version: str
    node: NodeOptions
    drain_timeout_s: float
    tls: Tls | None = None
    message_bytes_max: int = GRPC_MESSAGE_BYTES_MAX_DEFAULT


class WorkerServer:
    """One proc worker.

    Args:
        options: how it runs.
        open_store: opens the store, waiting for it as long as configured. Raises StartupError.
        clock, random: time and randomness.
        audit: hears of damaged entities; None: they are in the log only.
        metrics: counts what is done; None: nobody asks.
        traces: shows each command as a span; None: no traces.
    """

    def __init__(
        self,
        options: WorkerOptions,
        open_store: Callable[[], Awaitable[Store]],
        *,
        clock: Clock,
        random: Random,
        audit: Audit | None = None,
        metrics: WorkerMetrics | None = None,
        traces: Tracing | None = None,
    ) -> None:
        self._metrics = metrics
        self._traces = traces
        self._audit = audit
        self._options = options
        self._open_store = open_store
        self._clock = clock
        self._random = random
        self._identity = Identity()
        self._lease = MembershipLease(clock)
        if metrics is not None:
            metrics.membership = lambda: (self._lease.holds(), self._lease.membership)
        self._store: Store | None = None
        self._node: Node | None = None
        self._sealer: Sealer | None = None
        self._presence: Presence | None = None
        self._store_open = asyncio.Event()
        self._key_missing: Callable[[], None] = lambda: None
        self._showing: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, then drain.

        Raises:
            StartupError: it cannot serve, or was told never to come back.
        """
        options = self._options
        server = channels.new_server(
            message_bytes_max=options.message_bytes_max,
            # Its messages are large, so few callers without a proof may send one: health probes do.
            interceptors=[
                Doorkeeper(Places(WORKER_WATCHERS_MAX, WORKER_WATCHERS_OF_ONE_MAX), own=[EXCHANGE])
            ],
        )
        port = channels.listen(server, options.grpc_addr, tls=options.tls)
        exchange = ExchangeService(
            self._handler(),
            prove=self._identity.prove,
            verify=self._identity.verify,
            random=self._random,
            instance_id=lambda: self._identity.instance_id,
            message_bytes_max=options.message_bytes_max,
            on_refused=self._refused,
            on_batch=None if self._metrics is None else self._metrics.replies.observe,
        )
        exchange.register(server)
        # Readiness probes ask for the service: between two memberships no command comes here.
        health = await channels.add_health_and_reflection(
            server, [channels.PROC_WORKER_SERVICE], serving=False
        )
        await server.start()
        guard = ConnectionGuard(connections_max())
        guard.start()
        host = options.grpc_addr.rpartition(":")[0]
        log.info("worker listens", worker_id=options.worker_id, grpc_addr=f"{host}:{port}")
        client = MembershipClient(
            Applicant(
                worker_id=options.worker_id,
                grpc_addr=options.advertise_addr or f"{host}:{port}",
                backend=options.backend,
                token=options.token,
                trusts_unproven=options.trusts_unproven,
                version=options.version,
                message_bytes_max=options.message_bytes_max,
            ),
            self._identity,
            self._lease,
            self._opened,
            self._rekeyed,
            on_member=lambda: self._serves(health),
            clock=self._clock,
            random=self._random,
        )
        self._key_missing = client.renew_now
        joining = asyncio.create_task(self._keep_joining(client, health))
        stopping = asyncio.create_task(stop.wait())
        marking = asyncio.create_task(self._keep_present())
        try:
            await asyncio.wait({joining, stopping, marking}, return_when=asyncio.FIRST_COMPLETED)
            if joining.done():
                joining.result()
            if marking.done():
                marking.result()
            log.info("worker drains", worker_id=options.worker_id)
            await health.stop()
            deadline = self._clock.monotonic_s() + options.drain_timeout_s
            await client.drain(options.drain_timeout_s * 0.6)
            if self._node is not None:
                await self._node.settle(max(0.1, (deadline - self._clock.monotonic_s()) / 3))
        finally:
            for task in (joining, stopping, marking):
                task.cancel()
            await asyncio.gather(joining, stopping, marking, return_exceptions=True)
            guard.stop()
            await exchange.close()
            await server.stop(grace=0.2)
            if self._store is not None:
                await self._store.close()
        log.info("worker ended", worker_id=options.worker_id)

    def _refused(self, peer: str) -> None:
        if self._audit is not None:
            self._audit.event(
                Action.REQUEST_REFUSED,
                Outcome.REFUSED,
                address=peer,
                route="ProcWorker.Exchange",
                code="unauthenticated",
            )

    def _handler(self) -> Handler:
        """This worker, as commands reach it."""
        handler: Handler = self if self._metrics is None else self._metrics.metered(self)
        return handler if self._traces is None else TracedHandler(handler, self._traces)

    # -- Handler -----------------------------------------------------------------------

    def fast(self, command: Command) -> Result | None:
        """Answer a cached read without a wait. See ``Node.fast``."""
        if self._node is None:
            raise _not_serving()
        return self._node.fast(command)

    async def execute(self, command: Command) -> Result:
        """Execute any command. See ``Node.execute``."""
        if self._node is None:
            raise _not_serving()
        return await self._node.execute(command)

    # -- joining -----------------------------------------------------------------------

    async def _keep_present(self) -> NoReturn:
        """Renew the sign of life from the first opening of the store on. Raises StartupError."""
        await self._store_open.wait()
        assert self._presence is not None
        await self._presence.keep()

    def _serves(self, health: Health) -> None:
        log.info("worker serves", worker_id=self._options.worker_id)
        self._showing = asyncio.create_task(health.show(channels.PROC_WORKER_SERVICE, serving=True))

    async def _keep_joining(self, client: MembershipClient, health: Health) -> None:
        said: tuple[str, float] | None = None
        while True:
            channel = channels.open_channel(
                self._options.main_addr,
                tls=self._options.tls,
                message_bytes_max=self._options.message_bytes_max,
            )
            try:
                await client.stay(channel)
            except StartupError:
                raise
            except DeltaError as exc:
                # Once for each new reason, and now and then while it lasts.
                now_s = self._clock.monotonic_s()
                if said is None or said[0] != exc.code or now_s - said[1] > SAY_AGAIN_S:
                    log.warning("not a member; joining again", code=exc.code, detail=exc.detail)
                    said = (exc.code, now_s)
            finally:
                await channel.close(None)
            await health.show(channels.PROC_WORKER_SERVICE, serving=False)
            await asyncio.sleep(REJOIN_DELAY_S)

    async def _opened(self, keyring: Keyring) -> tuple[StoreReport, Polled, Checked]:
        """Open the store at the first join; at later ones make sure that the keys still fit."""
        if self._node is None:
            if self._store is None:
                self._store = await self._open_store()
            if self._presence is None:
                self._presence = Presence(
                    self._store, self._options.worker_id, clock=self._clock, random=self._random
                )
            report = await examine(self._store, keyring, self._presence, random=self._random)
            self._sealer = self._usable(keyring, report)
            self._node = Node(
                self._store,
                self._current_sealer,
                report,
                clock=self._clock,
                lease=PresentLease(self._lease, self._presence),
                options=self._options.node,
                audit=self._audit,
                key_missing=lambda: self._key_missing(),
            )
            if self._metrics is not None:
                self._metrics.watch(self._node)
            self._store_open.set()
        else:
            assert self._store is not None
            report = await self._refreshed(self._node, keyring)
        return (
            report,
            StoreWatch(self._store, self._node.templates),
            StoreCheck(self._store, report.database.database_id),
        )

    async def _rekeyed(self, keyring: Keyring) -> None:
        """Work with other keys from now on. What is under way may still be sealed with the former ones."""
        assert self._node is not None
        await self._refreshed(self._node, keyring)
        log.info("the keyring was taken over", key_id=keyring.primary.key_id.hex(), keys=len(keyring.ids))

    async def _refreshed(self, node: Node, keyring: Keyring) -> StoreReport:
        """Seal with these keys once the open store's database knows them."""
        assert self._store is not None and self._presence is not None
        report = await refresh(self._store, keyring, self._presence, node.report, random=self._random)
        self._sealer = self._usable(keyring, report)
        return report

    def _usable(self, keyring: Keyring, report: StoreReport) -> Sealer:
        """Open nothing with a retired key: whoever saw it could forge what it seals."""
        return Sealer(keyring.without(report.database.retired_keys), self._random)

    def _current_sealer(self) -> Sealer:
        assert self._sealer is not None
        return self._sealer


def _not_serving() -> Unavailable:
    return Unavailable("the worker has not opened its store yet", code="link_down")
