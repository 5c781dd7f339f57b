"""One change at a time per entity: asyncio locks that exist only while somebody wants them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from deltadatabase.errors import Overloaded


class _Slot:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class EntityLocks:
    """First come, first served; past ``waiters_max`` for one entity, callers are turned away."""

    def __init__(self, *, waiters_max: int) -> None:
        self._slots: dict[Hashable, _Slot] = {}
        self._waiters_max = waiters_max

    @asynccontextmanager
    async def hold(self, name: Hashable, *, bounded: bool = True) -> AsyncIterator[None]:
        """Hold the entity's lock.

        Args:
            name: the entity.
            bounded: False for a caller that is one however many wait behind it.

        Raises:
            Overloaded: too many are waiting for this entity already.
        """
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = _Slot()
        elif bounded and slot.users > self._waiters_max:
            raise Overloaded("too many requests wait for this entity", code="entity_busy")
        slot.users += 1
        try:
            async with slot.lock:
                yield
        finally:
            slot.users -= 1
            if not slot.users:
                del self._slots[name]
