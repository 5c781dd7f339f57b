"""Indexes of names: built once for a term, followed, given up, made anew."""

from __future__ import annotations

import asyncio

import pytest
from support.clocks import FakeClock
from support.folder_store import FakeFolders

from deltadatabase.errors import NotOwner, Unavailable
from deltadatabase.placement.ring import shard_of
from deltadatabase.storage.base import When
from deltadatabase.storage.paths import entity_path, meta_path
from deltadatabase.worker.name_index import NameIndexes, Terms

SHARDS = 8
ALL: Terms = (5,) * SHARDS
KEYS = [f"k{number}" for number in range(40)]


def terms(term: int, *shards: int) -> Terms:
    return tuple(term if shard in shards else 0 for shard in range(SHARDS))


def owned(keys: list[str], own: Terms) -> list[str]:
    return sorted(key for key in keys if own[shard_of("s", key, SHARDS)])


@pytest.fixture
async def store() -> FakeFolders:
    store = FakeFolders()
    for key in KEYS:
        await put(store, key)
        await store.put(meta_path("s", key), b"{}", When.ALWAYS)
    await store.put("files/s/no-entity", b"x", When.ABSENT)
    await store.put("files/s/a=41.json.enc", b"x", When.ABSENT)
    await store.put(entity_path("t", "k0"), b"x", When.ABSENT)
    return store


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def indexes(store: FakeFolders, clock: FakeClock) -> NameIndexes:
    return NameIndexes(store, clock=clock)


async def put(store: FakeFolders, key: str) -> None:
    await store.put(entity_path("s", key), b"x", When.ALWAYS)


async def names(indexes: NameIndexes, own: Terms = ALL, schema_id: str = "s") -> list[str]:
    index = await indexes.get(schema_id, own)
    assert index is not None
    found, following = index.after(own, "", "", 1000)
    assert following == ""
    return found


async def test_the_folder_is_read_once_and_then_followed(indexes: NameIndexes, store: FakeFolders) -> None:
    assert await names(indexes) == sorted(KEYS)
    indexes.stored(("s", "new/one"))
    indexes.stored(("s", "k1"))
    indexes.removed(("s", "k2"))
    indexes.stored(("other", "k"))
    assert await names(indexes) == sorted({*KEYS, "new=2Fone"} - {"k2"})
    assert store.scans == 1


async def test_only_the_shards_that_are_owned_are_in_it(indexes: NameIndexes) -> None:
    own = terms(5, 1, 2, 6)
    assert await names(indexes, own) == owned(KEYS, own)
    for key in ("new1", "new2", "new3", "new4", "new5", "new6"):
        indexes.stored(("s", key))
    assert await names(indexes, own) == owned([*KEYS, *(f"new{n}" for n in range(1, 7))], own)


async def test_a_newer_term_reads_the_folder_again(indexes: NameIndexes, store: FakeFolders) -> None:
    await names(indexes)
    await put(store, "of-another-owner")
    newer = (6, *ALL[1:])
    assert await names(indexes, newer) == sorted([*KEYS, "of-another-owner"])
    assert store.scans == 2


async def test_shards_that_were_given_away_are_left_out_without_reading(
    indexes: NameIndexes, store: FakeFolders
) -> None:
    await names(indexes)
    fewer = terms(5, 0, 3)
    assert await names(indexes, fewer) == owned(KEYS, fewer)
    assert store.scans == 1
    # Their owner wrote since; under the new term of those that came back that must show.
    await put(store, "of-another-owner")
    again = tuple(own or 9 for own in fewer)
    assert await names(indexes, again) == sorted([*KEYS, "of-another-owner"])


async def test_terms_of_the_past_are_refused(indexes: NameIndexes) -> None:
    await names(indexes, (6,) * SHARDS)
    with pytest.raises(NotOwner):
        await indexes.get("s", ALL)
    assert await names(indexes, (6,) * SHARDS) == sorted(KEYS)


async def test_a_late_question_does_not_stop_a_newer_one_that_is_being_answered(
    indexes: NameIndexes, store: FakeFolders
) -> None:
    newer = asyncio.ensure_future(names(indexes, (6,) * SHARDS))
    await asyncio.sleep(0)
    with pytest.raises(NotOwner):
        await indexes.get("s", ALL)
    assert await newer == sorted(KEYS)
    assert store.scans == 1


async def test_a_newer_question_takes_the_place_of_one_that_is_being_answered(indexes: NameIndexes) -> None:
    older = asyncio.ensure_future(names(indexes))
    for _ in range(6):
        await asyncio.sleep(0)
    assert await names(indexes, (6,) * SHARDS) == sorted(KEYS)
    with pytest.raises(NotOwner):
        await older


async def test_changes_while_the_folder_is_read_are_in_it(indexes: NameIndexes, store: FakeFolders) -> None:
    building = asyncio.ensure_future(names(indexes))
    for key in ("k0", "k5", "k39", "new"):
        await put(store, key)  # Overwritten, so that the scan may miss it.
        indexes.stored(("s", key))
        await asyncio.sleep(0)
    del store.objects[entity_path("s", "k7")]
    indexes.removed(("s", "k7"))
    assert not building.done()
    assert await building == sorted({*KEYS, "new"} - {"k7"})


async def test_who_goes_away_does_not_stop_the_reading(indexes: NameIndexes, store: FakeFolders) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await names(indexes)
    assert await names(indexes) == sorted(KEYS)
    assert store.scans == 1


async def test_a_folder_that_cannot_be_read_says_so_to_each_and_is_tried_again(
    indexes: NameIndexes, store: FakeFolders
) -> None:
    def fail(operation: str, path: str) -> None:
        if operation == "scan":
            raise Unavailable("the disk cannot be read")

    store.before = fail
    outcomes = await asyncio.gather(names(indexes), names(indexes), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    store.before = None
    assert await names(indexes) == sorted(KEYS)


async def test_what_nobody_noted_is_found_when_the_folder_is_read_again(
    indexes: NameIndexes, store: FakeFolders, clock: FakeClock
) -> None:
    await names(indexes)
    await put(store, "late")
    clock.advance(200)
    assert "late" not in await names(indexes)
    clock.advance(200)
    await names(indexes)  # Begins to read, and answers from what it has.
    for _ in range(200):
        await asyncio.sleep(0)
    assert "late" in await names(indexes)
    assert store.scans == 2
    clock.advance(400)
    await names(indexes)
    await asyncio.sleep(0.01)
    assert store.scans == 2, "nothing came or went"


async def test_one_that_is_too_large_is_not_kept_and_pages_are_right_all_the_same(
    store: FakeFolders, clock: FakeClock
) -> None:
    indexes = NameIndexes(store, clock=clock, bytes_max=100)
    own = terms(5, 1, 2, 3, 4)
    assert await indexes.get("s", own) is None
    assert await indexes.get("s", own) is None
    assert store.scans == 1
    assert indexes.bytes == 0
    expected = owned(KEYS, own)
    assert await indexes.smallest("s", own, "", "", 5) == (expected[:5], expected[4])
    assert await indexes.smallest("s", own, expected[4], "k1", 1000) == (
        [name for name in expected[5:] if name.startswith("k1")],
        "",
    )


async def test_a_page_without_an_index_shows_what_comes_meanwhile(store: FakeFolders) -> None:
    indexes = NameIndexes(store, clock=FakeClock(), bytes_max=1)
    page = asyncio.ensure_future(indexes.smallest("s", ALL, "", "", 1000))
    await asyncio.sleep(0)
    await put(store, "k5")
    await put(store, "aa")
    indexes.stored(("s", "k5"))
    indexes.stored(("s", "aa"))
    found, _ = await page
    assert found == sorted([*KEYS, "aa"])


async def test_the_one_that_was_not_used_for_longest_makes_room(store: FakeFolders, clock: FakeClock) -> None:
    for schema_id in ("t", "u", "v"):
        for key in KEYS:
            await store.put(entity_path(schema_id, key), b"x", When.ALWAYS)
    one = NameIndexes(store, clock=clock)
    await names(one)
    indexes = NameIndexes(store, clock=clock, bytes_max=2 * one.bytes + 10)
    for schema_id in ("s", "t", "s", "u"):
        clock.advance(1)
        await names(indexes, ALL, schema_id)
    scans = store.scans
    await names(indexes)
    assert store.scans == scans
    await names(indexes, ALL, "t")
    assert store.scans == scans + 1


async def test_one_that_nobody_asks_for_goes_after_a_while(store: FakeFolders) -> None:
    clock = FakeClock()
    indexes = NameIndexes(store, clock=clock, idle_s=0.02)
    await names(indexes)
    assert indexes.bytes > 0
    clock.advance(1)
    async with asyncio.timeout(5):
        while indexes.bytes:
            await asyncio.sleep(0.005)
    await indexes.close()


async def test_closing_ends_what_is_being_read(indexes: NameIndexes) -> None:
    building = asyncio.ensure_future(indexes.get("s", ALL))
    await asyncio.sleep(0)
    await indexes.close()
    with pytest.raises(Unavailable):
        await building
    assert indexes.bytes == 0
