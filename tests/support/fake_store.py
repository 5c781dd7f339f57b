"""A store in a dictionary whose faults are scripted. It passes the contract suite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b

from deltadatabase.errors import (
    AlreadyExists,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.limits import OBJECT_BYTES_MAX
from deltadatabase.storage.base import Condition, ObjectInfo, Stored, When, too_large


class FakeStore:
    """Objects in memory.

    Attributes:
        before: awaited before each operation with its name and path; may raise or wait.
        after: the same, after it took effect and before its reply.
        log: every operation and its path, in order.
    """

    backend = "memory"
    removes = True

    def __init__(self, object_bytes_max: int = OBJECT_BYTES_MAX) -> None:
        self.object_bytes_max = object_bytes_max
        self.objects: dict[str, Stored] = {}
        self.before: Callable[[str, str], object] | None = None
        self.after: Callable[[str, str], object] | None = None
        self.log: list[tuple[str, str]] = []
        self._now_ms = 1_000

    async def _hook(self, hook: Callable[[str, str], object] | None, operation: str, path: str) -> None:
        await asyncio.sleep(0)
        if hook is not None:
            outcome = hook(operation, path)
            if asyncio.iscoroutine(outcome) or isinstance(outcome, asyncio.Future):
                await outcome

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        self.log.append(("put", path))
        await self._hook(self.before, "put", path)
        present = self.objects.get(path)
        if condition is When.ABSENT and present is not None:
            raise AlreadyExists("object exists")
        if isinstance(condition, str) and (present is None or present.etag != condition):
            raise VersionMismatch("object changed")
        self._now_ms += 1
        etag = blake2b(bytes(data), digest_size=16).hexdigest()
        self.objects[path] = Stored(bytes(data), etag, self._now_ms)
        await self._hook(self.after, "put", path)
        return etag

    async def get(self, path: str) -> Stored:
        self.log.append(("get", path))
        await self._hook(self.before, "get", path)
        try:
            stored = self.objects[path]
        except KeyError:
            raise NotFound("no object") from None
        if len(stored.data) > self.object_bytes_max:
            raise too_large()
        return stored

    async def settle(self, path: str) -> None:
        self.log.append(("settle", path))
        await self._hook(self.before, "settle", path)

    async def get_if_changed(self, path: str, etag: str) -> Stored | None:
        stored = await self.get(path)
        return None if stored.etag == etag else stored

    async def head(self, path: str) -> ObjectInfo:
        self.log.append(("get", path))
        await self._hook(self.before, "get", path)
        if (stored := self.objects.get(path)) is None:
            raise NotFound("no object")
        return ObjectInfo(path, len(stored.data), stored.etag, stored.updated_ms)

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        await self._hook(self.before, "list", prefix)
        names = sorted(name for name in self.objects if name.startswith(prefix) and name > after)
        return [
            ObjectInfo(name, len(stored.data), stored.etag, stored.updated_ms)
            for name in names[:limit]
            if (stored := self.objects[name])
        ]

    async def folders(self, prefix: str) -> Sequence[str]:
        rest = (name[len(prefix) :] for name in self.objects if name.startswith(prefix))
        return sorted({name.split("/")[0] for name in rest if "/" in name})

    async def remove(self, path: str, etag: str) -> None:
        self.log.append(("remove", path))
        await self._hook(self.before, "remove", path)
        present = self.objects.get(path)
        if present is None or present.etag != etag:
            raise VersionMismatch("object changed")
        del self.objects[path]
        await self._hook(self.after, "remove", path)

    async def delete(self, path: str) -> None:
        self.log.append(("delete", path))
        await self._hook(self.before, "delete", path)
        self.objects.pop(path, None)

    async def close(self) -> None:
        """Nothing to release."""


class Faults:
    """A script: the n-th put fails in a given way.

    Args:
        store: gets its hooks set.
        puts: for each put in turn ``"ok"``, ``"refused"`` (certainly not stored),
            ``"lost"`` (not stored, outcome unknown) or ``"stored"`` (stored, reply lost).
    """

    def __init__(self, store: FakeStore, *puts: str) -> None:
        self._script = list(puts)
        self._now = "ok"
        store.before = self._before
        store.after = self._after

    def _before(self, operation: str, path: str) -> None:
        if operation != "put":
            return
        self._now = self._script.pop(0) if self._script else "ok"
        if self._now == "refused":
            raise Unavailable("store refuses")
        if self._now == "lost":
            raise OutcomeUnknown("no reply")

    def _after(self, operation: str, path: str) -> None:
        if operation == "put" and self._now == "stored":
            raise OutcomeUnknown("no reply")
