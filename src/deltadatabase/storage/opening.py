"""From settings to an open store, and waiting until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from deltadatabase import limits
from deltadatabase.clock import Clock, Random
from deltadatabase.errors import DeltaError, OutcomeUnknown, StartupError, Unavailable
from deltadatabase.storage.base import Store
from deltadatabase.storage.bucket import ensure_bucket
from deltadatabase.storage.journaled import JournaledDirectory
from deltadatabase.storage.local import DirectoryObjects, has_own_disk
from deltadatabase.storage.objects import MemoryObjects, S3Objects, S3Settings
from deltadatabase.storage.paths import CLUSTER

_PAUSE_S: Final = 0.25
_PAUSE_S_MAX: Final = 2.0
# Waiting does not change these: the settings are wrong.
_FINAL_CODES: Final = frozenset({"store_denied"})


async def open_store(
    target: Path | S3Settings | None,
    *,
    clock: Clock,
    random: Random,
    object_bytes_max: int = limits.OBJECT_BYTES_MAX,
    journal: bool = False,
) -> Store:
    """Open the store of a directory, of a bucket, or in memory (None). It may not answer yet.

    Args:
        target: which.
        clock: of a directory.
        random: of a directory.
        object_bytes_max: a larger object is refused before it is read.
        journal: have a directory alone if nobody else works on it, with a journal before its files.

    Raises:
        StartupError: ``bad_flag``, ``store_refused``: it cannot be used as configured.
    """
    if target is None:
        return MemoryObjects(object_bytes_max)
    if isinstance(target, S3Settings):
        return S3Objects(target, object_bytes_max)
    kind = JournaledDirectory if journal and has_own_disk(target) else DirectoryObjects
    return await asyncio.to_thread(
        partial(kind, target, clock=clock, random=random, object_bytes_max=object_bytes_max)
    )


async def wait_for_store(
    store: Store, *, timeout_s: float, clock: Clock, on_wait: Callable[[DeltaError], object]
) -> None:
    """Return once the store answers; a missing bucket is made.

    Args:
        store: an open store.
        timeout_s: how long to try, in seconds.
        clock: for the deadline.
        on_wait: called with the reason before each pause.

    Raises:
        StartupError: ``store_unreachable`` after the time; ``store_refused`` at once, when
            trying again cannot help.
    """
    deadline_s = clock.monotonic_s() + timeout_s
    pause_s = _PAUSE_S
    while True:
        try:
            if isinstance(store, S3Objects):
                await ensure_bucket(store)
            await store.list(CLUSTER, limit=1)
        except (Unavailable, OutcomeUnknown) as exc:
            if exc.code in _FINAL_CODES:
                raise StartupError(exc.detail, code="store_refused") from exc
            if clock.monotonic_s() + pause_s > deadline_s:
                raise StartupError(
                    f"the store was not reachable within {timeout_s:g} s: {exc.detail}",
                    code="store_unreachable",
                ) from exc
            on_wait(exc)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_S_MAX)
        else:
            return
