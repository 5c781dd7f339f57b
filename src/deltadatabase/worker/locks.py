"""One change at a time per entity: asyncio locks that exist only while somebody wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

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

    def hold(self, name: Hashable, *, bounded: bool = True) -> _Hold:
        """Hold the entity's lock: an asynchronous context.

        Args:
            name: the entity.
            bounded: False for a caller that is one however many wait behind it.

        Raises (on entering):
            Overloaded: too many are waiting for this entity already.
        """
        return _Hold(self._slots, name, self._waiters_max if bounded else None)


class _Hold:
    # Not made by ``contextlib``: each write and each read of the store passes here.
    __slots__ = ("_name", "_slot", "_slots", "_waiters_max")

    def __init__(self, slots: dict[Hashable, _Slot], name: Hashable, waiters_max: int | None) -> None:
        self._slots = slots
        self._name = name
        self._waiters_max = waiters_max

    async def __aenter__(self) -> None:
        slot = self._slots.get(self._name)
        if slot is None:
            slot = self._slots[self._name] = _Slot()
        elif self._waiters_max is not None and slot.users > self._waiters_max:
            raise Overloaded("too many requests wait for this entity", code="entity_busy")
        self._slot = slot
        slot.users += 1
        try:
            await slot.lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._slot.lock.release()
        self._leave()

    def _leave(self) -> None:
        self._slot.users -= 1
        if not self._slot.users:
            del self._slots[self._name]
