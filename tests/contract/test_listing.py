"""Lists of entities, by a worker on every backend, against what was written."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from support.folder_store import FakeFolders
from support.weed import S3Server
from support.workers import make_committer

from contract.stores import open_backend
from deltadatabase.clock import SystemClock
from deltadatabase.limits import LIST_PAGE_MAX, LISTING_REQUESTS_MAX
from deltadatabase.model import Command, ListedEntity, Op
from deltadatabase.storage.base import Store, When
from deltadatabase.storage.bucket import ensure_bucket
from deltadatabase.storage.local import DirectoryObjects
from deltadatabase.storage.metered import MeteredStore, StoreMeter
from deltadatabase.storage.objects import S3Objects
from deltadatabase.storage.paths import entity_path, escape_key, listing_order, meta_path
from deltadatabase.worker.listing import Lister
from deltadatabase.worker.name_index import NameIndexes

BACKENDS = ("memory", "fake", "folders", "directory", "journaled", "s3")
TERMS = (3,) * 16
KEYS = ("a", "a-", "a-b", "a.b", "a/b", "a.json.enc", ".a", "A", "-", "0", "é", "ab", "a b", "=", "b", "zz")


@dataclass
class Place:
    """One worker's ways to a store."""

    store: Store
    meter: StoreMeter = field(default_factory=StoreMeter)
    writes: int = 0

    def __post_init__(self) -> None:
        clock = SystemClock()
        self.metered = MeteredStore(self.store, self.meter, clock)
        self.indexes = NameIndexes(self.metered, clock=clock) if self.store.backend == "directory" else None
        self.lister = Lister(self.metered, self.indexes)
        self.committer = make_committer(self.metered, clock=clock, names=self.indexes)

    async def put(self, key: str, schema_id: str = "s") -> None:
        await self._write(Op.PUT, key, schema_id)
        await self.store.put(meta_path(schema_id, key), b"{}", When.ALWAYS)

    async def delete(self, key: str, schema_id: str = "s") -> None:
        await self._write(Op.DELETE, key, schema_id)

    async def _write(self, op: Op, key: str, schema_id: str) -> None:
        self.writes += 1
        await self.committer.execute(
            Command(
                op=op,
                schema_id=schema_id,
                key=key,
                shard=0,
                term=3,
                write_id=self.writes.to_bytes(8, "big") * 2,
                document=b"{}" if op is Op.PUT else b"",
                validated=True,
            )
        )

    async def page(self, **fields: object) -> tuple[tuple[ListedEntity, ...], str]:
        command = Command(op=Op.LIST, **{"schema_id": "s", "terms": TERMS, "number": 1000, **fields})  # type: ignore[arg-type]
        result = await self.lister.page(command)
        return result.entities, result.next

    async def whole(self, **fields: object) -> list[ListedEntity]:
        found: list[ListedEntity] = []
        after = ""
        while True:
            entities, following = await self.page(key=after, **fields)
            found += entities
            if not following:
                return found
            assert listing_order(following) > (listing_order(after) if after else "")
            after = following

    def requests(self) -> dict[str, float]:
        counts: dict[str, float] = {}
        for (kind, _), count in self.meter.requests().items():
            counts[kind] = counts.get(kind, 0) + count
        return {kind: count for kind, count in counts.items() if count}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def place(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    server: S3Server | None = request.getfixturevalue("weed") if backend == "s3" else None
    if backend == "folders":
        store: Store = FakeFolders()
    else:
        store = await open_backend(backend, tmp_path, server, f"listing-{os.urandom(6).hex()}")
    place = Place(store)
    yield place
    await place.committer.settle(1.0)
    if place.indexes is not None:
        await place.indexes.close()
    await store.close()


def in_order(*keys: str) -> list[str]:
    return sorted(map(escape_key, keys), key=listing_order)


def names(entities: list[ListedEntity] | tuple[ListedEntity, ...]) -> list[str]:
    return [entity.name for entity in entities]


async def test_what_was_written_is_listed_in_order_whatever_the_pages(place: Place) -> None:
    for key in KEYS:
        await place.put(key)
    await place.put("a", "s-t")
    await place.put("a", "r")
    for limit in (1, 3, len(KEYS), 1000):
        assert names(await place.whole(number=limit)) == in_order(*KEYS)
    for deleted in ("a", "a-b", "zz"):
        await place.delete(deleted)
    left = set(KEYS) - {"a", "a-b", "zz"}
    for limit in (1, 3, 1000):
        assert names(await place.whole(number=limit)) == in_order(*left)
        everything = await place.whole(number=limit, deleted=True)
        assert names(everything) == in_order(*KEYS)
        assert {entity.name for entity in everything if entity.deleted} == {"a", "a-b", "zz"}


async def test_a_prefix_takes_what_begins_with_it(place: Place) -> None:
    for key in KEYS:
        await place.put(key)
    for prefix in ("a", "a-", "a.", "a.json", "a.json.enc", ".", "é", "b", "=", "zzz", "A"):
        wanted = [key for key in KEYS if key.startswith(prefix)]
        for limit in (1, 2, 1000):
            found = await place.whole(prefix=escape_key(prefix), number=limit)
            assert names(found) == in_order(*wanted), prefix


async def test_a_page_begins_behind_a_name_that_need_not_exist(place: Place) -> None:
    for key in KEYS:
        await place.put(key)
    for after in ("a", "a.a", "aa", "-", "zzzz", "=00"):
        expected = [name for name in in_order(*KEYS) if listing_order(name) > listing_order(after)]
        assert names((await place.page(key=after))[0]) == expected


async def test_size_and_time_are_the_objects(place: Place) -> None:
    await place.put("a")
    ((entity,), _) = await place.page()
    stored = await place.store.get(entity_path("s", "a"))
    assert entity.size_bytes == len(stored.data)
    # Some servers list whole seconds, and read out more.
    assert abs(entity.updated_ms - stored.updated_ms) <= 1000


async def test_nothing_else_that_lies_there_is_listed(place: Place) -> None:
    await place.put("b")
    for other in ("a=41.json.enc", "a", "b.json", "c.meta.json", "b.json.enc.bak", "=2E.json"):
        await place.store.put("files/s/" + other, b"x", When.ABSENT)
    assert names(await place.whole()) == ["b"]
    assert await place.whole(schema_id="nobody") == []


async def test_a_list_shows_every_write_before_it_and_nothing_deleted(place: Place) -> None:
    for number in range(6):
        await place.put(f"k{number}")
        assert names(await place.whole()) == [f"k{seen}" for seen in range(number + 1)]
    for number in range(6):
        await place.delete(f"k{number}")
        assert names(await place.whole()) == [f"k{left}" for left in range(number + 1, 6)]
    await place.put("k3")
    assert names(await place.whole()) == ["k3"]


async def test_a_page_among_tombstones_costs_few_list_requests(place: Place, backend: str) -> None:
    sealed = await _tombstone(place)
    count = (LISTING_REQUESTS_MAX + 2) * LIST_PAGE_MAX if backend != "s3" else 2 * LIST_PAGE_MAX
    paths = [f"files/s/k{number:06}.json.enc" for number in range(count)]
    if isinstance(place.store, DirectoryObjects):
        (place.store.root / "files/s").mkdir(parents=True)
        for path in paths:
            (place.store.root / path).write_bytes(sealed)
    else:
        for begin in range(0, count, 500):
            part = paths[begin : begin + 500]
            await asyncio.gather(*(place.store.put(path, sealed, When.ALWAYS) for path in part))
    await place.put("z")
    await place.page()  # An index is made by the first of all.
    before = place.requests()
    entities, following = await place.page(number=10)
    after = place.requests()
    spent = {kind: after[kind] - before.get(kind, 0) for kind in after if after[kind] != before.get(kind, 0)}
    assert set(spent) == {"list"}
    assert spent["list"] <= LISTING_REQUESTS_MAX + 1
    if backend != "s3":
        assert (entities, bool(following)) == ((), True)
    assert names(await place.whole(number=10)) == ["z"]


async def _tombstone(place: Place) -> bytes:
    await place.put("gone", "t")
    await place.delete("gone", "t")
    return (await place.store.get(entity_path("t", "gone"))).data


@pytest.mark.parametrize("backend", ["memory", "fake"], indirect=True)
async def test_foreign_objects_alone_do_not_keep_a_page_from_its_end(place: Place) -> None:
    for number in range(3 * LIST_PAGE_MAX):
        await place.store.put(f"files/s/k{number:06}.meta.json", b"", When.ALWAYS)
    await place.put("z")
    assert names(await place.whole(number=1)) == ["z"]


class Relay:
    """Passes a server's bytes on, and counts the list requests among them."""

    def __init__(self, port: int) -> None:
        self.lists = 0
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(self._pass(reader, back_writer), self._pass(back_reader, writer))
        finally:
            for end in (writer, back_writer):
                end.close()
                with contextlib.suppress(ConnectionError):
                    await end.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.lists += data.count(b"list-type=2")
                writer.write(data)
                await writer.drain()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_a_thousand_names_of_a_bucket_are_one_request_wherever_they_begin(weed: S3Server) -> None:
    settings = weed.settings(f"listing-{os.urandom(6).hex()}")
    relay = Relay(weed.ports["s3"])
    listener = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        store = S3Objects(msgspec.structs.replace(settings, endpoint=f"http://127.0.0.1:{port}"))
        await ensure_bucket(store)
        names = [f"files/s/k{number:05}.json.enc" for number in range(2200)]
        for begin in range(0, len(names), 100):
            await asyncio.gather(
                *(store.put(name, b"xx", When.ALWAYS) for name in names[begin : begin + 100])
            )
        for begin in (0, 600, 1100):
            relay.lists = 0
            listed = await store.list("files/s/", after=names[begin], limit=1000)
            assert [info.path for info in listed] == names[begin + 1 : begin + 1001]
            assert relay.lists == 1
        await store.close()
        await relay.close()
