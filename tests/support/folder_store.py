"""A directory in a dictionary: what a scan of it shows is as little as is promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from deltadatabase.storage.base import Condition, ObjectInfo
from support.fake_store import FakeStore


class FakeFolders(FakeStore):
    """A ``FakeStore`` that has no order, as the directory backend.

    Attributes:
        part: names in each part of a scan; others get a turn between two of them.
    """

    backend = "directory"

    def __init__(self, part: int = 3) -> None:
        super().__init__()
        self.part = part
        self.scans = 0
        self._scanning: list[list[str]] = []

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        etag = await super().put(path, data, condition)
        # What is overwritten while a folder is read may be behind and before the reader at once.
        for coming in self._scanning:
            if path in coming:
                coming.remove(path)
        return etag

    async def scan(self, prefix: str) -> AsyncGenerator[Sequence[str]]:
        self.scans += 1
        await self._hook(self.before, "scan", prefix)
        coming = sorted((path for path in self.objects if path.startswith(prefix)), key=hash)
        self._scanning.append(coming)
        try:
            while coming:
                part = [coming.pop() for _ in range(min(self.part, len(coming)))]
                yield [path.removeprefix(prefix) for path in part]
                await asyncio.sleep(0)
        finally:
            # By identity: two lists may be equal.
            self._scanning = [other for other in self._scanning if other is not coming]

    async def describe(self, prefix: str, names: Sequence[str]) -> Sequence[ObjectInfo | None]:
        await self._hook(self.before, "describe", prefix)
        found = [self.objects.get(prefix + name) for name in names]
        return [
            stored and ObjectInfo(prefix + name, len(stored.data), "", stored.updated_ms)
            for name, stored in zip(names, found, strict=True)
        ]

    async def folder_ms(self, prefix: str) -> int:
        return sum(path.startswith(prefix) for path in self.objects)
