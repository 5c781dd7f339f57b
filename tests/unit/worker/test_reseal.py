"""Entities are sealed anew with another master key; clients see nothing of it."""

from __future__ import annotations

import asyncio

import pytest
from support.clocks import FakeClock, SeededRandom
from support.fake_store import FakeStore
from support.workers import Lease, Schemas

from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import Corrupt, NotFound, NotOwner, Unavailable
from deltadatabase.model import Command, Op, Result
from deltadatabase.storage.base import Stored
from deltadatabase.storage.paths import entity_path
from deltadatabase.worker.cache import Cache
from deltadatabase.worker.commit import Committer

OLD, NEW = MasterKey(b"o" * 32), MasterKey(b"n" * 32)
BEFORE, AFTER = Keyring(OLD, [NEW]), Keyring(NEW, [OLD])
PATH = entity_path("s", "k")


class Bench:
    """A committer whose keyring can be exchanged."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.lease = Lease()
        self.clock = FakeClock()
        self.ids = SeededRandom(9)
        self.noted: list[bytes] = []
        self.sealer = Sealer(BEFORE, SeededRandom(1))
        self.cache = Cache(bytes_max=1 << 20)
        self.worker = Committer(
            self.store,
            lambda: self.sealer,
            Schemas(),
            self.cache,
            clock=self.clock,
            lease=self.lease,
            sidecar=self,
        )

    def note(self, schema_id: str, key: str, sealed: bytes) -> None:
        self.noted.append(sealed)

    def forget(self, schema_id: str, key: str) -> None:
        raise AssertionError

    def rotate(self, keyring: Keyring = AFTER) -> None:
        self.sealer = Sealer(keyring, SeededRandom(2))

    async def do(self, op: Op, document: bytes = b"", *, term: int = 1) -> Result:
        write_id = self.ids(16) if op in (Op.PUT, Op.DELETE) else b""
        return await self.worker.execute(
            Command(
                op=op, schema_id="s", key="k", shard=3, term=term, document=document, timeout_ms=1000,
                write_id=write_id,
            )
        )  # fmt: skip

    async def reseal(self, *, term: int = 1) -> Result:
        return await self.do(Op.RESEAL, NEW.key_id, term=term)

    def stored_key(self) -> bytes:
        return Sealer(AFTER, SeededRandom(3)).open_header(self.store.objects[PATH].data, "s", "k").key_id


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("cached", [True, False])
async def test_an_entity_is_sealed_anew_and_looks_the_same(bench: Bench, *, cached: bool) -> None:
    await bench.do(Op.PUT, b"1")
    await bench.do(Op.PUT, b"2")
    before = await bench.do(Op.GET)
    assert (await bench.do(Op.KEY_OF)).key_id == OLD.key_id == bench.stored_key()
    if not cached:
        bench.cache.clear()
    bench.rotate()
    bench.clock.advance(100)
    resealed = await bench.reseal()
    assert (resealed.found, resealed.number, resealed.key_id) == (True, 1, NEW.key_id)
    assert bench.stored_key() == NEW.key_id
    assert bench.noted[-1] == bench.store.objects[PATH].data
    for _ in range(2):
        after = await bench.do(Op.GET)
        assert (after.document, after.etag, after.version, after.updated_ms) == (
            before.document, before.etag, before.version, before.updated_ms,
        )  # fmt: skip
        bench.cache.clear()


async def test_a_second_time_nothing_is_put(bench: Bench) -> None:
    await bench.do(Op.PUT, b"1")
    bench.rotate()
    await bench.reseal()
    sealed = bench.store.objects[PATH].data
    again = await bench.reseal()
    assert (again.found, again.number, again.key_id) == (True, 0, NEW.key_id)
    assert bench.store.objects[PATH].data == sealed


async def test_a_write_by_the_new_key_needs_no_sealing_anew(bench: Bench) -> None:
    await bench.do(Op.PUT, b"1")
    bench.rotate()
    await bench.do(Op.PUT, b"2")
    assert (await bench.reseal()).number == 0


async def test_tombstones_are_sealed_anew_and_stay_deleted(bench: Bench) -> None:
    await bench.do(Op.PUT, b"1")
    await bench.do(Op.DELETE)
    bench.rotate()
    assert (await bench.reseal()).number == 1
    assert bench.stored_key() == NEW.key_id
    with pytest.raises(NotFound):
        await bench.do(Op.GET)


async def test_what_is_not_there_is_not_made(bench: Bench) -> None:
    bench.rotate()
    assert not (await bench.reseal()).found
    assert not (await bench.do(Op.KEY_OF)).found
    assert PATH not in bench.store.objects


async def test_the_walk_does_not_fill_the_cache(bench: Bench) -> None:
    await bench.do(Op.PUT, b"1")
    bench.cache.clear()
    await bench.do(Op.KEY_OF)
    bench.rotate()
    await bench.reseal()
    assert bench.cache.get(("s", "k"), 1, 0.0) is None


async def test_another_primary_key_than_expected_seals_nothing(bench: Bench) -> None:
    await bench.do(Op.PUT, b"1")
    with pytest.raises(Unavailable) as caught:
        await bench.reseal()
    assert caught.value.code == "key_unavailable"
    assert bench.stored_key() == OLD.key_id


async def test_neither_an_older_owner_nor_one_without_a_lease_seals_anew(bench: Bench) -> None:
    await bench.do(Op.PUT, b"1", term=2)
    bench.rotate()
    with pytest.raises(NotOwner):
        await bench.reseal(term=1)
    bench.lease.alive = False
    with pytest.raises(NotOwner):
        await bench.reseal(term=2)
    assert bench.stored_key() == OLD.key_id


async def test_a_damaged_entity_is_left_as_it_is(bench: Bench) -> None:
    await bench.do(Op.PUT, b"1")
    bench.cache.clear()
    stored = bench.store.objects[PATH]
    damaged = stored.data[:-1] + bytes([stored.data[-1] ^ 1])
    bench.store.objects[PATH] = Stored(damaged, stored.etag, stored.updated_ms)
    bench.rotate()
    with pytest.raises(Corrupt):
        await bench.reseal()
    assert bench.store.objects[PATH].data == damaged


async def test_writes_and_sealing_anew_beside_each_other_lose_nothing(bench: Bench) -> None:
    await bench.do(Op.PUT, b"0")
    bench.rotate()
    results = await asyncio.gather(
        *(bench.do(Op.PUT, b"%d" % n) if n % 2 else bench.reseal() for n in range(40))
    )
    versions = [result.version for n, result in enumerate(results) if n % 2]
    assert sorted(versions) == list(range(2, 22))
    newest = max(range(1, 40, 2), key=lambda n: results[n].version)
    assert (await bench.do(Op.GET)).document == b"%d" % newest
    assert bench.stored_key() == NEW.key_id
