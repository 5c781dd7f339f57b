from __future__ import annotations

import asyncio

from deltadatabase import limits
from deltadatabase.rpc.outbox import BATCH_OVERHEAD_BYTES, Outbox


def filled(items: list[bytes]) -> Outbox:
    outbox = Outbox(limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT)
    for item_id, data in enumerate(items, start=1):
        outbox.put(item_id, data, len(data))
    return outbox


def batches(outbox: Outbox) -> list[list[bytes]]:
    taken = []
    while batch := outbox.take():
        taken.append(batch)
    return taken


def test_what_waits_together_leaves_together_in_order() -> None:
    outbox = filled([b"a", b"bb", b"ccc"])
    assert outbox.size_bytes == 6
    assert outbox.take() == [b"a", b"bb", b"ccc"]
    assert outbox.size_bytes == 0
    assert outbox.take() == []


def test_a_batch_is_bounded_by_count() -> None:
    items = [bytes([number % 256]) for number in range(2 * limits.STREAM_BATCH_COUNT_MAX + 5)]
    taken = batches(outbox := filled(items))
    assert [len(batch) for batch in taken] == [limits.STREAM_BATCH_COUNT_MAX] * 2 + [5]
    assert [item for batch in taken for item in batch] == items
    assert outbox.size_bytes == 0


def test_a_batch_is_bounded_by_bytes() -> None:
    item = b"x" * (limits.STREAM_BATCH_BYTES_MAX // 3)
    assert [len(batch) for batch in batches(filled([item] * 7))] == [3, 3, 1]


def test_an_item_past_the_bound_of_batches_leaves_alone() -> None:
    large = b"x" * (limits.STREAM_BATCH_BYTES_MAX + 1)
    assert [len(batch) for batch in batches(filled([b"a", large, b"b", b"c"]))] == [1, 1, 2]


def test_a_small_message_limit_bounds_batches_too() -> None:
    outbox = Outbox(BATCH_OVERHEAD_BYTES + 10)
    for item_id in range(5):
        outbox.put(item_id, b"xxxx", 4)
    assert outbox.item_bytes_max == 10
    assert [len(batch) for batch in batches(outbox)] == [2, 2, 1]


def test_what_is_withdrawn_never_leaves() -> None:
    outbox = filled([b"a", b"bb", b"ccc"])
    assert 2 in outbox
    assert outbox.discard(2)
    assert 2 not in outbox
    assert not outbox.discard(2)
    assert outbox.size_bytes == 4
    assert outbox.take() == [b"a", b"ccc"]
    assert not outbox.discard(1)


async def test_wait_ends_with_the_first_item_or_a_wake() -> None:
    outbox = Outbox(limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT)
    waiting = asyncio.create_task(outbox.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.put(1, b"a", 1)
    await waiting
    await outbox.wait()
    assert outbox.take() == [b"a"]
    waiting = asyncio.create_task(outbox.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.wake()
    await waiting
