"""What a worker says of a store whose content changes under it."""

from __future__ import annotations

import msgspec
import pytest
from support.fake_store import FakeStore

from deltadatabase.errors import Unavailable
from deltadatabase.model import DatabaseInfo, StoreSight
from deltadatabase.storage.base import When
from deltadatabase.storage.paths import DATABASE_PATH
from deltadatabase.worker.store_check import StoreCheck

INFO = DatabaseInfo(database_id="ours", format=1, shards=64, highest_epoch=0, keys={})


async def put(store: FakeStore, info: DatabaseInfo) -> None:
    await store.put(DATABASE_PATH, msgspec.json.encode(info), When.ALWAYS)


@pytest.fixture
async def store() -> FakeStore:
    store = FakeStore()
    await put(store, INFO)
    return store


async def test_an_emptied_store_is_gone_until_the_description_is_back(store: FakeStore) -> None:
    check = StoreCheck(store, "ours")
    for _ in range(2):
        assert await check.look() is StoreSight.HELD
    kept = store.objects.pop(DATABASE_PATH)
    for _ in range(2):
        assert await check.look() is StoreSight.GONE
    store.objects[DATABASE_PATH] = kept
    for _ in range(2):
        assert await check.look() is StoreSight.HELD


async def test_another_database_in_its_place_is_not_ours(store: FakeStore) -> None:
    check = StoreCheck(store, "ours")
    await put(store, msgspec.structs.replace(INFO, database_id="theirs"))
    for _ in range(2):
        assert await check.look() is StoreSight.GONE
    await put(store, msgspec.structs.replace(INFO, highest_epoch=9))
    assert await check.look() is StoreSight.HELD


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format":9}'])
async def test_a_damaged_description_says_nothing(store: FakeStore, damage: bytes) -> None:
    check = StoreCheck(store, "ours")
    for present, expected in ((INFO, StoreSight.HELD), (None, StoreSight.GONE)):
        store.objects.pop(DATABASE_PATH)
        if present is not None:
            await put(store, present)
        assert await check.look() is expected
        await store.put(DATABASE_PATH, damage, When.ALWAYS)
        assert await check.look() is expected


async def test_a_store_that_does_not_answer_says_nothing(store: FakeStore) -> None:
    check = StoreCheck(store, "ours")

    def down(operation: str, path: str) -> None:
        raise Unavailable("down")

    store.before = down
    assert await check.look() is StoreSight.UNSPECIFIED
    store.before = None
    assert await check.look() is StoreSight.HELD
    store.before = down
    assert await check.look() is StoreSight.HELD
    # An emptied bucket whose bucket is deleted next does not come back by that.
    store.before = None
    store.objects.clear()
    assert await check.look() is StoreSight.GONE
    store.before = down
    assert await check.look() is StoreSight.GONE
