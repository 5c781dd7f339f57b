"""Writes the readable meta file beside each committed entity, off the request's path.

Derived data: never read to serve a request, late or missing after a crash, rebuilt by a
scrub. Writes of one entity that follow each other within the delay become one file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from deltadatabase.errors import DeltaError
from deltadatabase.limits import (
    META_CONCURRENCY,
    META_DELAY_S,
    META_IDLE_S,
    META_PENDING_BYTES_MAX,
    META_PENDING_MAX,
)
from deltadatabase.storage.base import Store, When
from deltadatabase.storage.paths import meta_path
from deltadatabase.telemetry.logging import get_logger

log = get_logger(__name__)

Name = tuple[str, str]


class MetaSidecar:
    """Keeps the newest sealed bytes of each noted entity until their meta file is written.

    Args:
        store: where the files go.
        describe: sealed bytes to the text of the meta file.
        delay_s: so long a noted entity waits for its next write, at most: less when nothing is written.
        bytes_max: when so many sealed bytes wait, they wait no longer; more are left to a scrub.
    """

    def __init__(
        self,
        store: Store,
        describe: Callable[[bytes], bytes],
        *,
        delay_s: float = META_DELAY_S,
        bytes_max: int = META_PENDING_BYTES_MAX,
    ) -> None:
        self._store = store
        self._describe = describe
        self._delay_s = delay_s
        self._bytes_max = bytes_max
        self._pending: dict[Name, bytes | None] = {}
        self._pending_bytes = 0
        self._noted = 0
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    def note(self, schema_id: str, key: str, sealed: bytes) -> None:
        """Take note of a commit; never blocks. Past the bound the file is left to a scrub."""
        self._add((schema_id, key), sealed)

    def forget(self, schema_id: str, key: str) -> None:
        """Take note that the object is gone: its file goes, too, unless a later commit is noted."""
        self._add((schema_id, key), None)

    def _add(self, name: Name, sealed: bytes | None) -> None:
        self._noted += 1
        size = len(sealed or b"")
        full = len(self._pending) >= META_PENDING_MAX or self._pending_bytes + size > 2 * self._bytes_max
        if full and name not in self._pending:
            self.dropped += 1
            return
        self._pending_bytes += size - len(self._pending.get(name) or b"")
        self._pending[name] = sealed
        if self._pending_bytes >= self._bytes_max or len(self._pending) * 2 >= META_PENDING_MAX:
            self._hurry.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def flush(self, timeout_s: float) -> None:
        """Write what is pending, at most ``timeout_s`` seconds long."""
        self._delay_s = 0.0
        self._hurry.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_s)
            self._task.cancel()

    async def _work(self) -> None:
        while self._pending:
            await self._pause()
            # What is noted from here on waits its time.
            due = iter(list(self._pending))
            async with asyncio.TaskGroup() as group:
                for _ in range(min(META_CONCURRENCY, len(self._pending))):
                    group.create_task(self._drain(due))

    async def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._delay_s
        noted = -1
        while noted != self._noted and (left_s := due_s - loop.time()) > 0:
            noted = self._noted
            try:
                async with asyncio.timeout(min(left_s, META_IDLE_S)):
                    await self._hurry.wait()
            except TimeoutError:
                continue
            if self._delay_s:
                self._hurry.clear()
            return

    async def _drain(self, due: Iterator[Name]) -> None:
        """Write files; others take theirs from the same names, so that no two write the same."""
        for name in due:
            try:
                sealed = self._pending.pop(name)
                self._pending_bytes -= len(sealed or b"")
                if sealed is None:
                    await self._store.delete(meta_path(*name))
                else:
                    await self._store.put(meta_path(*name), self._describe(sealed), When.ALWAYS)
            except DeltaError as exc:
                log.warning("meta file not written; a scrub will rebuild it", code=exc.code)
