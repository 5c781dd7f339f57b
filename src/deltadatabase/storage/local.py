"""The directory backend: plain files, durable and conditional commits (``group_commit``)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import heapq
import itertools
import os
import stat
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from deltadatabase import limits
from deltadatabase.clock import Clock, Random
from deltadatabase.deadlines import Deadlines
from deltadatabase.errors import Corrupt, Internal, NotFound, OutcomeUnknown, StartupError, Unavailable
from deltadatabase.storage.base import Condition, ObjectInfo, Stored, When
from deltadatabase.storage.batch import Answer, BatchCommitter, SyncFailed, digest, os_failure, sync_failure
from deltadatabase.storage.directory_hold import DirectoryHold
from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.disk import Disk, OsDisk, make_durable_folder
from deltadatabase.storage.group_commit import Batches, GroupCommitter
from deltadatabase.storage.mounts import filesystem_type
from deltadatabase.storage.replay import enter, replay
from deltadatabase.telemetry.logging import get_logger

log = get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

READ_THREADS: Final = 8
#: Time for a commit's own system calls, after that for its lock.
HUNG_DISK_S: Final = 2.0
LEFTOVER_AGE_MS: Final = 3_600_000
#: Exit code of a process whose disk failed: "internal software error" of sysexits.h.
FATAL_EXIT_CODE: Final = 70
# Where one sync of the whole file system is known to make each of its files durable.
SYNCFS_TYPES: Final = frozenset({"ext3", "ext4", "xfs", "btrfs", "f2fs"})


def exit_at_once(reason: str) -> None:
    """End the process without another write: what is on the disk is no longer known."""
    sys.stderr.write(f"fatal: {reason}; the process ends so that nothing unsaved is acknowledged\n")
    sys.stderr.flush()
    os._exit(FATAL_EXIT_CODE)


class DirectoryObjects:
    """Objects as files of a directory, which several processes may share. Fulfils ``Store``.

    Files have mode 0600 and folders 0700. The ETag is a digest of the bytes; what ``stat`` says
    never decides. Opening makes the directory and removes leftovers of interrupted commits; it
    blocks.

    Args:
        root: the directory.
        clock: for deadlines and the age of leftovers.
        random: names temporary files.
        on_fatal: called when a sync to disk failed; must not return in a real program.
        disk: what commits and reads of objects go through; the operating system's if None.
        object_bytes_max: a larger file is not read, on the operating system's disk.

    It works beside others on the directory; while one has it alone, opening waits until that one
    shares it. What a killed process left in a journal is written to the files first.

    Raises:
        StartupError: ``store_refused``: the directory cannot be made or written, or its journal
            does not fit; ``locked``: who has the directory alone does not share it.
    """

    backend = "directory"
    removes = True
    #: Have the directory alone, if nobody else works on it.
    _alone = False

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock,
        random: Random,
        on_fatal: Callable[[str], object] = exit_at_once,
        disk: Disk | None = None,
        object_bytes_max: int = limits.OBJECT_BYTES_MAX,
    ) -> None:
        self.root = root.absolute()
        self._clock = clock
        self._on_fatal = on_fatal
        self._object_bytes_max = object_bytes_max
        self._disk = disk = OsDisk(object_bytes_max) if disk is None else disk
        self._layout = layout = DirectoryLayout(self.root, random)
        self._syncfs = filesystem_type(self.root) in SYNCFS_TYPES
        try:
            _make_durable_root(disk, self.root)
            for folder in layout.own_folders:
                disk.make_folder(folder)
            self._sweep()
            self._hold = DirectoryHold(layout, disk)
            self._enter()
        except OSError:
            raise StartupError(
                "the store's directory cannot be made or read: check its place, owner and mode",
                code="store_refused",
            ) from None
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read")
        self._deadlines = Deadlines()
        self._committer = GroupCommitter(self._batches, on_fatal=on_fatal)

    def _replay(self) -> None:
        count = replay(self._layout, self._disk, clock=self._clock, syncfs=self._syncfs)
        if count:
            log.info("the journal of a server that was killed is in the files now", objects=count)

    def _enter(self) -> None:
        try:
            enter(
                self._hold,
                self._layout,
                self._disk,
                alone=self._alone,
                replay=self._replay,
                clock=self._clock,
            )
        except SyncFailed as exc:
            self._on_fatal(str(exc))
            raise StartupError("the disk failed", code="store_refused") from exc
        except BaseException:
            self._hold.close()
            raise

    def _batches(self, answer: Answer) -> Batches:
        return BatchCommitter(
            self.root, disk=self._disk, clock=self._clock, syncfs=self._syncfs, answer=answer
        )

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        return await self._commit(path, data, condition)

    async def remove(self, path: str, etag: str) -> None:
        await self._commit(path, None, etag)

    async def delete(self, path: str) -> None:
        await self._commit(path, None, When.ALWAYS)

    async def _commit(self, path: str, data: bytes | None, condition: Condition) -> str:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        deadline_s = self._clock.monotonic_s() + limits.STORE_TIMEOUT_S
        self._committer.submit(self._layout.commit(path, data, condition, deadline_s, future))
        limit = self._deadlines.add(limits.STORE_TIMEOUT_S + HUNG_DISK_S, functools.partial(_give_up, future))
        try:
            return await future
        finally:
            self._deadlines.remove(limit)

    async def get(self, path: str) -> Stored:
        return await self._in_thread(self._read, self._layout.file(path))

    async def settle(self, path: str) -> None:
        await self._in_thread(self._settle, self._layout.file(path).parent)

    async def get_if_changed(self, path: str, etag: str) -> Stored | None:
        stored = await self.get(path)
        return None if stored.etag == etag else stored

    async def head(self, path: str) -> ObjectInfo:
        file = self._layout.file(path)
        try:
            stored = await self._in_thread(self._read, file)
        except Corrupt:
            found = await self._in_thread(file.stat)
            return ObjectInfo(path, found.st_size, "", found.st_mtime_ns // 1_000_000)
        return ObjectInfo(path, len(stored.data), stored.etag, stored.updated_ms)

    async def list(
        self, prefix: str, *, after: str = "", limit: int = limits.LIST_PAGE_MAX
    ) -> Sequence[ObjectInfo]:
        folder = self._layout.folder(prefix)

        def page() -> Sequence[ObjectInfo]:
            found = self._list(folder, prefix, after, limit)
            if not found:
                self._check_there()
            return found

        return await self._in_thread(page)

    async def folders(self, prefix: str) -> Sequence[str]:
        folder = self._layout.folder(prefix)

        def names() -> Sequence[str]:
            found = sorted(entry.name for entry in _entries(folder) if entry.is_dir())
            if not found:
                self._check_there()
            return found

        return await self._in_thread(names)

    async def scan(self, prefix: str) -> AsyncGenerator[Sequence[str]]:
        walk = _Walk(self._layout.folder(prefix))
        found = False
        try:
            while part := await self._in_thread(walk.part):
                found = True
                yield part
            if not found:
                await self._in_thread(self._check_there)
        finally:
            # A slice of it may be under way in a thread still.
            with contextlib.suppress(RuntimeError):
                self._readers.submit(walk.close)

    async def describe(self, prefix: str, names: Sequence[str]) -> Sequence[ObjectInfo | None]:
        folder = self._layout.folder(prefix)

        def look() -> Sequence[ObjectInfo | None]:
            found = _describe(f"{folder}/", prefix, names)
            if not any(found):
                self._check_there()
            return found

        return await self._in_thread(look)

    async def folder_ms(self, prefix: str) -> int:
        try:
            found = await self._in_thread(self._layout.folder(prefix).stat)
        except NotFound:
            return 0
        return found.st_mtime_ns // 1_000_000

    async def close(self) -> None:
        await asyncio.to_thread(self._finish)
        self._readers.shutdown(wait=False)

    def _finish(self) -> None:
        self._committer.close()
        self._hold.close()

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        call = functools.partial(function, *args, **kwargs)
        try:
            future = asyncio.get_running_loop().run_in_executor(self._readers, call)
        except RuntimeError:
            raise Unavailable("the store is closed") from None
        try:
            async with asyncio.timeout(limits.STORE_TIMEOUT_S):
                return await future
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._check_there()
            raise NotFound("there is no such object") from None
        except TimeoutError:
            raise Unavailable("the disk does not answer in time") from None
        except OSError as exc:
            raise os_failure(exc) or Unavailable("the disk cannot be read") from None

    def _check_there(self) -> None:
        """Refuse to take an unmounted volume for a database in which everything was deleted."""
        if not self._layout.locks.is_dir():
            raise Unavailable("the store's directory is gone", code="store_gone")

    def _read(self, file: Path) -> Stored:
        data, updated_ms = self._disk.read(file)
        return Stored(data, digest(data), updated_ms)

    def _settle(self, folder: Path) -> None:
        """Make the names in a folder durable; their files' bytes were before they got there."""
        try:
            fd = self._disk.open_folder(folder)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            self._disk.fsync(fd)
        except OSError as exc:
            self._on_fatal(sync_failure(exc))
            raise
        finally:
            self._disk.close(fd)

    def _list(self, folder: Path, prefix: str, after: str, limit: int) -> Sequence[ObjectInfo]:
        # A folder sorts as its name with the slash, as its objects do: "a-b" comes before "a/x".
        # Text compares by code points, which is the order of its UTF-8 bytes.
        coming: list[tuple[str, os.DirEntry[str]]] = []
        for entry in _entries(folder):
            path = prefix + entry.name + ("/" if entry.is_dir() else "")
            if path > after or (path.endswith("/") and after.startswith(path)):
                coming.append((path, entry))
        # A heap, because most pages need a small part of a large folder; names are unique, so
        # nothing after them is compared.
        heapq.heapify(coming)
        found: list[ObjectInfo] = []
        while coming and len(found) < limit:
            path, entry = heapq.heappop(coming)
            if path.endswith("/"):
                found.extend(self._list(Path(entry.path), path, after, limit - len(found)))
                continue
            # Gone since: a listing is not a snapshot.
            with contextlib.suppress(FileNotFoundError):
                about = entry.stat()
                found.append(ObjectInfo(path, about.st_size, "", about.st_mtime_ns // 1_000_000))
        return found

    def _sweep(self) -> None:
        """Remove files that an interrupted commit left long ago; younger ones may be another's."""
        oldest_ms = self._clock.wall_ms() - LEFTOVER_AGE_MS
        for folder in self._layout.temporary.iterdir():
            for entry in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_mtime_ns // 1_000_000 < oldest_ms:
                        Path(entry.path).unlink()


def has_own_disk(root: Path) -> bool:
    """Whether a directory, made or not, lies on a file system whose locks and syncs are known."""
    there = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    return filesystem_type(there) in SYNCFS_TYPES


def _give_up(future: asyncio.Future[str]) -> None:
    if not future.done():
        future.set_exception(OutcomeUnknown("the disk does not answer in time"))


def _make_durable_root(disk: Disk, root: Path) -> None:
    """Make a folder and its parents, so that a crash cannot take it away again with all in it."""
    for there in (root, *root.parents):
        if there.exists():
            # Another process may have made it just now and been killed before it synced the name.
            # One that lies in a folder that cannot be read or synced was not made by us.
            with contextlib.suppress(OSError):
                make_durable_folder(disk, there, disk.fsync)
            break
    missing = [path for path in (root, *root.parents) if not path.exists()]
    for folder in reversed(missing):
        make_durable_folder(disk, folder, disk.fsync)


class _Walk:
    """Reads a folder's names, slice by slice, from one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._names = (entry.name for entry in _entries(folder))
        self._lock = threading.Lock()

    def part(self) -> Sequence[str]:
        with self._lock:
            return list(itertools.islice(self._names, limits.SCAN_SLICE))

    def close(self) -> None:
        with self._lock:
            self._names.close()


def _describe(folder: str, prefix: str, names: Sequence[str]) -> Sequence[ObjectInfo | None]:
    found: list[ObjectInfo | None] = []
    for name in names:
        if "/" in name or name.startswith("."):
            raise Internal("an object's name has a slash, or begins with a dot")
        try:
            about = os.stat(folder + name)  # noqa: PTH116 - a Path for each would take longer than the call
        except (FileNotFoundError, NotADirectoryError):
            found.append(None)
            continue
        plain = stat.S_ISREG(about.st_mode)
        found.append(
            ObjectInfo(prefix + name, about.st_size, "", about.st_mtime_ns // 1_000_000) if plain else None
        )
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                # Hidden names are never objects; the others of these no path of ours can spell.
                if not entry.name.startswith(".") and entry.name.isprintable():
                    yield entry
    except (FileNotFoundError, NotADirectoryError):
        return
