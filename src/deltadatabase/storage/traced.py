"""A store whose requests are spans. Fulfils ``Store`` around any other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import final

from deltadatabase import limits
from deltadatabase.storage.base import Condition, ObjectInfo, Store, Stored
from deltadatabase.telemetry.tracing import Tracing


@final
class TracedStore:
    """Asks ``inner``, and notes each request in the present trace: what it is, never for which object."""

    def __init__(self, inner: Store, traces: Tracing) -> None:
        self.backend = inner.backend
        self.removes = inner.removes
        self._inner = inner
        self._traces = traces
        self._about = {"deltadatabase.store": inner.backend}

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        with self._traces.asking("store put", {**self._about, "deltadatabase.bytes": len(data)}):
            return await self._inner.put(path, data, condition)

    async def get(self, path: str) -> Stored:
        with self._traces.asking("store get", self._about):
            return await self._inner.get(path)

    async def settle(self, path: str) -> None:
        with self._traces.asking("store settle", self._about):
            await self._inner.settle(path)

    async def get_if_changed(self, path: str, etag: str) -> Stored | None:
        with self._traces.asking("store get", self._about):
            return await self._inner.get_if_changed(path, etag)

    async def head(self, path: str) -> ObjectInfo:
        with self._traces.asking("store head", self._about):
            return await self._inner.head(path)

    async def list(
        self, prefix: str, *, after: str = "", limit: int = limits.LIST_PAGE_MAX
    ) -> Sequence[ObjectInfo]:
        with self._traces.asking("store list", self._about):
            return await self._inner.list(prefix, after=after, limit=limit)

    async def folders(self, prefix: str) -> Sequence[str]:
        with self._traces.asking("store list", self._about):
            return await self._inner.folders(prefix)

    def scan(self, prefix: str) -> AsyncGenerator[Sequence[str]]:
        # Not a span: whoever takes the parts is no part of it.
        return self._inner.scan(prefix)

    async def describe(self, prefix: str, names: Sequence[str]) -> Sequence[ObjectInfo | None]:
        with self._traces.asking("store list", self._about):
            return await self._inner.describe(prefix, names)

    async def folder_ms(self, prefix: str) -> int:
        return await self._inner.folder_ms(prefix)

    async def remove(self, path: str, etag: str) -> None:
        with self._traces.asking("store remove", self._about):
            await self._inner.remove(path, etag)

    async def delete(self, path: str) -> None:
        with self._traces.asking("store delete", self._about):
            await self._inner.delete(path)

    async def close(self) -> None:
        await self._inner.close()
