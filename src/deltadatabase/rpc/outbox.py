"""What waits to be written to a stream, gathered into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Final, Generic, TypeVar

from deltadatabase import limits

#: Room in a message for what a batch holds beside its items: tags, lengths, cancelled ids.
BATCH_OVERHEAD_BYTES: Final = 64 * limits.KIB

Item = TypeVar("Item")

assert limits.STREAM_BATCH_COUNT_MAX * 16 + limits.STREAM_IN_FLIGHT_MAX * 10 < BATCH_OVERHEAD_BYTES


class Outbox(Generic[Item]):
    """Items by id, oldest first. What is put during one write leaves with the next.

    Args:
        message_bytes_max: of one message.
        on_batch: told the number of items of each batch.

    Attributes:
        item_bytes_max: the largest item that fits a message; the caller checks it.
        size_bytes: total of the items that wait.
    """

    def __init__(self, message_bytes_max: int, on_batch: Callable[[int], None] | None = None) -> None:
        self._on_batch = on_batch
        self.item_bytes_max = message_bytes_max - BATCH_OVERHEAD_BYTES
        self.size_bytes = 0
        self._batch_bytes_max = min(limits.STREAM_BATCH_BYTES_MAX, self.item_bytes_max)
        self._items: dict[int, tuple[Item, int]] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: int) -> bool:
        return item_id in self._items

    def put(self, item_id: int, item: Item, size: int) -> None:
        """Append an item whose id does not wait already, and which takes so many bytes at the most."""
        self._items[item_id] = (item, size)
        self.size_bytes += size
        self._wake.set()

    def discard(self, item_id: int) -> bool:
        """Withdraw an item; True if it was still waiting."""
        withdrawn = self._items.pop(item_id, None)
        if withdrawn is None:
            return False
        self.size_bytes -= withdrawn[1]
        return True

    def wake(self) -> None:
        """End ``wait`` although no item came."""
        self._wake.set()

    async def wait(self) -> None:
        """Return once there is something to write."""
        if not self._items:
            await self._wake.wait()
        self._wake.clear()

    def take(self) -> list[Item]:
        """Remove and return the next batch; empty if nothing waits."""
        items = self._items
        if len(items) <= limits.STREAM_BATCH_COUNT_MAX and self.size_bytes <= self._batch_bytes_max:
            batch = [item for item, _ in items.values()]
            items.clear()
            self.size_bytes = 0
            return self._counted(batch)
        taken: list[int] = []
        size = 0
        for item_id, (_, item_bytes) in islice(items.items(), limits.STREAM_BATCH_COUNT_MAX):
            size += item_bytes
            # A single item past the bound of batches still fits a message.
            if taken and size > self._batch_bytes_max:
                break
            taken.append(item_id)
        batch = []
        for item_id in taken:
            item, item_bytes = items.pop(item_id)
            batch.append(item)
            self.size_bytes -= item_bytes
        return self._counted(batch)

    def _counted(self, batch: list[Item]) -> list[Item]:
        if self._on_batch is not None and batch:
            self._on_batch(len(batch))
        return batch
