"""How far a scrub came, kept in the state directory so that the next one can go on there."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from deltadatabase.errors import StartupError
from deltadatabase.maintenance.findings import Ledger

FILE: Final = "scrub.json"
LOCK: Final = "scrub.lock"
FORMAT: Final = 1


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go on.

    Attributes:
        format: of this file.
        database_id: the database that was scrubbed.
        tasks: the tasks it had; a scrub goes on only with the same.
        token: its maintenance flag, or "".
        after: everything up to this path is done.
        ledger: what was found up to there.
    """

    format: int
    database_id: str
    tasks: dict[str, bool]
    token: str
    after: str
    ledger: Ledger


class Positions:
    """The position file of one state directory. One scrub at a time uses it.

    Args:
        directory: the state directory; made with mode 0700 if missing.

    Raises:
        StartupError: ``locked``: another scrub runs; ``state_unusable``: it cannot be used.
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
        except OSError:
            os.close(self._lock)
            raise StartupError("another scrub runs with this state directory", code="locked") from None

    def load(self) -> Position | None:
        """Read the position of an interrupted scrub; None without one.

        Raises:
            StartupError: ``state_unusable``.
        """
        try:
            position = msgspec.json.decode((self._directory / FILE).read_bytes(), type=Position)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise _unusable(f"holds {FILE}, which cannot be read: {exc.strerror}") from None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            position = None
        if position is None or position.format != FORMAT:
            raise _unusable(f"holds a {FILE} that this version cannot read: scrub without -resume")
        return position

    def save(self, position: Position) -> None:
        """Replace the file; it is on disk, whole, when this returns. Blocks.

        Raises:
            StartupError: ``state_unusable``.
        """
        temporary = self._directory / f".{FILE}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(position))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._directory / FILE)
            self._sync()
        except OSError as exc:
            raise _unusable(f"cannot be written: {exc.strerror}") from None

    def clear(self) -> None:
        """Remove the file: nothing was interrupted."""
        (self._directory / FILE).unlink(missing_ok=True)

    def close(self) -> None:
        """Let another scrub run."""
        os.close(self._lock)

    def _sync(self) -> None:
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _unusable(reason: str) -> StartupError:
    return StartupError(f"the state directory {reason}", code="state_unusable")
