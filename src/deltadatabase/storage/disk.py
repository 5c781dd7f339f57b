"""The system calls that a directory's commits and reads are made of, and the real ones.

One method is one step between which a crash, or another process, may come. Tests put a recording
or a simulated disk in the place of ``OsDisk``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from deltadatabase import limits
from deltadatabase.storage.base import too_large
from deltadatabase.storage.late_close import LateClose


class Disk(Protocol):
    """A file system, as one process sees it. Every method blocks and raises OSError."""

    def open_new(self, path: Path) -> int:
        """Make a file of mode 0600, open for writing. Raises FileExistsError."""
        ...

    def write(self, fd: int, data: memoryview) -> int:
        """Write at the descriptor's position; return how many bytes it took."""
        ...

    def read(self, path: Path) -> tuple[bytes, int]:
        """A whole file, and when it was last written, in ms.

        Raises:
            FileNotFoundError: there is none.
            Corrupt: it is larger than any object, or no plain file.
        """
        ...

    def read_own(self, path: Path) -> bytes:
        """A whole file that only we write, of any size. Raises FileNotFoundError."""
        ...

    def names(self, folder: Path) -> Sequence[str]:
        """The names in a folder. Raises FileNotFoundError."""
        ...

    def exists(self, path: Path) -> bool:
        """Whether there is a file of this name."""
        ...

    def is_at(self, fd: int, path: Path) -> bool:
        """Whether the open file is the one that has this name."""
        ...

    def open_folder(self, path: Path) -> int:
        """Open a folder, to sync it. Raises FileNotFoundError."""
        ...

    def make_folder(self, path: Path) -> None:
        """Make a folder of mode 0700; one that is there is fine."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in the place of the file that had it."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file's name. Raises FileNotFoundError."""
        ...

    def open_lock(self, path: Path) -> int:
        """Open a lock file; make it if it is missing."""
        ...

    def open_hold(self, path: Path) -> int:
        """The same for reading only: kept open, it lets a file system be mounted read-only."""
        ...

    def lock(self, fd: int) -> None:
        """Lock an open lock file until it is closed. Raises BlockingIOError when another has it."""
        ...

    def lock_shared(self, fd: int) -> None:
        """Lock it beside others that do the same.

        A lock that the descriptor has is given up first, also by ``lock``: flock(2) may lose it.

        Raises:
            BlockingIOError: another has it for itself; this descriptor has no lock now.
        """
        ...

    def fsync(self, fd: int) -> None:
        """Make a file's bytes, or a folder's names, durable."""
        ...

    def sync_data(self, fd: int) -> None:
        """Make a file's bytes durable, and its size; not when it was changed."""
        ...

    def syncfs(self, fd: int) -> None:
        """Make everything on the file system of an open file durable."""
        ...

    def close(self, fd: int) -> None:
        """Close a descriptor; a lock file is unlocked by it."""
        ...


class OsDisk:
    """The operating system's. Fulfils ``Disk``.

    Args:
        object_bytes_max: a larger file is not read.
    """

    def __init__(self, object_bytes_max: int = limits.OBJECT_BYTES_MAX) -> None:
        self._object_bytes_max = object_bytes_max
        self._replaced = LateClose()

    def open_new(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def read(self, path: Path) -> tuple[bytes, int]:
        # Without O_NONBLOCK a pipe that somebody put there would hold the thread for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as stream:  # noqa: PTH123 - by its descriptor
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            # A device has no size and no end.
            if not stat.S_ISREG(found.st_mode) or found.st_size > self._object_bytes_max:
                raise too_large()
            data = stream.readall()
        if len(data) > self._object_bytes_max:
            raise too_large()
        return data, found.st_mtime_ns // 1_000_000

    def read_own(self, path: Path) -> bytes:
        return path.read_bytes()

    def names(self, folder: Path) -> Sequence[str]:
        return os.listdir(folder)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def is_at(self, fd: int, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return False

    def open_folder(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o700, exist_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        replaced = self._replaced.pin(target)
        try:
            source.rename(target)
        finally:
            if replaced is not None:
                self._replaced.close(replaced)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def open_lock(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def open_hold(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def lock(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def lock_shared(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def sync_data(self, fd: int) -> None:
        _sync_data(fd)

    def syncfs(self, fd: int) -> None:
        # Linux syncfs(2); it reports failed writes since Linux 5.8.
        if _libc().syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def close(self, fd: int) -> None:
        os.close(fd)


# Not every system has it.
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def make_durable_folder(disk: Disk, folder: Path, sync: Callable[[int], None]) -> None:
    """Make a folder in an existing one, so that a crash cannot take it away again with all in it.

    One that is there may have been made by another process and not be durable yet: it is synced too.

    Args:
        disk: where.
        folder: its path.
        sync: syncs the open parent.

    Raises:
        OSError: and whatever ``sync`` raises.
    """
    parent = disk.open_folder(folder.parent)
    try:
        disk.make_folder(folder)
        sync(parent)
    finally:
        disk.close(parent)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
