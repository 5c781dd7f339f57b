"""The store contract (``storage.base.Store``): every backend and fake keeps it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.weed import S3Server

from contract.stores import BACKENDS, DURABLE, open_backend
from deltadatabase.errors import AlreadyExists, Corrupt, Internal, NotFound, OutcomeUnknown, VersionMismatch
from deltadatabase.limits import MIB
from deltadatabase.storage import paths
from deltadatabase.storage.base import Condition, Store, When

FOLDER = "files/s/"
TREE = "cluster/tree/"
"""Unlike a schema's folder it may hold folders."""


@pytest.fixture
def server(backend: str, request: pytest.FixtureRequest) -> S3Server | None:
    return request.getfixturevalue("weed") if backend == "s3" else None


@pytest.fixture
def bucket() -> str:
    return f"contract-{os.urandom(6).hex()}"


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def store(backend: str, tmp_path: Path, server: S3Server | None, bucket: str) -> AsyncIterator[Store]:
    store = await open_backend(backend, tmp_path, server, bucket)
    yield store
    await store.close()


async def test_a_created_object_is_read_back_with_its_etag(store: Store) -> None:
    etag = await store.put(FOLDER + "a", b"one", When.ABSENT)
    stored = await store.get(FOLDER + "a")
    assert (stored.data, stored.etag) == (b"one", etag)
    assert etag


async def test_a_second_create_changes_nothing(store: Store) -> None:
    etag = await store.put(FOLDER + "a", b"one", When.ABSENT)
    with pytest.raises(AlreadyExists):
        await store.put(FOLDER + "a", b"two", When.ABSENT)
    stored = await store.get(FOLDER + "a")
    assert (stored.data, stored.etag) == (b"one", etag)


async def test_an_update_needs_the_current_etag(store: Store) -> None:
    first = await store.put(FOLDER + "a", b"one", When.ABSENT)
    second = await store.put(FOLDER + "a", b"two", first)
    assert second != first
    with pytest.raises(VersionMismatch):
        await store.put(FOLDER + "a", b"three", first)
    assert (await store.get(FOLDER + "a")).data == b"two"
    await store.put(FOLDER + "a", b"three", second)
    assert (await store.get(FOLDER + "a")).data == b"three"


async def test_an_update_of_an_absent_object_makes_none(store: Store) -> None:
    etag = await store.put(FOLDER + "a", b"one", When.ABSENT)
    with pytest.raises(VersionMismatch):
        await store.put(FOLDER + "b", b"two", etag)
    with pytest.raises(NotFound):
        await store.get(FOLDER + "b")


async def test_an_unconditional_put_creates_and_overwrites(store: Store) -> None:
    await store.put(FOLDER + "a", b"one", When.ALWAYS)
    etag = await store.put(FOLDER + "a", b"two", When.ALWAYS)
    assert (await store.get(FOLDER + "a")).etag == etag
    assert (await store.get(FOLDER + "a")).data == b"two"


@pytest.mark.parametrize("size", [0, 1, 8 * MIB])
async def test_objects_of_any_size_come_back_whole(store: Store, size: int) -> None:
    data = os.urandom(size)
    etag = await store.put(FOLDER + "a", data, When.ABSENT)
    stored = await store.get(FOLDER + "a")
    assert stored.data == data
    assert type(stored.data) is bytes
    assert stored.etag == etag
    assert (await store.head(FOLDER + "a")).size_bytes == size


async def test_an_object_larger_than_the_bound_is_refused_by_its_size(
    store: Store, backend: str, tmp_path: Path, server: S3Server | None, bucket: str
) -> None:
    size = 5000
    small = await open_backend(backend, tmp_path, server, bucket, size)
    # What is open already puts it, where both see the same; memory sees only its own.
    putting = store if backend in DURABLE else small
    await putting.put(FOLDER + "fits", b"x" * size, When.ABSENT)
    assert len((await small.get(FOLDER + "fits")).data) == size
    etag = await putting.put(FOLDER + "a", b"x" * (size + 1), When.ABSENT)
    with pytest.raises(Corrupt):
        await small.get(FOLDER + "a")
    with pytest.raises(Corrupt):
        await small.get_if_changed(FOLDER + "a", "")
    # It stays what it is, and can still be listed, described and deleted.
    assert (await small.head(FOLDER + "a")).size_bytes == size + 1
    assert [info.size_bytes for info in await small.list(FOLDER)] == [size + 1, size]
    with pytest.raises(AlreadyExists):
        await small.put(FOLDER + "a", b"mine", When.ABSENT)
    with pytest.raises(VersionMismatch):
        await small.put(FOLDER + "a", b"mine", (await small.get(FOLDER + "fits")).etag)
    if backend in DURABLE:
        assert (await store.get(FOLDER + "a")).etag == etag
    await small.delete(FOLDER + "a")
    with pytest.raises(NotFound):
        await small.get(FOLDER + "a")
    await small.close()


async def race(store: Store, condition: Condition, lost: type[Exception]) -> None:
    """Let many put at once: one wins, the others are told so, and the winner's bytes stay."""
    # SeaweedFS lets concurrent writers of one object wait for each other, seconds when they are many.
    offers = [os.urandom(8) for _ in range(4 if store.backend == "s3" else 32)]
    outcomes = await asyncio.gather(
        *(store.put(FOLDER + "a", offer, condition) for offer in offers), return_exceptions=True
    )
    pairs = list(zip(offers, outcomes, strict=True))
    winners = [offer for offer, outcome in pairs if isinstance(outcome, str)]
    unknown = [offer for offer, outcome in pairs if isinstance(outcome, OutcomeUnknown)]
    assert {type(outcome) for outcome in outcomes} <= {str, lost, OutcomeUnknown}
    assert len(winners) == 1 or (unknown and not winners)
    assert store.backend == "s3" or not unknown
    stored = await store.get(FOLDER + "a")
    assert stored.data in (winners or unknown)
    assert not winners or stored.etag in outcomes


async def test_one_of_many_concurrent_creates_wins(store: Store) -> None:
    await race(store, When.ABSENT, AlreadyExists)


async def test_one_of_many_concurrent_updates_wins_each_round(store: Store) -> None:
    await store.put(FOLDER + "a", b"start", When.ABSENT)
    for _ in range(3):
        await race(store, (await store.get(FOLDER + "a")).etag, VersionMismatch)


async def test_a_conditional_read_tells_unchanged_from_changed(store: Store) -> None:
    first = await store.put(FOLDER + "a", b"one", When.ABSENT)
    assert await store.get_if_changed(FOLDER + "a", first) is None
    second = await store.put(FOLDER + "a", b"two", first)
    changed = await store.get_if_changed(FOLDER + "a", first)
    assert changed is not None
    assert (changed.data, changed.etag) == (b"two", second)
    read = await store.get_if_changed(FOLDER + "a", "")
    assert read is not None


async def test_what_is_absent_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.get(FOLDER + "a")
    with pytest.raises(NotFound):
        await store.get_if_changed(FOLDER + "a", '"00000000000000000000000000000000"')
    with pytest.raises(NotFound):
        await store.head(FOLDER + "a")
    assert list(await store.list(FOLDER)) == []
    assert list(await store.folders(FOLDER)) == []


async def test_head_describes_what_get_reads(store: Store) -> None:
    etag = await store.put(FOLDER + "a", b"one", When.ABSENT)
    info = await store.head(FOLDER + "a")
    stored = await store.get(FOLDER + "a")
    assert (info.path, info.size_bytes, info.etag) == (FOLDER + "a", 3, etag)
    assert info.updated_ms // 1000 == stored.updated_ms // 1000


async def test_what_is_there_or_not_can_be_settled(store: Store) -> None:
    await store.settle(FOLDER + "a")
    etag = await store.put(FOLDER + "a", b"one", When.ABSENT)
    await store.settle(FOLDER + "a")
    assert (await store.get(FOLDER + "a")).etag == etag


async def test_delete_removes_and_may_be_repeated(store: Store) -> None:
    await store.put(FOLDER + "a", b"one", When.ABSENT)
    await store.delete(FOLDER + "a")
    with pytest.raises(NotFound):
        await store.get(FOLDER + "a")
    assert list(await store.list(FOLDER)) == []
    await store.delete(FOLDER + "a")
    await store.delete("files/never/was")
    await store.put(FOLDER + "a", b"two", When.ABSENT)
    assert (await store.get(FOLDER + "a")).data == b"two"


REMOVING = tuple(name for name in BACKENDS if name != "s3")


def test_every_backend_is_either_removing_or_known_not_to_be(store: Store) -> None:
    assert store.removes == (store.backend != "s3")


@pytest.mark.parametrize("backend", REMOVING, indirect=True)
async def test_a_removal_takes_exactly_the_object_that_it_names(store: Store) -> None:
    first = await store.put(FOLDER + "a", b"one", When.ABSENT)
    second = await store.put(FOLDER + "a", b"two", first)
    # "" is what a listing may tell of an object; it names none.
    for stale in (first, "", "0" * 32):
        with pytest.raises(VersionMismatch):
            await store.remove(FOLDER + "a", stale)
    assert (await store.get(FOLDER + "a")).data == b"two"
    await store.remove(FOLDER + "a", second)
    with pytest.raises(NotFound):
        await store.get(FOLDER + "a")
    assert list(await store.list(FOLDER)) == []
    for etag in (first, second, ""):
        with pytest.raises(VersionMismatch):
            await store.remove(FOLDER + "a", etag)
    with pytest.raises(VersionMismatch):
        await store.remove("files/never/was", second)
    await store.put(FOLDER + "a", b"three", When.ABSENT)


@pytest.mark.parametrize("backend", REMOVING, indirect=True)
async def test_an_update_and_a_removal_of_one_object_never_both_win(store: Store) -> None:
    for number in range(20):
        path = f"{FOLDER}{number}"
        etag = await store.put(path, b"old %d" % number, When.ABSENT)
        removal, update = await asyncio.gather(
            store.remove(path, etag), store.put(path, b"new %d" % number, etag), return_exceptions=True
        )
        if removal is None:
            assert isinstance(update, VersionMismatch)
            with pytest.raises(NotFound):
                await store.get(path)
        else:
            assert isinstance(removal, VersionMismatch)
            assert (await store.get(path)).etag == update


@pytest.mark.parametrize("backend", ["s3"], indirect=True)
async def test_a_store_that_cannot_compare_refuses_to_remove(store: Store) -> None:
    etag = await store.put(FOLDER + "a", b"one", When.ABSENT)
    with pytest.raises(Internal):
        await store.remove(FOLDER + "a", etag)
    assert (await store.get(FOLDER + "a")).data == b"one"


@pytest.mark.parametrize("backend", REMOVING, indirect=True)
async def test_an_etag_that_names_nothing_meets_nothing(store: Store) -> None:
    with pytest.raises(VersionMismatch):
        await store.put(FOLDER + "a", b"one", "")
    with pytest.raises(NotFound):
        await store.get(FOLDER + "a")


async def test_one_call_lists_a_large_folder(store: Store, backend: str) -> None:
    count = 1200 if backend == "s3" else 3000
    for begin in range(0, count, 100):
        await asyncio.gather(
            *(store.put(f"{FOLDER}{number:05}", b"", When.ABSENT) for number in range(begin, begin + 100))
        )
    listed = await store.list(FOLDER, limit=100_000)
    assert [info.path for info in listed] == [f"{FOLDER}{number:05}" for number in range(count)]


NAMES = ("a", "a-", "a-b", "a.b", "a=2Fb", "a_b", "aB", "ab", "A", "-", "0", "_", "~", "=2E", "a.b.json")


async def test_a_listing_is_in_byte_order_and_pages_without_gap_or_repeat(store: Store) -> None:
    for name in reversed(NAMES):
        await store.put(FOLDER + name, b"x" * len(name), When.ABSENT)
    # Neighbours that must not slip in.
    for other in ("files/s-t/a", "files/s.t/a", "files/t/a", "files/r/a", "templates/s.json"):
        await store.put(other, b"", When.ABSENT)
    expected = sorted(FOLDER + name for name in NAMES)
    listed = await store.list(FOLDER)
    assert [info.path for info in listed] == expected
    assert [info.size_bytes for info in listed] == [len(path) - len(FOLDER) for path in expected]
    for limit in (1, 4, len(NAMES) - 1, len(NAMES)):
        paged: list[str] = []
        after = ""
        while True:
            page = await store.list(FOLDER, after=after, limit=limit)
            assert len(page) <= limit
            paged += [info.path for info in page]
            if len(page) < limit:
                break
            after = page[-1].path
        assert paged == expected


async def test_a_listing_begins_behind_a_name_that_need_not_exist(store: Store) -> None:
    for name in NAMES:
        await store.put(FOLDER + name, b"", When.ABSENT)
    expected = sorted(FOLDER + name for name in NAMES)
    for after in (
        FOLDER,
        FOLDER + "a!",
        FOLDER + "a.b.",
        FOLDER + "zz",
        FOLDER + "a=2",
        "files/r",
        "files/t",
    ):
        listed = await store.list(FOLDER, after=after)
        assert [info.path for info in listed] == [path for path in expected if path > after], after


async def test_a_listing_of_folders_in_folders_is_in_byte_order(store: Store) -> None:
    tree = ("a-b/x", "a.b/x", "a/b", "a/b-", "a/c/d", "a=b/x", "a0/x", "ab/x", "b")
    for path in tree:
        await store.put(TREE + path, b"", When.ABSENT)
    expected = sorted(TREE + path for path in tree)
    assert [info.path for info in await store.list(TREE)] == expected
    for after in [*expected, TREE + "a", TREE + "a/", TREE + "a-", TREE + "a/c"]:
        behind = [path for path in expected if path > after]
        assert [info.path for info in await store.list("cluster/tree/", after=after)] == behind, after
        assert [info.path for info in await store.list("cluster/tree/", after=after, limit=2)] == behind[
            :2
        ], after


async def test_folders_are_named_once_and_in_order(store: Store) -> None:
    for path in ("b/1", "b/2", "a/1", "a-b/1", "a.b/1", "loose"):
        await store.put("files/" + path, b"", When.ABSENT)
    await store.put("templates/x.json", b"", When.ABSENT)
    assert list(await store.folders("files/")) == ["a", "a-b", "a.b", "b"]
    # A directory has its lock files in another one.
    assert [name for name in await store.folders("") if name != "cluster"] == ["files", "templates"]


async def test_every_key_is_its_own_object(store: Store) -> None:
    keys = [
        "a/b",
        "a=2Fb",
        "a%2Fb",
        "a b",
        "ä",
        "a\u0308",
        "😀",
        "..",
        ".",
        ".a",
        "a\\b",
        "=",
        "%",
        "a.json.enc",
        "x" * 240,
    ]
    for key in keys:
        await store.put(paths.entity_path("s", key), key.encode(), When.ABSENT)
    for key in keys:
        assert (await store.get(paths.entity_path("s", key))).data == key.encode()
    listed = [paths.parse_entity_path(info.path) for info in await store.list(FOLDER)]
    assert sorted(listed) == sorted(("s", key) for key in keys)


@pytest.mark.parametrize("backend", DURABLE, indirect=True)
async def test_a_store_opened_again_holds_what_was_acknowledged(
    store: Store, backend: str, tmp_path: Path, server: S3Server | None, bucket: str
) -> None:
    etag = await store.put(FOLDER + "a", b"one", When.ABSENT)
    await store.close()
    again = await open_backend(backend, tmp_path, server, bucket)
    stored = await again.get(FOLDER + "a")
    assert (stored.data, stored.etag) == (b"one", etag)
    await again.put(FOLDER + "a", b"two", etag)
    await again.close()


@pytest.mark.parametrize("backend", DURABLE, indirect=True)
async def test_two_stores_on_the_same_data_agree(
    store: Store, backend: str, tmp_path: Path, server: S3Server | None, bucket: str
) -> None:
    other = await open_backend(backend, tmp_path, server, bucket)
    outcomes = await asyncio.gather(
        *(each.put(FOLDER + "a", os.urandom(8), When.ABSENT) for each in (store, other) * 2),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
    assert await store.get(FOLDER + "a") == await other.get(FOLDER + "a")
    await other.close()
