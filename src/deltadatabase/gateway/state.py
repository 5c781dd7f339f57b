"""What the main worker must remember across restarts: the epochs that it has reserved.

A small file in the state directory. One process at a time: the directory is locked while in use.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from deltadatabase.errors import StartupError, Unavailable
from deltadatabase.limits import EPOCH_MAX

FILE: Final = "epochs.json"
LOCK: Final = "lock"


class ClusterState:
    """The main worker's own durable facts.

    Args:
        directory: the state directory; made with mode 0700 if missing.

    Raises:
        StartupError: ``locked`` when another main worker uses the directory,
            ``state_unusable`` when it or its file cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise _unusable(f"cannot be used: {exc.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._limits = _load(directory / FILE)
        except BlockingIOError:
            os.close(self._lock)
            raise StartupError(
                "another main worker uses this state directory; stop it, or give this one another -data",
                code="locked",
            ) from None
        except BaseException:
            os.close(self._lock)
            raise

    def epoch_limit(self, database_id: str) -> int:
        """Highest epoch that was ever reserved for this database by this state directory."""
        return self._limits.get(database_id, 0)

    def set_epoch_limit(self, database_id: str, limit: int) -> None:
        """Remember a reservation; it is on disk when this returns. Never lowers it.

        Raises:
            Unavailable: ``state_unavailable``: the directory cannot be written.
        """
        limits = {**self._limits, database_id: max(limit, self.epoch_limit(database_id))}
        try:
            _store(self._directory, msgspec.json.encode(limits))
        except OSError:
            raise Unavailable("the state directory cannot be written", code="state_unavailable") from None
        self._limits = limits

    def close(self) -> None:
        """Let the directory go."""
        os.close(self._lock)


def _load(path: Path) -> dict[str, int]:
    try:
        limits = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise _unusable(f"holds {FILE}, which cannot be read: {exc.strerror}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _damaged() from None
    if not all(0 <= limit <= EPOCH_MAX for limit in limits.values()):
        raise _damaged()
    return limits


def _store(directory: Path, data: bytes) -> None:
    temporary = directory / f".{FILE}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / FILE)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _damaged() -> StartupError:
    return _unusable(f"holds a damaged {FILE}; remove that file: epochs are then taken from the store")


def _unusable(reason: str) -> StartupError:
    return StartupError(f"the state directory {reason}", code="state_unusable")
