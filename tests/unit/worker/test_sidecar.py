"""Meta files follow their entities: late, once for many writes, and none is left behind at the end."""

from __future__ import annotations

import asyncio

import pytest
from support.fake_store import FakeStore

from deltadatabase.errors import NotFound, Unavailable
from deltadatabase.storage.base import Condition
from deltadatabase.storage.paths import meta_path
from deltadatabase.worker.sidecar import MetaSidecar

FAR_S = 3600.0


class CountingStore(FakeStore):
    def __init__(self) -> None:
        super().__init__()
        self.puts = 0
        self.refused = False

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        self.puts += 1
        if self.refused:
            raise Unavailable("not now")
        return await super().put(path, data, condition)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def upper(sealed: bytes) -> bytes:
    return sealed.upper()


async def test_writes_of_one_entity_become_one_file(store: CountingStore) -> None:
    sidecar = MetaSidecar(store, upper, delay_s=FAR_S)
    for number in range(100):
        sidecar.note("s", "a", b"sealed %d" % number)
    sidecar.note("s", "b", b"another")
    await sidecar.flush(5.0)
    assert store.puts == 2
    assert (await store.get(meta_path("s", "a"))).data == b"SEALED 99"


async def test_a_file_is_written_without_being_asked_for(store: CountingStore) -> None:
    sidecar = MetaSidecar(store, upper, delay_s=0.0)
    sidecar.note("s", "a", b"sealed")
    assert sidecar._task is not None
    await sidecar._task
    assert (await store.get(meta_path("s", "a"))).data == b"SEALED"


async def test_what_is_gone_loses_its_file(store: CountingStore) -> None:
    sidecar = MetaSidecar(store, upper, delay_s=0.0)
    sidecar.note("s", "a", b"sealed")
    assert sidecar._task is not None
    await sidecar._task
    sidecar.forget("s", "a")
    await sidecar.flush(5.0)
    with pytest.raises(NotFound):
        await store.get(meta_path("s", "a"))


async def test_many_bytes_wait_no_longer_and_too_many_are_left_to_a_scrub(store: CountingStore) -> None:
    sidecar = MetaSidecar(store, upper, delay_s=FAR_S, bytes_max=1000)
    for number in range(30):
        sidecar.note("s", str(number), bytes(100))
    assert sidecar.dropped == 10
    assert sidecar._task is not None
    await sidecar._task
    assert store.puts == 20


async def test_a_refusal_is_no_reason_to_stop(store: CountingStore) -> None:
    store.refused = True
    sidecar = MetaSidecar(store, upper, delay_s=FAR_S)
    sidecar.note("s", "a", b"sealed")
    sidecar.note("s", "b", b"sealed")
    await sidecar.flush(5.0)
    assert store.puts == 2


async def test_what_is_noted_while_files_are_written_waits_for_the_next_round() -> None:
    class Busy(CountingStore):
        async def put(self, path: str, data: bytes, condition: Condition) -> str:
            sidecar.note("s", "0", b"again")
            await asyncio.sleep(0)
            return await super().put(path, data, condition)

    store = Busy()
    sidecar = MetaSidecar(store, upper, delay_s=FAR_S, bytes_max=2000)
    for number in range(20):
        sidecar.note("s", str(number), bytes(100))
    for _ in range(500):
        await asyncio.sleep(0)
    assert store.puts == 20
    assert sidecar._task is not None
    sidecar._task.cancel()
