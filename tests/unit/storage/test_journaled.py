"""What a journal adds to the directory backend: one sync a batch, late files, and taking turns."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.clocks import FakeClock, SeededRandom

from deltadatabase.clock import SystemClock, system_random
from deltadatabase.errors import (
    NotFound,
    OutcomeUnknown,
    StartupError,
    StoreFull,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.limits import (
    JOURNAL_HELD_BYTES,
    JOURNAL_IDLE_S,
    JOURNAL_PERIOD_S,
    JOURNAL_RECORD_BYTES_MAX,
)
from deltadatabase.storage.base import When
from deltadatabase.storage.batch import digest
from deltadatabase.storage.directory_hold import DirectoryHold
from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.disk import OsDisk
from deltadatabase.storage.journal import Segment
from deltadatabase.storage.journal_format import Change, frame
from deltadatabase.storage.journaled import JournaledDirectory
from deltadatabase.storage.local import DirectoryObjects

PATH = "files/s/a.json.enc"
META = "files/s/a.meta.json"


class Disk(OsDisk):
    """Counts, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.failing: dict[str, OSError] = {}

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.failing:
            raise self.failing[call]

    def write(self, fd: int, data: memoryview) -> int:
        self._note("write")
        return super().write(fd, data)

    def rename(self, source: Path, target: Path) -> None:
        self._note("rename")
        super().rename(source, target)

    def sync_data(self, fd: int) -> None:
        self._note("sync_data")
        super().sync_data(fd)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def reasons() -> list[str]:
    return []


@pytest.fixture
async def store(
    tmp_path: Path, clock: FakeClock, disk: Disk, reasons: list[str]
) -> AsyncIterator[JournaledDirectory]:
    store = JournaledDirectory(
        tmp_path / "data", clock=clock, random=SeededRandom(), on_fatal=reasons.append, disk=disk
    )
    yield store
    await store.close()


def segments(store: DirectoryObjects) -> list[str]:
    try:
        return os.listdir(store.root / "cluster" / ".journal")
    except FileNotFoundError:
        return []


async def emptied(store: JournaledDirectory, clock: FakeClock) -> None:
    clock.advance(JOURNAL_PERIOD_S)
    async with asyncio.timeout(10):
        while segments(store):
            await asyncio.sleep(0.01)


async def test_a_put_is_one_synced_append_and_its_file_comes_later(
    store: JournaledDirectory, disk: Disk, clock: FakeClock
) -> None:
    first = await store.put(PATH, b"one", When.ABSENT)
    second = await store.put(PATH, b"two", first)
    assert disk.calls == ["write", "sync_data"] * 2
    assert not (store.root / PATH).exists()
    assert (await store.get(PATH)).data == b"two"
    assert (await store.head(PATH)).etag == second
    await emptied(store, clock)
    assert (store.root / PATH).read_bytes() == b"two"
    assert disk.calls.count("rename") == 1
    assert (await store.get(PATH)).etag == second


async def test_commits_in_flight_together_share_one_sync(store: JournaledDirectory, disk: Disk) -> None:
    await asyncio.gather(*(store.put(f"files/s/{number}", b"x", When.ABSENT) for number in range(100)))
    assert disk.calls.count("sync_data") == 1


async def test_many_versions_of_one_object_are_one_file(
    store: JournaledDirectory, disk: Disk, clock: FakeClock
) -> None:
    etag = await store.put(PATH, b"0", When.ABSENT)
    for number in range(1, 50):
        etag = await store.put(PATH, b"%d" % number, etag)
    await emptied(store, clock)
    assert (store.root / PATH).read_bytes() == b"49"
    assert disk.calls.count("rename") == 1


async def test_closing_leaves_an_empty_journal(tmp_path: Path, clock: FakeClock) -> None:
    store = JournaledDirectory(tmp_path, clock=clock, random=SeededRandom())
    etag = await store.put(PATH, b"one", When.ABSENT)
    await store.put("files/s/b", b"gone", When.ABSENT)
    await store.remove("files/s/b", digest(b"gone"))
    await store.put(PATH, b"two", etag)
    assert segments(store)
    await store.close()
    assert not segments(store)
    assert (tmp_path / PATH).read_bytes() == b"two"
    assert not (tmp_path / "files/s/b").exists()


async def test_a_meta_file_costs_no_sync(store: JournaledDirectory, disk: Disk, clock: FakeClock) -> None:
    await store.put(META, b"{}", When.ALWAYS)
    assert disk.calls == []
    assert (await store.get(META)).data == b"{}"
    assert [info.path for info in await store.list("files/s/")] == [META]
    await store.put(PATH, b"one", When.ABSENT)
    await emptied(store, clock)
    assert (store.root / META).read_bytes() == b"{}"
    await store.delete(META)
    with pytest.raises(NotFound):
        await store.get(META)


async def test_a_large_object_goes_to_its_file_at_once(store: JournaledDirectory) -> None:
    large = bytes(JOURNAL_RECORD_BYTES_MAX + 1)
    small = await store.put(PATH, b"small", When.ABSENT)
    with pytest.raises(VersionMismatch):
        await store.put(PATH, large, digest(b"another"))
    etag = await store.put(PATH, large, small)
    assert (store.root / PATH).stat().st_size == len(large)
    again = await store.put(PATH, b"small again", etag)
    assert (await store.get(PATH)).etag == again
    await store.put("templates/s.json", b"{}", When.ALWAYS)
    assert (store.root / "templates/s.json").exists()


async def test_a_full_disk_refuses_and_reads_go_on(
    store: JournaledDirectory, disk: Disk, clock: FakeClock, reasons: list[str]
) -> None:
    etag = await store.put(PATH, b"one", When.ABSENT)
    disk.failing["write"] = OSError(errno.ENOSPC, "full")
    with pytest.raises(StoreFull):
        await store.put(PATH, b"two", etag)
    assert (await store.get(PATH)).data == b"one"
    # Now the files cannot be written either.
    clock.advance(JOURNAL_PERIOD_S)
    await asyncio.sleep(0.5)
    with pytest.raises(StoreFull):
        await store.put("files/s/b", b"b", When.ABSENT)
    assert (await store.get(PATH)).data == b"one"
    disk.failing.clear()
    async with asyncio.timeout(10):
        while segments(store):
            await asyncio.sleep(0.01)
    await store.put(PATH, b"two", etag)
    assert not reasons


async def test_a_failed_sync_is_fatal_and_nothing_is_acknowledged(
    store: JournaledDirectory, disk: Disk, reasons: list[str]
) -> None:
    disk.failing["sync_data"] = OSError(errno.EIO, "broken")
    with pytest.raises(OutcomeUnknown):
        await store.put(PATH, b"one", When.ABSENT)
    assert "EIO" in reasons[0]
    with pytest.raises(NotFound):
        await store.get(PATH)
    with pytest.raises(Unavailable):
        await store.put(PATH, b"one", When.ABSENT)


async def test_a_directory_that_is_gone_takes_nothing(store: JournaledDirectory, tmp_path: Path) -> None:
    await store.put(PATH, b"one", When.ABSENT)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(Unavailable) as caught:
        await store.put("files/s/b", b"two", When.ABSENT)
    assert caught.value.code == "store_gone"
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    await store.put("files/s/b", b"two", When.ABSENT)


async def test_who_comes_waits_for_the_files_and_who_stays_shares(tmp_path: Path) -> None:
    server = JournaledDirectory(tmp_path, clock=SystemClock(), random=system_random)
    etag = await server.put(PATH, b"one", When.ABSENT)
    assert not (tmp_path / PATH).exists()
    other = await asyncio.to_thread(DirectoryObjects, tmp_path, clock=SystemClock(), random=system_random)
    assert (tmp_path / PATH).read_bytes() == b"one"
    second = await other.put(PATH, b"two", etag)
    with pytest.raises(VersionMismatch):
        await server.put(PATH, b"mine", etag)
    third = await server.put(PATH, b"three", second)
    assert (await other.get(PATH)).etag == third
    assert not segments(server)
    await other.close()
    # Alone again, after a while.
    async with asyncio.timeout(10):
        while not segments(server):
            third = await server.put(PATH, os.urandom(8), third)
            await asyncio.sleep(0.05)
    await server.close()


def left_behind(root: Path, *batches: list[Change], file: bytes | None = None) -> None:
    """A directory as a killed server leaves it."""
    layout = DirectoryLayout(root, SeededRandom())
    layout.journal.mkdir(parents=True)
    data = b"".join(frame(batch, segment=1, batch=number) for number, batch in enumerate(batches, 1))
    layout.segment(1).write_bytes(data)
    if file is not None:
        layout.file(PATH).parent.mkdir(parents=True)
        layout.file(PATH).write_bytes(file)


def change(before: bytes | None, after: bytes | None) -> Change:
    tags = [None if data is None else digest(data) for data in (before, after)]
    return Change(PATH, *tags, after)


@pytest.mark.parametrize("kind", [DirectoryObjects, JournaledDirectory])
@pytest.mark.parametrize("file", [None, b"two"])
async def test_what_a_killed_server_left_is_taken_over(
    tmp_path: Path, kind: type[DirectoryObjects], file: bytes | None
) -> None:
    left_behind(tmp_path, [change(None, b"one")], [change(b"one", b"two")], file=file)
    store = kind(tmp_path, clock=FakeClock(), random=SeededRandom())
    assert (tmp_path / PATH).read_bytes() == b"two"
    assert not segments(store)
    await store.close()


@pytest.mark.parametrize("file", [b"three", b"none of these"])
def test_a_journal_that_does_not_fit_the_files_is_left_alone(tmp_path: Path, file: bytes) -> None:
    left_behind(tmp_path, [change(b"zero", b"one")], file=file)
    with pytest.raises(StartupError, match=r"something else has changed.*cluster/\.journal"):
        DirectoryObjects(tmp_path, clock=FakeClock(), random=SeededRandom())
    assert (tmp_path / PATH).read_bytes() == file
    assert len(os.listdir(tmp_path / "cluster" / ".journal")) == 1


def test_a_damaged_journal_is_left_alone(tmp_path: Path) -> None:
    left_behind(tmp_path, [change(None, b"one")], [change(b"one", b"two")])
    segment = DirectoryLayout(tmp_path, SeededRandom()).segment(1)
    data = bytearray(segment.read_bytes())
    data[60] ^= 1
    segment.write_bytes(data)
    with pytest.raises(StartupError, match="damaged"):
        DirectoryObjects(tmp_path, clock=FakeClock(), random=SeededRandom())
    assert segment.read_bytes() == data


def test_who_has_the_directory_alone_and_does_not_answer_is_named(tmp_path: Path) -> None:
    layout = DirectoryLayout(tmp_path, SeededRandom())
    layout.locks.mkdir(parents=True)
    hold = DirectoryHold(layout, OsDisk())
    assert hold.take()

    class Hurried(FakeClock):
        def monotonic_s(self) -> float:
            self.advance(1.0)
            return super().monotonic_s()

    with pytest.raises(StartupError) as caught:
        DirectoryObjects(tmp_path, clock=Hurried(), random=SeededRandom())
    assert caught.value.code == "locked"
    assert hold.asked()
    hold.close()
    assert not hold.heard()


async def test_an_object_that_is_written_again_and_again_has_one_file_in_a_period(
    store: JournaledDirectory, clock: FakeClock
) -> None:
    etag = await store.put(PATH, b"0", When.ABSENT)
    for number in range(1, 9):
        clock.advance(JOURNAL_IDLE_S * 0.9)
        etag = await store.put(PATH, b"%d" % number, etag)
    assert segments(store) and not (store.root / PATH).exists()
    # Nothing comes any more: it does not wait for the period's end.
    clock.advance(JOURNAL_IDLE_S)
    async with asyncio.timeout(10):
        while segments(store):
            await asyncio.sleep(0.01)
    assert (store.root / PATH).read_bytes() == b"8"


async def test_a_segment_holds_so_much_in_memory_and_no_more(store: JournaledDirectory) -> None:
    segment = Segment(0.0)
    assert not segment.is_full
    segment.held_bytes = JOURNAL_HELD_BYTES
    assert segment.is_full
    for number in range(3):
        await store.put(f"files/s/{number}.json.enc", bytes(1000), When.ABSENT)
    again = await store.put(PATH, bytes(1000), When.ABSENT)
    await store.put(PATH, bytes(10), again)
    growing = store._journal._growing
    assert growing is not None
    assert 3000 <= growing.held_bytes < 3200
