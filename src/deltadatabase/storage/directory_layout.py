"""Where things are in a store's directory. Pure, but for the names that it draws.

``cluster/.tmp/xx`` hold files on their way into place, ``cluster/.locks`` the shards' lock files and
the directory's own (``directory_hold``), ``cluster/.journal`` a journal's segments (``journal``).
No object's path has a part that begins with a dot, so none of these is ever an object or listed.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deltadatabase.clock import Random
from deltadatabase.errors import Internal
from deltadatabase.storage.base import Condition
from deltadatabase.storage.batch import Commit

LOCK_COUNT: Final = 256
_PATH: Final = re.compile(r"[^/\0.][^/\0]*(?:/[^/\0.][^/\0]*)*")


class DirectoryLayout:
    """The files of one opened directory.

    Args:
        root: the directory, absolute.
        random: names this opening, so that temporary files of several never have one name.
    """

    def __init__(self, root: Path, random: Random) -> None:
        self.root = root
        self._run_name = random(8).hex()
        self.temporary = root / "cluster" / ".tmp"
        # Programs that make and move their files in one folder wait for each other at each of them:
        # two on one directory then commit half of what they can (decision 0049).
        self.staging = self.temporary / self._run_name[:2]
        self.locks = root / "cluster" / ".locks"
        self.journal = root / "cluster" / ".journal"
        self.hold = self.locks / "directory"
        self.wanted = self.locks / "wanted"
        self._serial = itertools.count()

    @property
    def own_folders(self) -> Sequence[Path]:
        """What has to be there before anything is committed, outermost first."""
        return (self.temporary.parent, self.temporary, self.staging, self.locks)

    def commit(
        self,
        path: str,
        data: bytes | None,
        condition: Condition,
        deadline_s: float,
        future: asyncio.Future[str] | None,
    ) -> Commit:
        """A change of the object ``path``. Raises Internal like ``file``."""
        _check(path)
        return Commit(
            self,
            path,
            data,
            condition,
            serial=next(self._serial),
            deadline_s=deadline_s,
            future=future,
        )

    def file(self, path: str) -> Path:
        """The file of an object. Raises Internal for a path that leaves its folder or is hidden."""
        return self.root.joinpath(*_parts(path))

    def lock(self, path: str) -> Path:
        """The lock file of an object's shard."""
        return self.locks / f"{zlib.crc32(path.encode()) % LOCK_COUNT:02x}"

    def staged(self, serial: int) -> Path:
        """A temporary file that no other opening of the directory names."""
        return self.staging / f"{self._run_name}-{serial:x}"

    def segment(self, number: int) -> Path:
        """A segment of the journal."""
        return self.journal / f"{number:016x}"

    def folder(self, prefix: str) -> Path:
        """The folder of a listing's prefix. Raises Internal for what is none."""
        if not prefix:
            return self.root
        if not prefix.endswith("/"):
            raise Internal("a listing's prefix is a folder")
        return self.root.joinpath(*_parts(prefix[:-1]))


def _parts(path: str) -> Sequence[str]:
    _check(path)
    return path.split("/")


def _check(path: str) -> None:
    if not _PATH.fullmatch(path):
        raise Internal("an object's path has an empty part or one that begins with a dot")
