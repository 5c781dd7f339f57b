"""The composition root of ``main-worker`` and ``deltadb serve``: here implementations are chosen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from prometheus_client.registry import Collector

from deltadatabase import __version__
from deltadatabase.auth import join as joining
from deltadatabase.auth.accounts import Accounts
from deltadatabase.cli import secrets
from deltadatabase.cli.announce import announce_main, announce_serve
from deltadatabase.cli.certificates import Certificates, watched
from deltadatabase.cli.children import LocalWorkers
from deltadatabase.cli.mainkeys import MainKeys
from deltadatabase.cli.running import address_text, clock, node_options, run
from deltadatabase.cli.stores import open_configured_store
from deltadatabase.clock import system_random
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring
from deltadatabase.errors import DeltaError, OutcomeUnknown, Overloaded, StartupError, Unavailable
from deltadatabase.gateway import trial
from deltadatabase.gateway.admission import Admissions
from deltadatabase.gateway.app import GatewayOptions, create_app
from deltadatabase.gateway.asgi import ASGIApp
from deltadatabase.gateway.control import ControlPlane
from deltadatabase.gateway.following import Following
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.keys import Keys
from deltadatabase.gateway.members import Cluster, MemberLink
from deltadatabase.gateway.metrics import FeedMetrics, GatewayMetrics, RotationMetrics
from deltadatabase.gateway.process import ROUTE, ClientCalls, authorization_of
from deltadatabase.gateway.rotation import Phase, Progress, Rotation
from deltadatabase.gateway.server import RestServer
from deltadatabase.gateway.state import ClusterState
from deltadatabase.gateway.traced import traced
from deltadatabase.gateway.used_keys import FILE as USED_KEYS_FILE
from deltadatabase.gateway.used_keys import UsedKeys
from deltadatabase.limits import (
    CLIENT_MESSAGE_OVERHEAD_BYTES,
    CLIENT_STREAMS_MAX,
    CONTROL_MESSAGE_BYTES_MIN,
    HEARTBEAT_INTERVAL_S,
    LAST_USED_SAVED_S,
    TEMPLATE_POLL_S,
    WATCHERS_MAX,
    WATCHERS_OF_ONE_MAX,
)
from deltadatabase.model import MemberInfo, MemberState, StoreReport
from deltadatabase.rpc import channels
from deltadatabase.rpc.doorkeeper import Doorkeeper
from deltadatabase.rpc.doorway import Doorway, Places, places_for
from deltadatabase.rpc.link import Handler
from deltadatabase.rpc.local import LocalLink
from deltadatabase.rpc.stream import WorkerStream
from deltadatabase.rpc.traced import TracedHandler, TracedLink
from deltadatabase.settings import (
    Address,
    MainSettings,
    RouterFlags,
    ServeSettings,
)
from deltadatabase.storage.base import Store
from deltadatabase.telemetry.audit import Action, Audit, Outcome
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.telemetry.metrics import ProgramMetrics, metrics
from deltadatabase.telemetry.tracing import Tracing, tracing
from deltadatabase.worker.metrics import WorkerMetrics
from deltadatabase.worker.node import Node
from deltadatabase.worker.opening import examine, refresh
from deltadatabase.worker.presence import Presence, PresentLease
from deltadatabase.worker.store_check import StoreCheck
from deltadatabase.worker.watching import StoreWatch

PROCESS: Final = f"/{channels.MAIN_WORKER_SERVICE}/Process"
SUBSCRIBE: Final = f"/{channels.MAIN_WORKER_SERVICE}/Subscribe"
EMBEDDED_ID: Final = "embedded"
EXAMINE_AGAIN_S: Final = 0.5
REST_SHARE: Final = 0.6
"""Part of the drain timeout that the requests in flight may take."""

log = get_logger(__name__)


def run_main(settings: MainSettings) -> int:
    """Run ``main-worker`` until SIGTERM or SIGINT; return its exit code. Raises StartupError."""
    return run(lambda stop: _main(settings, stop))


def run_serve(settings: ServeSettings) -> int:
    """Run ``deltadb serve`` until SIGTERM or SIGINT; return its exit code. Raises StartupError."""
    return run(lambda stop: _serve(settings, stop))


# -- programs --------------------------------------------------------------------------


async def _main(settings: MainSettings, stop: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        main = await stack.enter_async_context(_main_worker(settings))
        grpc_port = await stack.enter_async_context(main.control_plane(settings.grpc_addr))
        rest = await stack.enter_async_context(main.rest())
        announce_main(settings, rest_port=rest.port, grpc_port=grpc_port, made=main.made)
        await stop.wait()
        log.info("main worker ends")


async def _serve(settings: ServeSettings, stop: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        main = await stack.enter_async_context(_main_worker(settings))
        workers: LocalWorkers | None = None
        if settings.workers:
            address = settings.grpc_addr or Address("127.0.0.1", 0)
            grpc_port = await stack.enter_async_context(main.control_plane(address))
            workers = LocalWorkers(settings, grpc_port, os.environ)  # noqa: TID251 - handed on, not read
            await stack.enter_async_context(workers.running())
        # REST is up first, so that /readyz tells what is being waited for; it also ends first.
        rest = await stack.enter_async_context(main.rest())
        lost = asyncio.Event()
        if workers is None and not await _entered(_embedded(settings, main, lost), stack, stop):
            return
        if workers is not None and not await _first_member(main.cluster, workers, stop):
            return
        announce_serve(settings, rest_port=rest.port, made=main.made)
        await _until(stop, lost, *([workers.refused] if workers is not None else []))
        _check_refused(workers)
        if lost.is_set():
            raise StartupError(
                "this server was cut off from its store for so long that a scrub works on it offline: start "
                "it again when the scrub has ended",
                code="store_refused",
            )
        await rest.stop(settings.drain_timeout * REST_SHARE)
        log.info("server ends")


async def _entered(
    engine: AbstractAsyncContextManager[None], stack: AsyncExitStack, stop: asyncio.Event
) -> bool:
    """Enter ``engine``; False when the wish to end came first."""
    entering = asyncio.create_task(stack.enter_async_context(engine))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({entering, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if entering.done():
        entering.result()
        return True
    entering.cancel()
    await asyncio.gather(entering, return_exceptions=True)
    return False


async def _first_member(cluster: Cluster, workers: LocalWorkers, stop: asyncio.Event) -> bool:
    """Wait until data is served; False when the wish to end came first. Raises StartupError."""
    while not all(check.passed for check in cluster.readiness()):
        if stop.is_set():
            return False
        _check_refused(workers)
        await asyncio.sleep(0.05)
    return True


def _check_refused(workers: LocalWorkers | None) -> None:
    if workers is not None and workers.refused.is_set():
        reason = "a proc worker refused to start; its own line above says why"
        raise StartupError(reason, code="store_refused")


async def _until(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


# -- the main worker -------------------------------------------------------------------


class MainWorker:
    """The parts of a main worker, for the programs to start in their own order."""

    def __init__(
        self,
        settings: RouterFlags,
        *,
        state: ClusterState,
        accounts: Accounts,
        master_keys: MainKeys,
        made: secrets.Made,
        audit: Audit,
        certificates: Certificates | None,
        traces: Tracing | None,
        used_keys: UsedKeys,
    ) -> None:
        self.settings = settings
        self.used_keys = used_keys
        self.audit = audit
        self.certificates = certificates
        self.tls = certificates.tls if certificates else None
        self.keys = Keys(master_keys.keyring(), settings.key_id)
        self.made = made
        self.accounts = accounts
        self.router = Router(
            clock=clock, random=system_random, document_bytes_max=settings.rest_max_body_size
        )
        self.cluster = Cluster(self.router, state, clock=clock, random=system_random, keys=self.keys)
        self.rotation = Rotation(
            self.keys,
            self.cluster,
            self.router,
            state.folder,
            master_keys,
            clock=clock,
            on_event=self._rotation_step,
        )
        self.following = Following(
            self.router,
            self.router,
            lambda: self.cluster.database_id,
            clock=clock,
            random=system_random,
        )
        self.router.observer = self.following
        self.instance_id = system_random(8).hex()
        wanted = settings.metrics_addr is not None
        embedded = isinstance(settings, ServeSettings) and not settings.workers
        self.metrics = GatewayMetrics(self.router, self.cluster, clock=clock) if wanted else None
        self.worker_metrics = WorkerMetrics(clock) if wanted and embedded else None
        self.traces = traces

    def collectors(self) -> list[Collector]:
        """What ``-metrics-addr`` serves."""
        program = "serve" if isinstance(self.settings, ServeSettings) else "main-worker"
        own = self.certificates
        found: list[Collector] = [
            ProgramMetrics(
                program, self.audit.counts, (lambda: own.current().not_after_ms) if own is not None else None
            ),
            RotationMetrics(self.rotation),
            FeedMetrics(self.following),
        ]
        return found + [one for one in (self.metrics, self.worker_metrics) if one is not None]

    def embedded_link(self, node: Node) -> MemberLink:
        """The way to the worker in this process."""
        handler: Handler = node if self.worker_metrics is None else self.worker_metrics.metered(node)
        if self.traces is None:
            return LocalLink(handler)
        return TracedLink(LocalLink(TracedHandler(handler, self.traces)), self.traces)

    def _rotation_step(self, step: str, progress: Progress) -> None:
        self.audit.event(
            Action.KEYS_ROTATED,
            Outcome.FAILED if progress.phase is Phase.BLOCKED else Outcome.OK,
            step=step,
            key_id=progress.to_key,
            objects=progress.checked,
            retired=list(progress.retired) or None,
        )

    def _call_refused(self, method: str, peer: str, error: DeltaError) -> None:
        self.audit.event(Action.REQUEST_REFUSED, Outcome.REFUSED, address=peer, route=ROUTE, code=error.code)

    @asynccontextmanager
    async def control_plane(self, address: Address) -> AsyncIterator[int]:
        """Serve gRPC on ``address``; gives the port."""
        settings = self.settings
        received_bytes_max = max(
            settings.rest_max_body_size + CLIENT_MESSAGE_OVERHEAD_BYTES, CONTROL_MESSAGE_BYTES_MIN
        )
        server = channels.new_server(
            message_bytes_max=settings.grpc_max_recv_msg_size,
            received_bytes_max=received_bytes_max,
            streams_max=CLIENT_STREAMS_MAX,
            read_ahead=False,
            interceptors=[
                Doorkeeper(
                    Places(WATCHERS_MAX, WATCHERS_OF_ONE_MAX),
                    own=[SUBSCRIBE],
                    # Uncounted: the call itself is counted when it is served.
                    checked={PROCESS: lambda given: self.accounts.confirm(authorization_of(given))},
                    on_refused=self._call_refused,
                )
            ],
        )
        port = channels.listen(server, address_text(address), tls=self.tls)
        process = ClientCalls(
            self.router,
            self.accounts,
            document_bytes_max=settings.rest_max_body_size,
            audit=self.audit,
        )
        control = ControlPlane(
            self.cluster,
            Admissions(
                self.keys,
                secrets.join_policy(settings),
                random=system_random,
                instance_id=self.instance_id,
                ttl_s=settings.worker_ttl,
            ),
            dial=self._dial,
            process=self.metrics.calls.around(process) if self.metrics else process,
            clock=clock,
            random=system_random,
            audit=self.audit,
            doorway=Doorway(places_for(received_bytes_max)),
        )
        control.serve_on(server)
        await channels.add_health_and_reflection(server, [channels.MAIN_WORKER_SERVICE])
        await server.start()
        try:
            yield port
        finally:
            # Streams that end by themselves; gRPC writes a stack trace for each that it has to cancel.
            await self.cluster.close()
            await server.stop(grace=0.2)

    @asynccontextmanager
    async def rest(self) -> AsyncIterator[RestServer]:
        """Serve REST. Ends when the requests in flight are answered."""
        settings = self.settings
        app = create_app(
            self.router,
            self.router,
            self.router,
            self.cluster,
            self.rotation,
            self.accounts,
            GatewayOptions(
                version=__version__,
                body_bytes_max=settings.rest_max_body_size,
                public_schemas=settings.public_schemas,
                dev_mode=settings.dev,
                trusted_proxies=settings.trusted_proxies,
            ),
            clock=clock,
            random=system_random,
            audit=self.audit,
            following=self.following,
            used_keys=self.used_keys,
            around=self._observed,
        )
        server = RestServer(
            app,
            settings.rest_addr.host,
            settings.rest_addr.port,
            tls=self.certificates.current() if self.certificates else None,
            on_stop=self.following.log.close,
        )
        if self.certificates is not None:
            self.certificates.on_change(server.renew)
        await server.start()
        try:
            yield server
        finally:
            await server.stop(settings.drain_timeout * REST_SHARE)

    def _observed(self, app: ASGIApp) -> ASGIApp:
        if self.metrics is not None:
            app = self.metrics.requests.around(app)
        return app if self.traces is None else traced(app, self.traces)

    async def _dial(
        self, address: str, link_key: bytes, instance_id: str, message_bytes_max: int
    ) -> MemberLink:
        link = await WorkerStream.open(
            address,
            prove=lambda role, main, worker: joining.link_proof(link_key, _role(role), main, worker),
            verify=lambda role, main, worker, proof: joining.verify_link(
                link_key, _role(role), main, worker, proof
            ),
            random=system_random,
            main_instance_id=self.instance_id,
            expected_worker_instance_id=instance_id,
            tls=self.tls,
            # What either end accepts: a message past it would break the stream.
            message_bytes_max=min(message_bytes_max, self.settings.grpc_max_recv_msg_size),
            on_batch=self.metrics.batches.observe if self.metrics else None,
        )
        return link if self.traces is None else TracedLink(link, self.traces)


@asynccontextmanager
async def _main_worker(settings: RouterFlags) -> AsyncIterator[MainWorker]:
    async with (
        watched(settings.tls, clock=clock, try_out=trial.accepts) as certificates,
        _stateful(settings, certificates) as main,
    ):
        with metrics(settings.metrics_addr, *main.collectors()):
            yield main


@asynccontextmanager
async def _stateful(settings: RouterFlags, certificates: Certificates | None) -> AsyncIterator[MainWorker]:
    program = "serve" if isinstance(settings, ServeSettings) else "main-worker"
    with tracing(
        settings.otlp_endpoint, program=program, instance=system_random(8).hex(), version=__version__
    ) as traces:
        async with _parts(settings, certificates, traces) as main:
            yield main


@asynccontextmanager
async def _parts(
    settings: RouterFlags, certificates: Certificates | None, traces: Tracing | None
) -> AsyncIterator[MainWorker]:
    state = ClusterState(settings.state_path)
    try:
        master_keys, admin_key, made = secrets.main_secrets(settings)
        audit = Audit(clock, settings.audit_log)
        accounts = Accounts(
            settings.state_path / "accounts.db",
            clock=clock,
            random=system_random,
            admin_key=admin_key,
            client_ttl_s=settings.client_ttl,
            dev_mode=settings.dev,
        )
        used_keys = None
        try:
            # What is known of a database in memory ends with it.
            in_memory = isinstance(settings, ServeSettings) and settings.memory
            used_keys = UsedKeys(None if in_memory else settings.state_path / USED_KEYS_FILE)
            main = MainWorker(
                settings,
                state=state,
                accounts=accounts,
                master_keys=master_keys,
                made=made,
                audit=audit,
                certificates=certificates,
                traces=traces,
                used_keys=used_keys,
            )
            watching = asyncio.create_task(main.cluster.watch())
            noting = asyncio.create_task(_keep_last_used(accounts))
            main.rotation.resume()
            try:
                yield main
            finally:
                await main.following.close()
                await main.rotation.close()
                watching.cancel()
                noting.cancel()
                await asyncio.gather(watching, noting, return_exceptions=True)
                await main.cluster.close()
        finally:
            if used_keys is not None:
                used_keys.close()
            accounts.close()
            audit.close()
    finally:
        state.close()


async def _keep_last_used(accounts: Accounts) -> None:
    while True:
        await asyncio.sleep(LAST_USED_SAVED_S)
        try:
            await asyncio.to_thread(accounts.save_last_used)
        except DeltaError as exc:
            log.warning("the last use of keys could not be written; trying again", code=exc.code)


# -- the embedded worker ---------------------------------------------------------------


class _AlwaysHolds:
    """The lease of a worker in the router's own process: nothing can come between the two."""

    membership = 0

    def holds(self) -> bool:
        return True


@asynccontextmanager
async def _embedded(settings: ServeSettings, main: MainWorker, lost: asyncio.Event) -> AsyncIterator[None]:
    """Work as long as this is entered; ``lost`` is set when the store is not this server's any more."""
    counted = main.worker_metrics
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
            main.embedded_link(node),
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


def _role(role: str) -> joining.Role:
    return "main" if role == "main" else "worker"
