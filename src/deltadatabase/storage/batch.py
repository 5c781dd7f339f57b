"""A batch of commits on one disk: in which order its system calls come.

Each step of every commit before the next step of any:

1. write each temporary file, then make them durable;
2. per commit, under the lock file of its shard: compare the present object, rename over it;
3. make the renames durable, one sync per directory;
4. answer.

So a crash between any two system calls leaves the old or the new object, and what was answered
stays (``tests/crash`` tries them all). Lock files keep processes apart that share the directory;
within a process one thread commits. A commit whose lock is held elsewhere stays aside, and the
others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, Protocol

from deltadatabase.clock import Clock
from deltadatabase.errors import (
    AlreadyExists,
    Corrupt,
    DeltaError,
    OutcomeUnknown,
    StoreFull,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.storage.base import Condition, When
from deltadatabase.storage.disk import Disk, make_durable_folder

#: From this many files on, one sync of the file system is cheaper than one a file.
SYNCFS_COUNT_MIN: Final = 8
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
#: In the place of the digest of an object that is too large to be one of ours; no condition names it.
NOT_READ: Final = "not read"
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})


class Files(Protocol):
    """Where a directory has its files; see ``directory_layout``."""

    def file(self, path: str) -> Path:
        """The file of an object."""
        ...

    def lock(self, path: str) -> Path:
        """The lock file of an object's shard."""
        ...

    def staged(self, serial: int) -> Path:
        """The temporary file of a commit."""
        ...


class Commit:
    """One waiting change. ``data`` None removes the object.

    Its files are named when they are needed: most changes that a journal takes need none.

    Args:
        files: names its files.
        path: of the object; checked.
        data: the new bytes.
        condition: what must be there now.
        serial: no other commit of ``files`` has it.
        deadline_s: when it is too late to begin, on the monotonic clock.
        future: whom to answer; None: nobody waits.

    Attributes:
        etag: of ``data``.
    """

    __slots__ = (
        *("condition", "data", "deadline_s", "etag", "future", "path"),
        *("_files", "_serial", "_target"),
    )

    def __init__(
        self,
        files: Files,
        path: str,
        data: bytes | None,
        condition: Condition,
        *,
        serial: int,
        deadline_s: float,
        future: asyncio.Future[str] | None,
    ) -> None:
        self._files = files
        self._serial = serial
        self._target: Path | None = None
        self.path = path
        self.data = data
        self.condition = condition
        self.deadline_s = deadline_s
        self.future = future
        self.etag = "" if data is None else digest(data)

    @property
    def target(self) -> Path:
        """The object's file."""
        if self._target is None:
            self._target = self._files.file(self.path)
        return self._target

    @property
    def lock(self) -> Path:
        """The lock file of its shard."""
        return self._files.lock(self.path)

    @property
    def staged(self) -> Path:
        """The file that is written first."""
        return self._files.staged(self._serial)


Answer = Callable[[Commit, str | DeltaError], None]
"""Takes a commit's new ETag, or why it failed."""


class SyncFailed(Exception):
    """What is on the disk is unknown now, and asking again would hide it."""


def digest(data: bytes) -> str:
    """ETag of a file's bytes: BLAKE2b, 128 bits, in hex.

    Sealed entities hold a random salt, so equal bytes are the same write.
    """
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def os_failure(exc: OSError) -> DeltaError | None:
    """What a failed system call means; None when it says nothing certain about a change."""
    if exc.errno in _FULL:
        return StoreFull("the store has no room or is read-only")
    if exc.errno in _DENIED:
        return Unavailable(
            "the store denies access: check the directory's owner and mode", code="store_denied"
        )
    return None


def present_etag(disk: Disk, file: Path) -> str | None:
    """ETag of what a file holds; None: there is none. Raises OSError."""
    try:
        return digest(disk.read(file)[0])
    except FileNotFoundError:
        return None
    except Corrupt:
        # There is something, and nobody was ever given an ETag of it.
        return NOT_READ


def check_condition(condition: Condition, present: str | None) -> None:
    """Refuse unless the present object is as the condition wants it.

    Raises:
        AlreadyExists, VersionMismatch: as ``Store.put``.
    """
    if condition is When.ABSENT and present is not None:
        raise AlreadyExists("an object of this name exists")
    if isinstance(condition, str) and present != condition:
        raise VersionMismatch("the object changed")


class BatchCommitter:
    """Commits batch after batch, in one thread, on one directory.

    Args:
        root: directory of the store; it and its parents exist.
        disk: where it is.
        clock: for the deadlines of commits.
        syncfs: the file system's sync makes every file of it durable.
        answer: called once for each commit, when its outcome is known and durable.

    Attributes:
        busy: commits whose lock is held elsewhere; the next batch takes them along.
        wait_s: None: it needs no empty batches.
        locking: shards are locked; without need where the whole directory is.
    """

    def __init__(self, root: Path, *, disk: Disk, clock: Clock, syncfs: bool, answer: Answer) -> None:
        self.busy: Sequence[Commit] = ()
        self.wait_s: float | None = None
        self.locking = True
        self._root = root
        self._disk = disk
        self._clock = clock
        self._syncfs = syncfs
        self._answer = answer
        self._durable_folders = {root}

    def commit(self, batch: Sequence[Commit]) -> None:
        """Commit a batch, and what is busy.

        Raises:
            SyncFailed: the process should end; what was not answered has an unknown outcome.
        """
        staged = self._stage(batch)
        self.busy = self._install([*self.busy, *staged])

    def close(self) -> None:
        """Nothing is left to do."""

    def _stage(self, batch: Sequence[Commit]) -> list[Commit]:
        """Write the new contents beside the objects, durably; return the commits that got so far."""
        staged = [commit for commit in batch if commit.data is None]
        files: list[tuple[Commit, int]] = []
        try:
            for commit in batch:
                if commit.data is None:
                    continue
                try:
                    files.append((commit, self._write_new(commit.staged, commit.data)))
                except OSError as exc:
                    self._refuse(commit, exc)
            if len(files) >= SYNCFS_COUNT_MIN and self._syncfs and self._sync_all(files[0][1]):
                staged += [commit for commit, _ in files]
            else:
                staged += [commit for commit, fd in files if self._sync_staged(commit, fd)]
        finally:
            for _, fd in files:
                self._disk.close(fd)
        return staged

    def _write_new(self, path: Path, data: bytes) -> int:
        """Write a new file; return it open, not yet durable."""
        fd = self._disk.open_new(path)
        try:
            view = memoryview(data)
            while view:
                view = view[self._disk.write(fd, view) :]
        except BaseException:
            self._disk.close(fd)
            raise
        return fd

    def _sync_all(self, fd: int) -> bool:
        """Make every file durable; False when there was no room for all: each must be asked alone."""
        try:
            self._disk.syncfs(fd)
        except OSError as exc:
            if exc.errno not in _FULL:
                _die(exc)
            return False
        return True

    def _sync_staged(self, commit: Commit, fd: int) -> bool:
        try:
            self._disk.fsync(fd)
        except OSError as exc:
            # Some file systems find out only now that there is no room. The file is dropped and
            # written anew by whoever tries again, so nothing depends on the failed sync.
            if exc.errno not in _FULL:
                _die(exc)
            self._refuse(commit, exc)
            return False
        return True

    def _install(self, staged: Sequence[Commit]) -> Sequence[Commit]:
        """Put the staged contents in place; return the commits whose lock is held elsewhere."""
        busy: list[Commit] = []
        moved: list[Commit] = []
        folders: dict[Path, int] = {}
        try:
            for commit in staged:
                try:
                    held = self._install_one(commit, folders)
                    (moved if held else busy).append(commit)
                except (OSError, DeltaError) as exc:
                    self._refuse(commit, exc)
            self._sync_folders(folders)
        finally:
            for fd in folders.values():
                self._disk.close(fd)
        for commit in moved:
            self._answer(commit, commit.etag)
        return busy

    def _sync_folders(self, folders: dict[Path, int]) -> None:
        for fd in folders.values():
            self._sync(fd)

    def _sync(self, fd: int) -> None:
        try:
            self._disk.fsync(fd)
        except OSError as exc:
            _die(exc)

    def _install_one(self, commit: Commit, folders: dict[Path, int]) -> bool:
        """Compare and rename under the lock; False when another process holds it."""
        if not self.locking:
            self._compare(commit)
            self._replace(commit, folders)
            return True
        lock = self._disk.open_lock(commit.lock)
        try:
            try:
                self._disk.lock(lock)
            except BlockingIOError:
                if self._clock.monotonic_s() < commit.deadline_s:
                    return False
                raise Unavailable("another process holds the entity's lock", code="locked") from None
            self._compare(commit)
            self._replace(commit, folders)
        finally:
            # Nothing was written to it; a complaint now must not look like a refused commit.
            with contextlib.suppress(OSError):
                self._disk.close(lock)
        return True

    def _compare(self, commit: Commit) -> None:
        """Refuse unless the present object is as the condition wants it."""
        if commit.condition is not When.ALWAYS:
            check_condition(commit.condition, present_etag(self._disk, commit.target))

    def _replace(self, commit: Commit, folders: dict[Path, int]) -> None:
        folder = commit.target.parent
        self._make_folder(folder)
        # Opened before the rename: whatever prevents it (no descriptor is left, the folder is
        # gone) is a refusal that changed nothing. Afterwards only the sync itself can fail.
        try:
            self._open_once(folder, folders)
            self._move_in_time(commit)
        except FileNotFoundError:
            # Somebody removed the folder since.
            if (stale := folders.pop(folder, None)) is not None:
                self._disk.close(stale)
            self._durable_folders = {self._root}
            self._make_folder(folder)
            self._open_once(folder, folders)
            self._move_in_time(commit)

    def _open_once(self, folder: Path, folders: dict[Path, int]) -> None:
        if folder not in folders:
            folders[folder] = self._disk.open_folder(folder)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder durably. One made by another process counts only once synced here."""
        if folder in self._durable_folders:
            return
        self._make_folder(folder.parent)
        self._make_durable(folder)
        self._durable_folders.add(folder)

    def _make_durable(self, folder: Path) -> None:
        make_durable_folder(self._disk, folder, self._sync)

    def _move_in_time(self, commit: Commit) -> None:
        # A process that was stopped for long must not surprise those who have long been told that
        # the outcome is unknown, and who may have looked.
        if self._clock.monotonic_s() >= commit.deadline_s:
            raise Unavailable("the commit came too late and was not made")
        self._move(commit)

    def _move(self, commit: Commit) -> None:
        """Put the staged file in place, or remove the object; the change is not durable yet."""
        try:
            if commit.data is None:
                with contextlib.suppress(FileNotFoundError):
                    self._disk.unlink(commit.target)
            else:
                self._disk.rename(commit.staged, commit.target)
        except FileNotFoundError:
            raise
        except OSError as exc:
            # On a network file system a failed rename may have taken place.
            raise os_failure(exc) or OutcomeUnknown("the store failed while committing") from None

    def _refuse(self, commit: Commit, cause: OSError | DeltaError) -> None:
        """Answer with a failure and drop the staged file."""
        if commit.data is not None:
            with contextlib.suppress(OSError):
                self._disk.unlink(commit.staged)
        if isinstance(cause, OSError):
            cause = write_failure(cause)
        self._answer(commit, cause)


def write_failure(exc: OSError) -> DeltaError:
    """What a system call means that failed before anything was changed."""
    return os_failure(exc) or Unavailable("the disk refused the write")


def _die(exc: OSError) -> NoReturn:
    raise SyncFailed(sync_failure(exc)) from exc


def sync_failure(exc: OSError) -> str:
    """One sentence about a sync that failed."""
    return f"a sync to disk failed, errno={errno.errorcode.get(exc.errno or 0, '?')}"
