"""The composition root of ``deltadb serve``: a main worker with proc workers beside it, or one in it."""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from deltadatabase.cli.announce import announce_serve
from deltadatabase.cli.children import LocalWorkers
from deltadatabase.cli.embedded import embedded
from deltadatabase.cli.main_worker import REST_SHARE, Program, main_worker
from deltadatabase.cli.running import clock, run
from deltadatabase.errors import StartupError
from deltadatabase.gateway.members import Cluster
from deltadatabase.settings import Address, ServeSettings
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.worker.metrics import WorkerMetrics

log = get_logger(__name__)


def run_serve(settings: ServeSettings) -> int:
    """Run ``deltadb serve`` until SIGTERM or SIGINT; return its exit code. Raises StartupError."""
    return run(lambda stop: _serve(settings, stop))


async def _serve(settings: ServeSettings, stop: asyncio.Event) -> None:
    async with AsyncExitStack() as stack:
        counted = WorkerMetrics(clock) if settings.metrics_addr is not None and not settings.workers else None
        program = Program(name="serve", in_memory=settings.memory, worker_metrics=counted)
        main = await stack.enter_async_context(main_worker(settings, program))
        workers: LocalWorkers | None = None
        if settings.workers:
            address = settings.grpc_addr or Address("127.0.0.1", 0)
            grpc_port = await stack.enter_async_context(main.control_plane(address))
            workers = LocalWorkers(settings, grpc_port, os.environ)  # noqa: TID251 - handed on, not read
            await stack.enter_async_context(workers.running())
        # REST is up first, so that /readyz tells what is being waited for; it also ends first.
        rest = await stack.enter_async_context(main.rest())
        lost = asyncio.Event()
        if workers is None and not await _entered(embedded(settings, main, counted, lost), stack, stop):
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
