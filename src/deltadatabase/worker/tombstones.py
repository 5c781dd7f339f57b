"""Removes tombstones that nobody can need any more, where the store can do that safely.

A tombstone keeps a late create from bringing a deleted entity back. After an hour no put of that
time can be on its way any more: requests, store calls and commits end within seconds; and the change
feed tells of the deletes of an hour, with margins. After two hours the object is removed, if it is
still exactly this one: a store that compares and removes in one step (a directory under its commit
lock, memory) cannot take a newer write away.

Noted are the tombstones that this worker writes or reads; what it never meets is left to
``deltadb scrub -remove-tombstones``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from deltadatabase.clock import Clock
from deltadatabase.errors import DeltaError, VersionMismatch
from deltadatabase.limits import TOMBSTONE_AGE_S, TOMBSTONES_NOTED_MAX
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.worker.cache import Name

log = get_logger(__name__)


class Tombstones:
    """Remembers tombstones until they are old enough.

    Args:
        remove: removes the entity's object if it still has this store ETag. Raises DeltaError.
        clock: monotonic time; the age counts from when this worker met the tombstone.
        age_s: seconds for which each is kept.
    """

    def __init__(
        self,
        remove: Callable[[Name, str], Awaitable[None]],
        *,
        clock: Clock,
        age_s: float = TOMBSTONE_AGE_S,
    ) -> None:
        self._remove = remove
        self._clock = clock
        self._age_s = age_s
        # Every tombstone is kept equally long, so the order of insertion is the order of removal.
        self._noted: dict[Name, tuple[str, float]] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, name: Name, store_etag: str) -> None:
        """Take note of a tombstone that is stored now; never blocks. Past the bound it stays."""
        known = self._noted.get(name)
        if known is not None and known[0] == store_etag:
            return
        self._noted.pop(name, None)
        if len(self._noted) >= TOMBSTONES_NOTED_MAX:
            return
        self._noted[name] = (store_etag, self._clock.monotonic_s() + self._age_s)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Remove nothing more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while self._noted:
            name = next(iter(self._noted))
            _, due_s = self._noted[name]
            if (left_s := due_s - self._clock.monotonic_s()) > 0:
                await asyncio.sleep(left_s)
                continue  # It may have been deleted and made again meanwhile.
            store_etag, _ = self._noted.pop(name)
            try:
                await self._remove(name, store_etag)
            except VersionMismatch:
                continue  # Written again since.
            except DeltaError as exc:
                log.warning("an old tombstone was not removed; a scrub will do it", code=exc.code)
