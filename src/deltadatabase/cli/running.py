"""What every server program does alike: run until a signal, and turn settings into components."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final

import uvloop

from deltadatabase.clock import SystemClock, system_random
from deltadatabase.rpc.channels import Tls
from deltadatabase.settings import Address, ProcessFlags, Secret
from deltadatabase.settings.programs import StoreFlags
from deltadatabase.storage.base import Store
from deltadatabase.storage.objects import S3Settings
from deltadatabase.storage.opening import open_store, wait_for_store
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.worker.node import NodeOptions

GC_THRESHOLDS: Final = (10_000, 20, 50)

log = get_logger(__name__)
clock = SystemClock()


def run(program: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> int:
    """Run a program until it ends by itself or SIGTERM or SIGINT sets its event; return 0.

    Raises:
        StartupError: the program's own.
    """

    async def main() -> None:
        _spare_the_collector()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await program(stop)

    uvloop.run(main())
    return 0


async def open_configured_store(settings: ProcessFlags, *, wait_s: float, memory: bool = False) -> Store:
    """Open the configured store and wait until it answers. Raises StartupError."""
    s3 = settings.s3
    where: S3Settings | Path | None = None if memory else settings.shared_fs
    if s3.enabled:
        where = S3Settings(
            endpoint=s3.endpoint or None,
            bucket=s3.bucket,
            region=s3.region,
            access_key=s3.access_key or Secret(""),
            secret_key=s3.secret_key or Secret(""),
            path_style=s3.path_style,
            allow_http=s3.endpoint.startswith("http://"),
        )
    store = await open_store(where, clock=clock, random=system_random)
    try:
        await wait_for_store(
            store,
            timeout_s=wait_s,
            clock=clock,
            on_wait=lambda exc: log.warning(
                "the store does not answer yet", code=exc.code, detail=exc.detail
            ),
        )
    except BaseException:
        await store.close()
        raise
    return store


def _spare_the_collector() -> None:
    """Keep the garbage collector from walking over what lives as long as the process.

    Requests make few cycles; with the defaults a noticeable part of each request's time went into
    looking at modules and caches again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def node_options(settings: StoreFlags) -> NodeOptions:
    """Return the tunable parts of a worker's engine."""
    return NodeOptions(
        cache_bytes=settings.cache_bytes,
        cache_entries=settings.cache_size,
        cache_ttl_s=settings.cache_ttl,
        meta_sidecar=settings.meta_sidecar,
    )


def tls_of(settings: ProcessFlags) -> Tls | None:
    """Return the certificates of a program; None where it has none."""
    tls = settings.tls
    if not (tls.cert or tls.ca):
        return None
    return Tls(cert_path=str(tls.cert or ""), key_path=str(tls.key or ""), ca_path=str(tls.ca or ""))


def address_text(address: Address) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
