"""The composition root of ``proc-worker``; apart, so that a worker does not load the REST side."""

from __future__ import annotations

import asyncio

from deltadatabase import __version__
from deltadatabase.cli import certificates, secrets
from deltadatabase.cli.running import address_text, clock, run
from deltadatabase.cli.stores import node_options, open_configured_store
from deltadatabase.clock import system_random
from deltadatabase.rpc.channels import Tls
from deltadatabase.settings import WorkerSettings
from deltadatabase.telemetry.audit import Audit
from deltadatabase.telemetry.metrics import ProgramMetrics, metrics
from deltadatabase.telemetry.tracing import Tracing, tracing
from deltadatabase.worker.metrics import WorkerMetrics
from deltadatabase.worker.server import WorkerOptions, WorkerServer


def run_worker(settings: WorkerSettings) -> int:
    """Run ``proc-worker`` until SIGTERM or SIGINT; return its exit code. Raises StartupError."""
    return run(lambda stop: _worker(settings, stop))


async def _worker(settings: WorkerSettings, stop: asyncio.Event) -> None:
    secrets.worker_join_token(settings)  # An unusable one is better found now than at the first join.
    audit = Audit(clock, settings.audit_log)
    try:
        async with certificates.watched(settings.tls, clock=clock) as own:
            counted = WorkerMetrics(clock) if settings.metrics_addr else None
            told = ProgramMetrics(
                "proc-worker", audit.counts, (lambda: own.current().not_after_ms) if own else None
            )
            with (
                metrics(settings.metrics_addr, told, *([counted] if counted else [])),
                tracing(
                    settings.otlp_endpoint,
                    program="proc-worker",
                    instance=settings.worker_id,
                    version=__version__,
                ) as traces,
            ):
                await _server(settings, own.tls if own else None, audit, counted, traces).run(stop)
    finally:
        audit.close()


def _server(
    settings: WorkerSettings,
    tls: Tls | None,
    audit: Audit,
    counted: WorkerMetrics | None,
    traces: Tracing | None,
) -> WorkerServer:
    return WorkerServer(
        WorkerOptions(
            main_addr=address_text(settings.main_addr),
            worker_id=settings.worker_id,
            grpc_addr=address_text(settings.grpc_addr),
            advertise_addr=address_text(settings.advertise_addr) if settings.advertise_addr else "",
            backend="s3" if settings.s3.enabled else "directory",
            token=lambda: secrets.worker_join_token(settings),
            trusts_unproven=settings.main_addr.is_loopback and settings.join_token is None,
            version=__version__,
            node=node_options(settings),
            drain_timeout_s=settings.drain_timeout,
            tls=tls,
            message_bytes_max=settings.grpc_max_recv_msg_size,
        ),
        lambda: open_configured_store(
            settings,
            wait_s=settings.store_wait,
            meter=counted.store if counted else None,
            traces=traces,
        ),
        clock=clock,
        random=system_random,
        audit=audit,
        metrics=counted,
        traces=traces,
    )
