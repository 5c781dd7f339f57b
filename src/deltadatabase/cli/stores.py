"""From the settings of a program with a worker to its open store, and the engine's options."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

from deltadatabase.clock import SystemClock, system_random
from deltadatabase.errors import StartupError, Unavailable
from deltadatabase.limits import SEALED_OVERHEAD_BYTES_MAX
from deltadatabase.settings import S3Flags, Secret
from deltadatabase.settings.programs import StoreFlags
from deltadatabase.storage.base import Store
from deltadatabase.storage.metered import MeteredStore, StoreMeter
from deltadatabase.storage.objects import S3Settings
from deltadatabase.storage.opening import open_store, wait_for_store
from deltadatabase.storage.paths import CLUSTER
from deltadatabase.storage.traced import TracedStore
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.telemetry.tracing import Tracing
from deltadatabase.worker.node import NodeOptions

RETRY_S: Final = 0.5
# Waiting does not change these.
FINAL_CODES: Final = frozenset({"store_denied", "store_bucket_missing"})

log = get_logger(__name__)
clock = SystemClock()


class StorePlace(Protocol):
    """Settings that say where a store is."""

    @property
    def shared_fs(self) -> Path: ...

    @property
    def s3(self) -> S3Flags: ...


class WorkerStorePlace(StorePlace, Protocol):
    """The same, of a program that serves documents."""

    @property
    def grpc_max_recv_msg_size(self) -> int: ...


async def open_configured_store(
    settings: WorkerStorePlace,
    *,
    wait_s: float,
    memory: bool = False,
    journal: bool = False,
    meter: StoreMeter | None = None,
    traces: Tracing | None = None,
) -> Store:
    """Open the configured store, make it where it is missing, and wait until it answers.

    Args:
        settings: where it is.
        wait_s: how long to wait for its first answer, in seconds.
        memory: in this process's memory instead.
        journal: a directory is this program's alone, if nobody else works on it.
        meter: counts its requests from then on; None: nobody does.
        traces: shows them as spans; None: no traces.

    Raises:
        StartupError: it cannot be used, or does not answer in time.
    """
    store = await open_store(
        None if memory else target_of(settings),
        clock=clock,
        random=system_random,
        # What no message could bring or take away is not read.
        object_bytes_max=settings.grpc_max_recv_msg_size + SEALED_OVERHEAD_BYTES_MAX,
        journal=journal,
    )
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
    if traces is not None:
        store = TracedStore(store, traces)
    return store if meter is None else MeteredStore(store, meter, clock)


async def open_existing_store(settings: StorePlace, *, wait_s: float) -> Store:
    """Open a store that is there already; neither a directory nor a bucket is made.

    Raises:
        StartupError: ``store_refused``, ``store_unreachable``.
    """
    if not settings.s3.enabled and not settings.shared_fs.is_dir():
        raise StartupError(
            "there is no such directory: name the database's with -data or -shared-fs, or give the -s3 flags",
            code="store_refused",
        )
    store = await open_store(target_of(settings), clock=clock, random=system_random)
    deadline_s = clock.monotonic_s() + wait_s
    try:
        while True:
            try:
                await store.list(CLUSTER, limit=1)
            except Unavailable as exc:
                if exc.code in FINAL_CODES:
                    hint = "; a worker makes it at its start" if exc.code == "store_bucket_missing" else ""
                    raise StartupError(f"{exc.detail}{hint}", code="store_refused") from exc
                if clock.monotonic_s() + RETRY_S > deadline_s:
                    raise StartupError(
                        f"the store was not reachable within {wait_s:g} s: {exc.detail}",
                        code="store_unreachable",
                    ) from exc
                await asyncio.sleep(RETRY_S)
            else:
                return store
    except BaseException:
        await store.close()
        raise


def target_of(settings: StorePlace) -> S3Settings | Path:
    """Return the bucket or the directory that the settings name."""
    s3 = settings.s3
    if not s3.enabled:
        return settings.shared_fs
    return S3Settings(
        endpoint=s3.endpoint or None,
        bucket=s3.bucket,
        region=s3.region,
        access_key=s3.access_key or Secret(""),
        secret_key=s3.secret_key or Secret(""),
        path_style=s3.path_style,
        allow_http=s3.endpoint.startswith("http://"),
    )


def node_options(settings: StoreFlags) -> NodeOptions:
    """Return the tunable parts of a worker's engine."""
    return NodeOptions(
        cache_bytes=settings.cache_bytes,
        cache_entries=settings.cache_size,
        cache_ttl_s=settings.cache_ttl,
        meta_sidecar=settings.meta_sidecar,
    )
