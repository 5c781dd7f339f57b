"""Looks after writes whose outcome nobody was told, so that the change feed tells of them, too.

A write that ended with 504, whose client went away, or that a later write may have replaced by the time it
was found says little of the entity. So the entity is read, afresh and through its owner, at once and
again until a put that is still on its way has landed or never will.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from deltadatabase.errors import Corrupt, DeltaError
from deltadatabase.limits import CHANGES_CHECKS_S, CHANGES_UNSURE_MAX, CHANGES_UNSURE_READS_MAX

AGAIN_S: Final = 20.0
"""Pause before a last look is repeated that failed."""

Look = Callable[[str, str, bytes], Awaitable[bool]]
"""Reads an entity, given by schema id and key, afresh and notes its state; tells whether the write with
this id was found in it. Raises DeltaError."""


class UnsureWrites:
    """The writes that are looked after now. Must be used in one event loop.

    Args:
        look: see ``Look``.
        on_overflow: called instead when there are too many: what is lost must be found another way.
        checks_s: when to look, seconds after the write was given up.
        count_max: writes looked after at once.
    """

    def __init__(
        self,
        look: Look,
        *,
        on_overflow: Callable[[], None],
        checks_s: Sequence[float] = CHANGES_CHECKS_S,
        count_max: int = CHANGES_UNSURE_MAX,
    ) -> None:
        self._look = look
        self._on_overflow = on_overflow
        self._checks_s = checks_s
        self._count_max = count_max
        self._reads = asyncio.Semaphore(CHANGES_UNSURE_READS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, schema_id: str, key: str, write_id: bytes) -> None:
        """Look after one more write; never blocks."""
        if self._closed:
            return
        if len(self._tasks) >= self._count_max:
            self._on_overflow()
            return
        task = asyncio.get_running_loop().create_task(self._follow(schema_id, key, write_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Look after nothing any more."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, schema_id: str, key: str, write_id: bytes) -> None:
        waited_s = 0.0
        found: bool | None = None
        for check_s in self._checks_s:
            await asyncio.sleep(check_s - waited_s)
            waited_s = check_s
            found = await self._found(schema_id, key, write_id)
            if found:
                return
        while found is None:
            # Nobody could look; the write may have landed unseen.
            await asyncio.sleep(AGAIN_S)
            found = await self._found(schema_id, key, write_id)

    async def _found(self, schema_id: str, key: str, write_id: bytes) -> bool | None:
        """Whether the write has certainly been applied, or no look can tell; None: nobody could look."""
        try:
            async with self._reads:
                return await self._look(schema_id, key, write_id)
        except Corrupt:
            return True
        except DeltaError:
            return None
