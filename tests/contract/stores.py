"""The backends, wrappers and fakes that must pass the store contract."""

from __future__ import annotations

from pathlib import Path

from support.fake_store import FakeStore
from support.weed import S3Server

from deltadatabase.clock import SystemClock, system_random
from deltadatabase.limits import OBJECT_BYTES_MAX
from deltadatabase.storage.base import Store
from deltadatabase.storage.journaled import JournaledDirectory
from deltadatabase.storage.metered import MeteredStore, StoreMeter
from deltadatabase.storage.objects import S3Settings
from deltadatabase.storage.opening import open_store, wait_for_store
from deltadatabase.storage.traced import TracedStore
from deltadatabase.telemetry.tracing import Tracing

BACKENDS = ("memory", "fake", "directory", "journaled", "metered", "traced", "s3")
DURABLE = ("directory", "journaled", "s3")


async def open_backend(
    name: str,
    directory: Path,
    server: S3Server | None,
    bucket: str,
    object_bytes_max: int = OBJECT_BYTES_MAX,
) -> Store:
    """Open a backend by name, on its own directory or bucket."""
    if name == "fake":
        return FakeStore(object_bytes_max)
    if name == "journaled":
        return JournaledDirectory(
            directory / "data",
            clock=SystemClock(),
            random=system_random,
            object_bytes_max=object_bytes_max,
        )
    target: Path | S3Settings | None = None
    if name in ("directory", "metered", "traced"):
        target = directory / "data"
    if name == "s3":
        assert server is not None
        target = server.settings(bucket)
    store = await open_store(
        target, clock=SystemClock(), random=system_random, object_bytes_max=object_bytes_max
    )
    await wait_for_store(store, timeout_s=30, clock=SystemClock(), on_wait=lambda reason: None)
    if name == "traced":
        return TracedStore(store, Tracing("http://127.0.0.1:9", program="tests", instance="1", version="1"))
    return MeteredStore(store, StoreMeter(), SystemClock()) if name == "metered" else store
