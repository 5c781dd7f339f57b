"""Old tombstones go where the store can compare and remove; everything else stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sim.loop import run
from sim.world import SimClock
from support.clocks import SeededRandom
from support.fake_store import FakeStore
from support.workers import Lease, make_committer

from deltadatabase.errors import NotFound, Unavailable
from deltadatabase.limits import TOMBSTONE_AGE_S
from deltadatabase.model import Command, Op
from deltadatabase.storage.paths import entity_path
from deltadatabase.worker.commit import Committer

PATH = entity_path("s", "k")
_ids = SeededRandom(5)


class Bench:
    """Workers on one store, in virtual time."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.clock = SimClock()
        self.lease = Lease()
        self.forgotten: list[tuple[str, str]] = []
        self.worker = self.another()

    def another(self) -> Committer:
        return make_committer(self.store, clock=self.clock, lease=self.lease, sidecar=self)

    def note(self, schema_id: str, key: str, sealed: bytes) -> None: ...

    def forget(self, schema_id: str, key: str) -> None:
        self.forgotten.append((schema_id, key))


Story = Callable[[Bench], Coroutine[Any, Any, None]]


def in_virtual_time(story: Story) -> Callable[[], None]:
    async def main() -> None:
        await story(Bench())

    def test() -> None:
        run(main())

    return test


def command(op: Op, *, term: int = 1) -> Command:
    write_id = _ids(16) if op is not Op.GET else b""
    return Command(
        op=op, schema_id="s", key="k", shard=3, term=term, document=b"1", timeout_ms=1000, write_id=write_id
    )


async def delete(bench: Bench) -> None:
    await bench.worker.execute(command(Op.PUT))
    await bench.worker.execute(command(Op.DELETE))


@in_virtual_time
async def test_a_tombstone_goes_after_an_hour_and_its_meta_file_with_it(bench: Bench) -> None:
    await delete(bench)
    await asyncio.sleep(TOMBSTONE_AGE_S - 1)
    assert PATH in bench.store.objects
    await asyncio.sleep(2)
    assert PATH not in bench.store.objects and bench.forgotten == [("s", "k")]
    with pytest.raises(NotFound):
        await bench.worker.execute(command(Op.GET))
    again = await bench.worker.execute(command(Op.PUT))
    assert (again.version, again.created) == (1, True)


@in_virtual_time
async def test_what_was_written_again_stays(bench: Bench) -> None:
    await delete(bench)
    await bench.another().execute(command(Op.PUT, term=2))
    await asyncio.sleep(TOMBSTONE_AGE_S + 1)
    assert PATH in bench.store.objects and bench.forgotten == []
    assert (await bench.worker.execute(command(Op.GET, term=2))).version == 3


@in_virtual_time
async def test_a_second_delete_begins_its_own_hour(bench: Bench) -> None:
    await delete(bench)
    await asyncio.sleep(TOMBSTONE_AGE_S - 10)
    await delete(bench)
    await asyncio.sleep(20)
    assert PATH in bench.store.objects
    await asyncio.sleep(TOMBSTONE_AGE_S)
    assert PATH not in bench.store.objects


@in_virtual_time
async def test_a_tombstone_that_is_only_read_is_noted(bench: Bench) -> None:
    await delete(bench)
    await bench.worker.settle(1)
    reader = bench.another()
    with pytest.raises(NotFound):
        await reader.execute(command(Op.GET, term=2))
    await asyncio.sleep(TOMBSTONE_AGE_S + 1)
    assert PATH not in bench.store.objects
    await reader.settle(1)


@in_virtual_time
async def test_nothing_is_removed_without_a_lease_and_the_next_store_error_is_survived(bench: Bench) -> None:
    await delete(bench)
    bench.lease.alive = False
    await asyncio.sleep(TOMBSTONE_AGE_S + 1)
    assert PATH in bench.store.objects
    bench.lease.alive = True
    await delete(bench)

    def down(operation: str, path: str) -> None:
        raise Unavailable("down")

    bench.store.before = down
    await asyncio.sleep(TOMBSTONE_AGE_S + 1)
    bench.store.before = None
    assert PATH in bench.store.objects
    await delete(bench)
    await asyncio.sleep(TOMBSTONE_AGE_S + 1)
    assert PATH not in bench.store.objects
    await bench.worker.settle(1)


@in_virtual_time
async def test_a_store_that_cannot_compare_and_remove_keeps_them(bench: Bench) -> None:
    bench.store.removes = False
    bench.worker = bench.another()
    await delete(bench)
    await asyncio.sleep(2 * TOMBSTONE_AGE_S)
    assert PATH in bench.store.objects
