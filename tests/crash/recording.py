"""A real disk that notes what each system call changes, and what it makes durable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltadatabase.storage.disk import OsDisk

BASE = 0
"""Number of the folder in which everything happens; it is durable."""
OUTSIDE = -1
"""Any folder above that one."""


@dataclass(frozen=True)
class Entry:
    """A name in a folder now means this file or folder; None: it is gone."""

    folder: int
    name: str
    node: int | None


@dataclass(frozen=True)
class MakeFolder:
    """A folder's number; its name is an ``Entry`` of its own."""

    node: int


@dataclass(frozen=True)
class Truncate:
    node: int


@dataclass(frozen=True)
class Write:
    """Bytes behind those that were written before (since the last ``Truncate``)."""

    node: int
    data: bytes


@dataclass(frozen=True)
class Sync:
    """A file's bytes, or a folder's names, are durable; node None: everything is."""

    node: int | None


@dataclass(frozen=True)
class Begun:
    """A change was handed over: from now on it may be seen."""

    path: str
    version: int


@dataclass(frozen=True)
class Answered:
    """A change was acknowledged: from now on it must be seen."""

    path: str
    version: int


Step = Entry | MakeFolder | Truncate | Write | Sync | Begun | Answered


class RecordingDisk:
    """Does everything for real below ``base``, and notes it in ``steps``.

    Attributes:
        calls: the system calls by name, for comparison with those that the system saw.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.steps: list[Step] = []
        self.calls: list[str] = []
        self._disk = OsDisk()
        self._nodes: dict[Path, int] = {base: BASE}
        self._open: dict[int, int] = {}
        self._next = BASE + 1

    def open_new(self, path: Path) -> int:
        return self._made(path, self._call("open", self._disk.open_new, path), new=True)

    def open_lock(self, path: Path) -> int:
        new = not path.exists()
        return self._made(path, self._call("open", self._disk.open_lock, path), new=new)

    def open_hold(self, path: Path) -> int:
        new = not path.exists()
        return self._made(path, self._call("open", self._disk.open_hold, path), new=new)

    def open_folder(self, path: Path) -> int:
        return self._made(path, self._call("open", self._disk.open_folder, path), new=False)

    def write(self, fd: int, data: memoryview) -> int:
        count = self._call("write", self._disk.write, fd, data)
        self.steps.append(Write(self._open[fd], bytes(data[:count])))
        return count

    def read(self, path: Path) -> tuple[bytes, int]:
        return self._disk.read(path)

    def read_own(self, path: Path) -> bytes:
        return self._disk.read_own(path)

    def names(self, folder: Path) -> Sequence[str]:
        return self._disk.names(folder)

    def exists(self, path: Path) -> bool:
        return self._disk.exists(path)

    def is_at(self, fd: int, path: Path) -> bool:
        return self._disk.is_at(fd, path)

    def make_folder(self, path: Path) -> None:
        new = not path.exists()
        self._call("mkdir", self._disk.make_folder, path)
        if new:
            self._nodes[path] = node = self._number()
            self.steps += [MakeFolder(node), Entry(self._nodes[path.parent], path.name, node)]

    def rename(self, source: Path, target: Path) -> None:
        self._call("rename", self._disk.rename, source, target)
        node = self._nodes.pop(source)
        self._nodes[target] = node
        # Two folders, which become durable one without the other.
        self.steps += [
            Entry(self._nodes[target.parent], target.name, node),
            Entry(self._nodes[source.parent], source.name, None),
        ]

    def unlink(self, path: Path) -> None:
        self._call("unlink", self._disk.unlink, path)
        del self._nodes[path]
        self.steps.append(Entry(self._nodes[path.parent], path.name, None))

    def lock(self, fd: int) -> None:
        self._call("lock", self._disk.lock, fd)

    def lock_shared(self, fd: int) -> None:
        self._call("lock", self._disk.lock_shared, fd)

    def sync_data(self, fd: int) -> None:
        self._call("fdatasync", self._disk.sync_data, fd)
        self.steps.append(Sync(self._open[fd]))

    def fsync(self, fd: int) -> None:
        self._call("fsync", self._disk.fsync, fd)
        self.steps.append(Sync(self._open[fd]))

    def syncfs(self, fd: int) -> None:
        self._call("syncfs", self._disk.syncfs, fd)
        self.steps.append(Sync(None))

    def close(self, fd: int) -> None:
        self._disk.close(fd)
        del self._open[fd]

    def overwrite(self, path: Path, data: bytes) -> None:
        """Change a file in its place and sync it. No commit may do this."""
        path.write_bytes(data)
        node = self._nodes[path]
        self.steps += [Truncate(node), Write(node, data), Sync(node)]

    def is_folder(self, fd: int) -> bool:
        """What an open descriptor is."""
        return any(node == self._open[fd] and path.is_dir() for path, node in self._nodes.items())

    def path_of(self, fd: int) -> Path:
        """Where the file or folder of an open descriptor is now."""
        return next(path for path, node in self._nodes.items() if node == self._open[fd])

    def _call(self, name: str, function: Any, *arguments: Any) -> Any:
        self.calls.append(name)
        return function(*arguments)

    def _made(self, path: Path, fd: int, *, new: bool) -> int:
        if new:
            self._nodes[path] = node = self._number()
            self.steps.append(Entry(self._nodes[path.parent], path.name, node))
        self._open[fd] = self._nodes.get(path, OUTSIDE)
        return fd

    def _number(self) -> int:
        self._next += 1
        return self._next - 1
