"""What the directory backend adds to the contract: durability, locks, leftovers, full disks."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.clocks import FakeClock, SeededRandom

from deltadatabase.errors import (
    AlreadyExists,
    Corrupt,
    Internal,
    NotFound,
    OutcomeUnknown,
    StartupError,
    StoreFull,
    Unavailable,
)
from deltadatabase.limits import STORE_TIMEOUT_S
from deltadatabase.storage.base import When
from deltadatabase.storage.directory_layout import LOCK_COUNT
from deltadatabase.storage.local import LEFTOVER_AGE_MS, DirectoryObjects

PATH = "files/s/a.json.enc"


class Fatal:
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fatal() -> Fatal:
    return Fatal()


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock, fatal: Fatal) -> AsyncIterator[DirectoryObjects]:
    store = DirectoryObjects(tmp_path / "data", clock=clock, random=SeededRandom(), on_fatal=fatal)
    yield store
    await store.close()


@pytest.fixture
def system_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The order of the system calls that durability rests on."""
    calls: list[str] = []
    fsync, rename, flock = os.fsync, Path.rename, fcntl.flock

    def name(fd: int) -> str:
        return "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"

    def noting_fsync(fd: int) -> None:
        calls.append(f"fsync {name(fd)}")
        fsync(fd)

    def noting_rename(source: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(source, target)

    def noting_flock(fd: int, operation: int) -> None:
        calls.append("lock")
        flock(fd, operation)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "rename", noting_rename)
    monkeypatch.setattr(fcntl, "flock", noting_flock)
    return calls


async def test_a_commit_is_durable_before_it_is_answered(
    store: DirectoryObjects, system_calls: list[str]
) -> None:
    etag = await store.put(PATH, b"one", When.ABSENT)
    # The folders on the way are new, so their names are made durable too.
    assert system_calls == ["fsync file", "lock", "fsync folder", "fsync folder", "rename", "fsync folder"]
    system_calls.clear()
    await store.put(PATH, b"two", etag)
    assert system_calls == ["fsync file", "lock", "rename", "fsync folder"]


async def test_commits_in_flight_together_share_the_folder_sync(
    store: DirectoryObjects, system_calls: list[str]
) -> None:
    await store.put(PATH, b"", When.ABSENT)
    system_calls.clear()
    await asyncio.gather(*(store.put(f"files/s/{number}", b"x", When.ABSENT) for number in range(100)))
    assert system_calls.count("rename") == 100
    assert system_calls.count("fsync folder") < 20
    last_rename = len(system_calls) - system_calls[::-1].index("rename")
    assert "fsync folder" in system_calls[last_rename:]


async def test_files_and_folders_are_private(store: DirectoryObjects) -> None:
    await store.put(PATH, b"one", When.ABSENT)
    for path in store.root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700


async def test_the_file_is_the_object(store: DirectoryObjects) -> None:
    await store.put(PATH, b"one", When.ABSENT)
    assert (store.root / PATH).read_bytes() == b"one"
    assert list((store.root / "cluster" / ".tmp").glob("*/*")) == []


async def test_an_etag_is_told_by_the_bytes_and_never_by_the_file(store: DirectoryObjects) -> None:
    etag = await store.put(PATH, b"one", When.ABSENT)
    os.utime(store.root / PATH, (1, 1))
    assert (await store.get(PATH)).etag == etag
    await store.put(PATH, b"two", etag)


def lock_of(store: DirectoryObjects, path: str) -> Path:
    return store.root / "cluster" / ".locks" / f"{zlib.crc32(path.encode()) % LOCK_COUNT:02x}"


async def test_a_lock_held_elsewhere_delays_its_own_commits_only(
    store: DirectoryObjects, clock: FakeClock
) -> None:
    other = next(name for name in ("files/s/b", "files/s/c") if lock_of(store, name) != lock_of(store, PATH))
    with lock_of(store, PATH).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = asyncio.create_task(store.put(PATH, b"one", When.ABSENT))
        await store.put(other, b"other", When.ABSENT)
        assert not waiting.done()
    assert await waiting == (await store.get(PATH)).etag


async def test_a_lock_that_is_never_released_ends_in_503(store: DirectoryObjects, clock: FakeClock) -> None:
    with lock_of(store, PATH).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = asyncio.create_task(store.put(PATH, b"one", When.ABSENT))
        await store.put("files/s/other", b"x", When.ABSENT)
        clock.advance(STORE_TIMEOUT_S + 1)
        with pytest.raises(Unavailable) as caught:
            await waiting
    assert caught.value.code == "locked"
    with pytest.raises(NotFound):
        await store.get(PATH)
    assert list((store.root / "cluster" / ".tmp").glob("*/*")) == []


@pytest.mark.parametrize("change", ["put", "remove"])
async def test_a_commit_that_was_stopped_past_its_deadline_changes_nothing(
    store: DirectoryObjects, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    etag = await store.put(PATH, b"one", When.ABSENT)
    flock = fcntl.flock

    def stopped_under_the_lock(fd: int, operation: int) -> None:
        flock(fd, operation)
        clock.advance(STORE_TIMEOUT_S + 1)

    with monkeypatch.context() as stopped:
        stopped.setattr(fcntl, "flock", stopped_under_the_lock)
        with pytest.raises(Unavailable):
            await (store.put(PATH, b"two", etag) if change == "put" else store.remove(PATH, etag))
    assert (await store.get(PATH)).data == b"one"
    assert list((store.root / "cluster" / ".tmp").glob("*/*")) == []


async def test_closing_commits_what_waits(tmp_path: Path, clock: FakeClock) -> None:
    store = DirectoryObjects(tmp_path, clock=clock, random=SeededRandom())
    puts = [asyncio.create_task(store.put(f"files/s/{number}", b"x", When.ABSENT)) for number in range(20)]
    await asyncio.sleep(0)
    await store.close()
    assert all(await asyncio.gather(*puts))
    for call in (store.put(PATH, b"x", When.ABSENT), store.get(PATH)):
        with pytest.raises(Unavailable):
            await call


async def test_a_cancelled_put_lands_or_not_but_breaks_nothing(store: DirectoryObjects) -> None:
    puts = [asyncio.create_task(store.put(f"files/s/{number}", b"x", When.ABSENT)) for number in range(50)]
    await asyncio.sleep(0)
    for put in puts[::2]:
        put.cancel()
    await asyncio.gather(*puts, return_exceptions=True)
    assert {type(put.result()) for put in puts[1::2]} == {str}
    await store.put(PATH, b"one", When.ABSENT)


def failing(code: int, times: int = 1) -> Callable[..., None]:
    left = [times]

    def fail(*_: object, **__: object) -> None:
        left[0] -= 1
        raise OSError(code, "planted")

    return fail


async def test_a_failed_sync_is_fatal_and_nothing_is_acknowledged(
    store: DirectoryObjects, fatal: Fatal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    outcomes = await asyncio.gather(
        *(store.put(f"files/s/{number}", b"x", When.ABSENT) for number in range(3)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} <= {OutcomeUnknown, Unavailable}
    assert len(fatal.reasons) == 1
    assert "EIO" in fatal.reasons[0]
    # Not even a sync that works again is believed.
    monkeypatch.undo()
    with pytest.raises(Unavailable):
        await store.put(PATH, b"x", When.ABSENT)


async def test_settling_syncs_the_folder_and_a_failure_is_fatal(
    store: DirectoryObjects, fatal: Fatal, system_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(PATH, b"one", When.ABSENT)
    system_calls.clear()
    await store.settle(PATH)
    assert system_calls == ["fsync folder"]
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(Unavailable):
        await store.settle(PATH)
    assert len(fatal.reasons) == 1


async def test_a_failed_folder_sync_after_the_rename_is_fatal(
    store: DirectoryObjects, fatal: Fatal, monkeypatch: pytest.MonkeyPatch
) -> None:
    etag = await store.put(PATH, b"one", When.ABSENT)
    fsync = os.fsync

    def fail_on_folders(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, "planted")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail_on_folders)
    with pytest.raises(OutcomeUnknown):
        await store.put(PATH, b"two", etag)
    assert len(fatal.reasons) == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("call", ["write", "fsync"])
async def test_a_full_disk_refuses_and_reads_go_on(
    store: DirectoryObjects, fatal: Fatal, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    etag = await store.put(PATH, b"one", When.ABSENT)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(code))
        with pytest.raises(StoreFull):
            await store.put(PATH, b"two", etag)
        assert (await store.get(PATH)).data == b"one"
    assert fatal.reasons == []
    assert list((store.root / "cluster" / ".tmp").glob("*/*")) == []
    await store.put(PATH, b"two", etag)


async def test_a_denied_write_is_refused(store: DirectoryObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rename", failing(errno.EACCES))
    with pytest.raises(Unavailable) as caught:
        await store.put(PATH, b"one", When.ABSENT)
    assert caught.value.code == "store_denied"


async def test_a_rename_that_fails_strangely_leaves_the_outcome_unknown(
    store: DirectoryObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "rename", failing(errno.EIO))
    with pytest.raises(OutcomeUnknown):
        await store.put(PATH, b"one", When.ABSENT)


async def test_leftovers_go_and_younger_files_stay(tmp_path: Path, clock: FakeClock) -> None:
    staging = tmp_path / "cluster" / ".tmp" / "5a"
    staging.mkdir(parents=True)
    for name, age_ms in (("old", LEFTOVER_AGE_MS + 1000), ("young", LEFTOVER_AGE_MS - 1000)):
        (staging / name).touch()
        written_s = (clock.wall_ms() - age_ms) / 1000
        os.utime(staging / name, (written_s, written_s))
    store = DirectoryObjects(tmp_path, clock=clock, random=SeededRandom())
    assert [path.name for path in staging.iterdir()] == ["young"]
    await store.close()


async def test_a_folder_that_somebody_removed_is_made_again(store: DirectoryObjects) -> None:
    await store.put(PATH, b"one", When.ABSENT)
    (store.root / PATH).unlink()
    (store.root / "files" / "s").rmdir()
    (store.root / "files").rmdir()
    await store.put(PATH, b"two", When.ABSENT)
    assert (await store.get(PATH)).data == b"two"


async def test_a_directory_that_is_gone_is_not_an_empty_store(
    store: DirectoryObjects, tmp_path: Path
) -> None:
    await store.put(PATH, b"one", When.ABSENT)
    store.root.rename(tmp_path / "elsewhere")
    store.root.mkdir()
    with pytest.raises(Unavailable) as caught:
        await store.get(PATH)
    assert caught.value.code == "store_gone"
    with pytest.raises(Unavailable):
        await store.put(PATH, b"two", When.ABSENT)
    store.root.rmdir()
    (tmp_path / "elsewhere").rename(store.root)
    assert (await store.get(PATH)).data == b"one"


async def test_hidden_and_unspeakable_files_are_not_listed(store: DirectoryObjects) -> None:
    await store.put(PATH, b"one", When.ABSENT)
    folder = store.root / "files" / "s"
    (folder / ".DS_Store").touch()
    os.close(os.open(os.fsencode(folder) + b"/\xff", os.O_CREAT))
    assert [info.path for info in await store.list("")] == [PATH]


@pytest.mark.parametrize(
    "path", ["", "/", "/etc/x", "a//b", "../a", "a/../b", "a/./b", "a/.b", "a/", "a\0", "a/b\0"]
)
async def test_a_path_that_leaves_its_folder_is_our_mistake(store: DirectoryObjects, path: str) -> None:
    for call in (store.put(path, b"", When.ALWAYS), store.get(path), store.delete(path)):
        with pytest.raises(Internal):
            await call


async def test_a_listing_wants_a_folder(store: DirectoryObjects) -> None:
    for prefix in ("files", "../", "/", "a//"):
        with pytest.raises(Internal):
            await store.list(prefix)


async def test_a_place_that_is_no_directory_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError) as caught:
        DirectoryObjects(tmp_path / "file" / "data", clock=clock, random=SeededRandom())
    assert caught.value.code == "store_refused"
    assert str(tmp_path) not in caught.value.detail


async def test_no_descriptor_left_is_a_refusal_and_not_the_end(
    store: DirectoryObjects, fatal: Fatal, monkeypatch: pytest.MonkeyPatch
) -> None:
    etag = await store.put(PATH, b"one", When.ABSENT)
    real = os.open

    def none_left(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, "too many open files")
        return real(path, flags, *more, **named)

    with monkeypatch.context() as full:
        full.setattr(os, "open", none_left)
        for path, condition in ((PATH, etag), ("files/new/b.json.enc", When.ABSENT)):
            with pytest.raises(Unavailable):
                await store.put(path, b"two", condition)
    assert fatal.reasons == []
    assert (await store.get(PATH)).data == b"one"
    await store.put(PATH, b"two", etag)


async def test_a_directory_that_goes_and_comes_back_ends_nothing(
    store: DirectoryObjects, fatal: Fatal
) -> None:
    etag = await store.put(PATH, b"one", When.ABSENT)
    away = store.root.with_name("away")
    store.root.rename(away)
    with pytest.raises((Unavailable, OutcomeUnknown, NotFound)):
        await store.put(PATH, b"two", etag)
    if store.root.exists():
        store.root.rmdir()
    away.rename(store.root)
    assert fatal.reasons == []
    assert (await store.get(PATH)).data == b"one"
    await store.put(PATH, b"two", etag)


async def test_what_is_no_file_of_ours_is_refused_at_once(store: DirectoryObjects, tmp_path: Path) -> None:
    """Whoever may write into the directory puts there what would never end, or fill the memory."""
    folder = tmp_path / "data" / "files" / "s"
    await store.put(PATH, b"one", When.ABSENT)
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    os.mkfifo(folder / "pipe")
    (folder / "endless").symlink_to("/dev/zero")
    for name in ("sparse", "pipe", "endless"):
        async with asyncio.timeout(2.0):
            with pytest.raises(Corrupt):
                await store.get(f"files/s/{name}")
    for name in ("sparse", "pipe", "endless"):
        with pytest.raises(AlreadyExists):
            await store.put(f"files/s/{name}", b"mine", When.ABSENT)
    assert (await store.get(PATH)).data == b"one"


async def test_a_volume_that_is_gone_does_not_list_as_an_empty_one(tmp_path: Path) -> None:
    """``get`` tells it apart, and a rotation ends its walk at an empty page."""
    store = DirectoryObjects(
        tmp_path / "data", clock=FakeClock(), random=SeededRandom(), on_fatal=lambda _: None
    )
    try:
        await store.put("files/s/a.json.enc", b"x", When.ABSENT)
        (tmp_path / "data").rename(tmp_path / "away")
        with pytest.raises(Unavailable):
            await store.list("files/")
    finally:
        await store.close()


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", ".a", "a/.b", "a/\0", "..", "a/../b"])
async def test_no_path_leaves_its_folder_or_is_hidden(store: DirectoryObjects, path: str) -> None:
    with pytest.raises(Internal):
        await store.put(path, b"x", When.ALWAYS)
    with pytest.raises(Internal):
        await store.get(path)
