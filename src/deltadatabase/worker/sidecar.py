"""Writes the readable meta file beside each committed entity, off the request's path.

Derived data: never read to serve a request, late or missing after a crash, rebuilt by a
scrub. Writes of one entity that follow each other closely become one file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from deltadatabase.errors import DeltaError
from deltadatabase.storage.base import Store, When
from deltadatabase.storage.paths import meta_path
from deltadatabase.telemetry.logging import get_logger

PENDING_MAX = 65_536
CONCURRENCY = 8

log = get_logger(__name__)


class MetaSidecar:
    """Keeps the newest sealed bytes of each noted entity until their meta file is written.

    Args:
        store: where the files go.
        describe: sealed bytes to the text of the meta file.
    """

    def __init__(self, store: Store, describe: Callable[[bytes], bytes]) -> None:
        self._store = store
        self._describe = describe
        self._pending: dict[tuple[str, str], bytes | None] = {}
        self._writing: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def note(self, schema_id: str, key: str, sealed: bytes) -> None:
        """Take note of a commit; never blocks. Past the bound the file is left to a scrub."""
        self._add((schema_id, key), sealed)

    def forget(self, schema_id: str, key: str) -> None:
        """Take note that the object is gone: its file goes, too, unless a later commit is noted."""
        self._add((schema_id, key), None)

    def _add(self, name: tuple[str, str], sealed: bytes | None) -> None:
        if name not in self._pending and len(self._pending) >= PENDING_MAX:
            self.dropped += 1
            return
        self._pending[name] = sealed
        if len(self._tasks) < CONCURRENCY:
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def flush(self, timeout_s: float) -> None:
        """Write what is pending, at most ``timeout_s`` seconds long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()

    async def _drain(self) -> None:
        while (name := self._next()) is not None:
            self._writing.add(name)
            try:
                if (sealed := self._pending.pop(name)) is None:
                    await self._store.delete(meta_path(*name))
                else:
                    await self._store.put(meta_path(*name), self._describe(sealed), When.ALWAYS)
            except DeltaError as exc:
                log.warning("meta file not written; a scrub will rebuild it", code=exc.code)
            finally:
                self._writing.discard(name)

    def _next(self) -> tuple[str, str] | None:
        # One file is never written by two tasks at once: the older could land last.
        return next((name for name in self._pending if name not in self._writing), None)
