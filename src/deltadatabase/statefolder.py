"""A private directory of small files that are replaced whole, used by one process at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import final

from deltadatabase.errors import StartupError


@final
class StateFolder:
    """Opens a state directory; makes it with mode 0700 if it is missing.

    Args:
        directory: the state directory.
        lock: name of the lock file in it; held until ``close`` or the end of the process.
        taken: what to say when another process holds it.

    Raises:
        StartupError: ``locked``; ``state_unusable`` when the directory cannot be used.
    """

    def __init__(self, directory: Path, *, lock: str, taken: str) -> None:
        self.directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise unusable(f"cannot be used: {exc.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StartupError(taken, code="locked") from None

    def read(self, name: str) -> bytes | None:
        """Read a file; None when there is none.

        Raises:
            StartupError: ``state_unusable``: it cannot be read.
        """
        try:
            return (self.directory / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise unusable(f"holds {name}, which cannot be read: {exc.strerror}") from None

    def write(self, name: str, data: bytes) -> None:
        """Replace a file, mode 0600; it is on disk, whole, when this returns. Blocks. Raises OSError."""
        replace_durably(self.directory / name, data)

    def remove(self, name: str) -> None:
        """Remove a file; absent is fine."""
        (self.directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let the directory go."""
        os.close(self._lock)


def replace_durably(path: Path, data: bytes) -> None:
    """Replace a file, mode 0600: after a crash it is the old one or the new one. Raises OSError."""
    temporary = path.with_name(f".{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unusable(reason: str) -> StartupError:
    """The error of a state directory that cannot be used."""
    return StartupError(f"the state directory {reason}", code="state_unusable")
