"""Durable, conditional replacement of files: one thread commits what waits, together.

Order of a batch (each step of every commit before the next step of any):

1. write each temporary file, then make them durable;
2. per commit, under the lock file of its shard: compare the present object, rename over it;
3. make the renames durable, one sync per directory;
4. answer.

So a crash between any two system calls leaves the old or the new object, and what was answered
stays. Commits that arrive meanwhile wait for the next batch and share its syncs. Lock files keep
processes apart that share the directory; within a process the one thread does. A commit whose
lock is held elsewhere stays aside, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import functools
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from deltadatabase import limits
from deltadatabase.clock import Clock
from deltadatabase.errors import (
    AlreadyExists,
    DeltaError,
    OutcomeUnknown,
    StoreFull,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.storage.base import Condition, When

BATCH_COUNT_MAX: Final = 128
BATCH_BYTES_MAX: Final = 16 * limits.MIB
#: From this many files on, one sync of the file system is cheaper than one a file.
SYNCFS_COUNT_MIN: Final = 8
LOCK_POLL_S: Final = 0.002
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})


class Commit:
    """One waiting change. ``data`` None removes the object."""

    __slots__ = ("condition", "data", "deadline_s", "etag", "future", "lock", "staged", "target")

    def __init__(
        self,
        target: Path,
        data: bytes | None,
        condition: Condition,
        *,
        lock: Path,
        staged: Path,
        deadline_s: float,
        future: asyncio.Future[str],
    ) -> None:
        self.target = target
        self.data = data
        self.condition = condition
        self.lock = lock
        self.staged = staged
        self.deadline_s = deadline_s
        self.future = future
        self.etag = "" if data is None else digest(data)


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


class GroupCommitter:
    """The committing thread of one directory.

    Args:
        root: directory of the store; it and its parents exist.
        clock: for the deadlines of commits that wait for a lock.
        syncfs: the file system's sync makes every file of it durable.
        on_fatal: called in the thread with one sentence when a sync failed. What is on the disk is
            then unknown and asking again would hide it, so it should end the process.
    """

    def __init__(self, root: Path, *, clock: Clock, syncfs: bool, on_fatal: Callable[[str], object]) -> None:
        self._root = root
        self._clock = clock
        self._syncfs = syncfs
        self._on_fatal = on_fatal
        self._queue: queue.SimpleQueue[Commit | None] = queue.SimpleQueue()
        self._durable_folders = {root}
        self._gate = threading.Lock()
        self._closed = False
        self._answers: list[tuple[Commit, str | DeltaError]] = []
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def submit(self, commit: Commit) -> None:
        """Queue a commit; its future is answered in its event loop."""
        with self._gate:
            if self._closed:
                raise Unavailable("the store is closed")
            self._queue.put(commit)

    def close(self) -> None:
        """Commit what waits, then end the thread. Blocks."""
        with self._gate:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        busy: list[Commit] = []
        open_ = True
        while open_ or busy:
            batch, open_ = self._take(wait=not busy, open_=open_)
            try:
                staged = self._stage(batch)
                busy = self._install([*busy, *staged])
            except _Fatal as exc:
                self._on_fatal(str(exc))
                self._break([*batch, *busy])
                busy, open_ = [], False
            except Exception:  # noqa: BLE001 - the thread must answer whoever waits, whatever happened
                self._break([*batch, *busy])
                busy, open_ = [], False
            self._send_answers()

    def _take(self, *, wait: bool, open_: bool) -> tuple[list[Commit], bool]:
        """What is queued, up to one batch; and whether more may come."""
        batch: list[Commit] = []
        size = 0
        if not open_:
            time.sleep(LOCK_POLL_S)
        while open_ and len(batch) < BATCH_COUNT_MAX and size < BATCH_BYTES_MAX:
            try:
                if batch:
                    commit = self._queue.get_nowait()
                else:
                    commit = self._queue.get(timeout=None if wait else LOCK_POLL_S)
            except queue.Empty:
                break
            if commit is None:
                return batch, False
            batch.append(commit)
            size += len(commit.data or b"")
        return batch, open_

    def _break(self, commits: list[Commit]) -> None:
        """Take no more commits; answer these, and all that wait, that their outcome is unknown."""
        with self._gate:
            self._closed = True
            with contextlib.suppress(queue.Empty):
                while True:
                    if commit := self._queue.get_nowait():
                        commits.append(commit)
        answered = {id(commit) for commit, _ in self._answers}
        lost = OutcomeUnknown("the store failed while committing")
        self._answers += [(commit, lost) for commit in commits if id(commit) not in answered]

    def _stage(self, batch: list[Commit]) -> list[Commit]:
        """Write the new contents beside the objects, durably; return the commits that got so far."""
        staged: list[Commit] = []
        files: list[tuple[Commit, int]] = []
        try:
            for commit in batch:
                if commit.data is None:
                    staged.append(commit)
                    continue
                try:
                    files.append((commit, _write_new(commit.staged, commit.data)))
                except OSError as exc:
                    self._refuse(commit, exc)
            if len(files) >= SYNCFS_COUNT_MIN and self._syncfs and _sync_file_system(files[0][1]):
                staged += [commit for commit, _ in files]
            else:
                staged += [commit for commit, fd in files if self._sync_staged(commit, fd)]
        finally:
            for _, fd in files:
                os.close(fd)
        return staged

    def _sync_staged(self, commit: Commit, fd: int) -> bool:
        try:
            os.fsync(fd)
        except OSError as exc:
            # Some file systems find out only now that there is no room. The file is dropped and
            # written anew by whoever tries again, so nothing depends on the failed sync.
            if exc.errno not in _FULL:
                _die(exc)
            self._refuse(commit, exc)
            return False
        return True

    def _install(self, staged: list[Commit]) -> list[Commit]:
        """Put the staged contents in place; return the commits whose lock is held elsewhere."""
        busy: list[Commit] = []
        renamed: list[Commit] = []
        folders: dict[Path, int] = {}
        try:
            self._install_each(staged, busy, renamed, folders)
            for fd in folders.values():
                _sync_or_die(fd)
        finally:
            for fd in folders.values():
                os.close(fd)
        self._answers += [(commit, commit.etag) for commit in renamed]
        return busy

    def _install_each(
        self, staged: list[Commit], busy: list[Commit], renamed: list[Commit], folders: dict[Path, int]
    ) -> None:
        for commit in staged:
            try:
                lock = os.open(commit.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as exc:
                self._refuse(commit, exc)
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._replace(commit, folders)
                renamed.append(commit)
            except BlockingIOError:
                if self._clock.monotonic_s() < commit.deadline_s:
                    busy.append(commit)
                else:
                    self._refuse(
                        commit, Unavailable("another process holds the entity's lock", code="locked")
                    )
            except (OSError, DeltaError) as exc:
                self._refuse(commit, exc)
            finally:
                os.close(lock)

    def _replace(self, commit: Commit, folders: dict[Path, int]) -> None:
        """Compare and rename, under the lock."""
        if commit.condition is not When.ALWAYS:
            try:
                current: str | None = digest(commit.target.read_bytes())
            except FileNotFoundError:
                current = None
            if commit.condition is When.ABSENT and current:
                raise AlreadyExists("an object of this name exists")
            if commit.condition is not When.ABSENT and current != commit.condition:
                raise VersionMismatch("the object changed")
        folder = commit.target.parent
        self._make_folder(folder)
        # Opened before the rename: whatever prevents it (no descriptor is left, the folder is
        # gone) is a refusal that changed nothing. Afterwards only the sync itself can fail.
        try:
            _open_once(folder, folders)
            self._move_in_time(commit)
        except FileNotFoundError:
            # Somebody removed the folder since.
            if (stale := folders.pop(folder, None)) is not None:
                os.close(stale)
            self._durable_folders = {self._root}
            self._make_folder(folder)
            _open_once(folder, folders)
            self._move_in_time(commit)

    def _move_in_time(self, commit: Commit) -> None:
        # A process that was stopped for long must not surprise those who have long been told that
        # the outcome is unknown, and who may have looked.
        if self._clock.monotonic_s() >= commit.deadline_s:
            raise Unavailable("the commit came too late and was not made")
        _move(commit)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder durably. One made by another process counts only once synced here."""
        if folder in self._durable_folders:
            return
        self._make_folder(folder.parent)
        parent = _open_folder(folder.parent)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync_or_die(parent)
        finally:
            os.close(parent)
        self._durable_folders.add(folder)

    def _refuse(self, commit: Commit, cause: OSError | DeltaError) -> None:
        """Answer with a failure and drop the staged file."""
        with contextlib.suppress(OSError):
            commit.staged.unlink(missing_ok=True)
        if isinstance(cause, OSError):
            cause = os_failure(cause) or Unavailable("the disk refused the write")
        self._answers.append((commit, cause))

    def _send_answers(self) -> None:
        answers, self._answers = self._answers, []
        if answers:
            # One wake-up of the event loop for the whole batch. A loop that is closed has nobody waiting.
            with contextlib.suppress(RuntimeError):
                answers[0][0].future.get_loop().call_soon_threadsafe(_resolve, answers)


class _Fatal(Exception):
    """A sync failed."""


def _sync_or_die(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as exc:
        _die(exc)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _open_once(folder: Path, folders: dict[Path, int]) -> None:
    if folder not in folders:
        folders[folder] = _open_folder(folder)


def _die(exc: OSError) -> NoReturn:
    raise _Fatal(f"a sync to disk failed, errno={errno.errorcode.get(exc.errno or 0, '?')}") from exc


def _move(commit: Commit) -> None:
    """Put the staged file in place, or remove the object; the change is not durable yet."""
    try:
        if commit.data is None:
            commit.target.unlink(missing_ok=True)
        else:
            commit.staged.rename(commit.target)
    except FileNotFoundError:
        raise
    except OSError as exc:
        # On a network file system a failed rename may have taken place.
        raise os_failure(exc) or OutcomeUnknown("the store failed while committing") from None


def _write_new(path: Path, data: bytes) -> int:
    """Write a new file; return it open, not yet durable."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = _open_folder(folder)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _sync_file_system(fd: int) -> bool:
    """Make every file of a file system durable (Linux syncfs(2), errors reported since 5.8).

    Returns False when there was no room for all: each file must then be asked alone.
    """
    if _libc().syncfs(fd) == 0:
        return True
    code = ctypes.get_errno()
    if code in _FULL:
        return False
    _die(OSError(code, os.strerror(code)))


def _resolve(answers: list[tuple[Commit, str | DeltaError]]) -> None:
    for commit, outcome in answers:
        if commit.future.done():
            continue
        if isinstance(outcome, DeltaError):
            commit.future.set_exception(outcome)
        else:
            commit.future.set_result(outcome)
