"""The composition root of ``main-worker``, and of what ``deltadb serve`` has of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from prometheus_client.registry import Collector

from deltadatabase import __version__
from deltadatabase.auth import join as joining
from deltadatabase.auth.accounts import Accounts
from deltadatabase.cli import secrets
from deltadatabase.cli.announce import announce_main
from deltadatabase.cli.certificates import Certificates, watched
from deltadatabase.cli.mainkeys import MainKeys
from deltadatabase.cli.running import address_text, clock, run
from deltadatabase.clock import system_random
from deltadatabase.errors import DeltaError
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
    LAST_USED_SAVED_S,
    WATCHERS_MAX,
    WATCHERS_OF_ONE_MAX,
)
from deltadatabase.rpc import channels
from deltadatabase.rpc.doorkeeper import Doorkeeper
from deltadatabase.rpc.doorway import Doorway, Places, places_for
from deltadatabase.rpc.stream import WorkerStream
from deltadatabase.rpc.traced import TracedLink
from deltadatabase.settings import Address, MainSettings, RouterFlags
from deltadatabase.telemetry.audit import Action, Audit, Outcome
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.telemetry.metrics import ProgramMetrics, metrics
from deltadatabase.telemetry.tracing import Tracing, tracing

PROCESS: Final = f"/{channels.MAIN_WORKER_SERVICE}/Process"
SUBSCRIBE: Final = f"/{channels.MAIN_WORKER_SERVICE}/Subscribe"
REST_SHARE: Final = 0.6
"""Part of the drain timeout that the requests in flight may take."""

log = get_logger(__name__)


def run_main(settings: MainSettings) -> int:
    """Run ``main-worker`` until SIGTERM or SIGINT; return its exit code. Raises StartupError."""
    return run(lambda stop: _main(settings, stop))


async def _main(settings: MainSettings, stop: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        main = await stack.enter_async_context(main_worker(settings, Program(name="main-worker")))
        grpc_port = await stack.enter_async_context(main.control_plane(settings.grpc_addr))
        rest = await stack.enter_async_context(main.rest())
        announce_main(settings, rest_port=rest.port, grpc_port=grpc_port, made=main.made)
        await stop.wait()
        log.info("main worker ends")


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """Which program a main worker is part of.

    Attributes:
        name: of the program.
        in_memory: its database ends with it.
        worker_metrics: what the worker in the same process counts.
    """

    name: str
    in_memory: bool = False
    worker_metrics: Collector | None = None


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
        program: Program,
    ) -> None:
        self.program = program
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
        self.metrics = GatewayMetrics(self.router, self.cluster, clock=clock) if wanted else None
        self.traces = traces

    def collectors(self) -> list[Collector]:
        """What ``-metrics-addr`` serves."""
        own = self.certificates
        found: list[Collector] = [
            ProgramMetrics(
                self.program.name,
                self.audit.counts,
                (lambda: own.current().not_after_ms) if own is not None else None,
            ),
            RotationMetrics(self.rotation),
            FeedMetrics(self.following),
        ]
        return found + [one for one in (self.metrics, self.program.worker_metrics) if one is not None]

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
async def main_worker(settings: RouterFlags, program: Program) -> AsyncIterator[MainWorker]:
    """Everything but what listens; it listens when its parts are entered. Raises StartupError."""
    async with (
        watched(settings.tls, clock=clock, try_out=trial.accepts) as certificates,
        _stateful(settings, program, certificates) as main,
    ):
        with metrics(settings.metrics_addr, *main.collectors()):
            yield main


@asynccontextmanager
async def _stateful(
    settings: RouterFlags, program: Program, certificates: Certificates | None
) -> AsyncIterator[MainWorker]:
    with tracing(
        settings.otlp_endpoint, program=program.name, instance=system_random(8).hex(), version=__version__
    ) as traces:
        async with _parts(settings, program, certificates, traces) as main:
            yield main


@asynccontextmanager
async def _parts(
    settings: RouterFlags, program: Program, certificates: Certificates | None, traces: Tracing | None
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
            used_keys = UsedKeys(None if program.in_memory else settings.state_path / USED_KEYS_FILE)
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
                program=program,
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


def _role(role: str) -> joining.Role:
    return "main" if role == "main" else "worker"
