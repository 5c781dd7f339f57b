from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from support.clocks import SeededRandom

from deltadatabase.errors import NotFound, OutcomeUnknown, StartupError, Unavailable
from deltadatabase.model import DatabaseInfo
from deltadatabase.storage.base import Condition, Store, When
from deltadatabase.storage.database import open_database, read_database, reserve_epochs, retire_key
from deltadatabase.storage.objects import MemoryObjects
from deltadatabase.storage.paths import DATABASE_PATH, entity_path


def with_key(key: str) -> Callable[[DatabaseInfo], DatabaseInfo]:
    return lambda info: msgspec.structs.replace(info, keys={key: f"check of {key}"})


def knows(key: str) -> Callable[[DatabaseInfo], DatabaseInfo | None]:
    def check(info: DatabaseInfo) -> DatabaseInfo | None:
        if key not in info.keys:
            raise StartupError("the key does not fit", code="wrong_master_key")
        return None

    return check


def adds(key: str) -> Callable[[DatabaseInfo], DatabaseInfo | None]:
    def check(info: DatabaseInfo) -> DatabaseInfo | None:
        if key in info.keys:
            return None
        return msgspec.structs.replace(info, keys={**info.keys, key: f"check of {key}"})

    return check


async def opened(store: Store, key: str = "k1", seed: int = 0) -> DatabaseInfo:
    return await open_database(
        store, random=SeededRandom(seed), shards=64, create=with_key(key), check=knows(key)
    )


class LosesReplies(MemoryObjects):
    """Stores, and then says nothing, as often as told."""

    lose = 0

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        etag = await super().put(path, data, condition)
        if self.lose:
            self.lose -= 1
            raise OutcomeUnknown("planted")
        return etag


async def test_an_empty_store_gets_a_database_that_is_found_again() -> None:
    store = MemoryObjects()
    made = await opened(store)
    assert (made.shards, made.highest_epoch, set(made.keys)) == (64, 0, {"k1"})
    assert await opened(store, seed=9) == made
    assert await read_database(store) == made


async def test_programs_that_start_together_share_one_database() -> None:
    store = MemoryObjects()
    found = await asyncio.gather(*(opened(store, seed=seed) for seed in range(8)))
    assert all(info == found[0] for info in found)


async def test_a_lost_reply_makes_no_second_database() -> None:
    store = LosesReplies()
    store.lose = 1
    made = await opened(store)
    assert await read_database(store) == made


async def test_a_wrong_key_writes_nothing() -> None:
    store = MemoryObjects()
    await opened(store, "k1")
    before = await store.get(DATABASE_PATH)
    with pytest.raises(StartupError) as caught:
        await opened(store, "k2")
    assert caught.value.code == "wrong_master_key"
    assert await store.get(DATABASE_PATH) == before
    assert len(await store.list("")) == 1


async def test_a_new_key_is_stored_before_it_is_used() -> None:
    store = MemoryObjects()
    await opened(store, "k1")
    info = await open_database(
        store, random=SeededRandom(), shards=1, create=with_key("k2"), check=adds("k2")
    )
    assert set(info.keys) == {"k1", "k2"}
    assert await read_database(store) == info


async def test_keys_added_together_are_all_kept() -> None:
    store = MemoryObjects()
    await opened(store, "k1")
    await asyncio.gather(
        *(
            open_database(store, random=SeededRandom(), shards=1, create=with_key(key), check=adds(key))
            for key in ("k2", "k3", "k4")
        )
    )
    assert set((await read_database(store)).keys) == {"k1", "k2", "k3", "k4"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"database_id":"x","format":2,"shards":1,"highest_epoch":0,"keys":{}}',
        b'{"database_id":"x","format":1,"shards":0,"highest_epoch":0,"keys":{}}',
        b'{"database_id":"x","format":1,"shards":1,"highest_epoch":-1,"keys":{}}',
        b'{"database_id":"x","format":1,"shards":1,"highest_epoch":18446744073709551616,"keys":{}}',
        b'{"other":' + b"[" * 5000,
    ],
)
async def test_what_is_not_understood_is_refused_and_left(data: bytes) -> None:
    store = MemoryObjects()
    await store.put(DATABASE_PATH, data, When.ABSENT)
    with pytest.raises(StartupError) as caught:
        await opened(store)
    assert caught.value.code == "store_refused"
    assert (await store.get(DATABASE_PATH)).data == data


async def test_entities_without_a_database_are_not_overwritten_by_a_new_one() -> None:
    store = MemoryObjects()
    await store.put(entity_path("s", "k"), b"sealed", When.ABSENT)
    with pytest.raises(StartupError) as caught:
        await opened(store)
    assert caught.value.code == "store_refused"
    with pytest.raises(NotFound):
        await store.get(DATABASE_PATH)


async def test_epochs_are_reserved_once() -> None:
    store = MemoryObjects()
    await opened(store)
    assert await reserve_epochs(store, expected=0, highest=100, reservation="a") == (True, 100)
    assert await reserve_epochs(store, expected=0, highest=50, reservation="b") == (False, 100)
    assert (await read_database(store)).highest_epoch == 100


async def test_a_repeated_reservation_is_recognised() -> None:
    store = LosesReplies()
    await opened(store)
    store.lose = 1
    assert await reserve_epochs(store, expected=0, highest=100, reservation="a") == (True, 100)
    assert await reserve_epochs(store, expected=0, highest=100, reservation="a") == (True, 100)
    assert (await read_database(store)).highest_epoch == 100


async def test_one_of_two_main_workers_gets_the_epochs() -> None:
    store = MemoryObjects()
    await opened(store)
    outcomes = await asyncio.gather(
        *(reserve_epochs(store, expected=0, highest=100, reservation=name) for name in "abcd")
    )
    assert sorted(reserved for reserved, _ in outcomes) == [False, False, False, True]


class Gone(MemoryObjects):
    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        raise Unavailable("planted")


async def test_a_store_that_goes_away_is_reported() -> None:
    with pytest.raises(Unavailable):
        await opened(Gone())


async def test_a_retired_key_is_noted_once() -> None:
    store = LosesReplies()
    await opened(store)
    assert not await retire_key(store, "never heard of")
    store.lose = 1
    assert await retire_key(store, "k1")
    assert await retire_key(store, "k1")
    info = await read_database(store)
    assert (info.keys, info.retired_keys) == ({}, ("k1",))
