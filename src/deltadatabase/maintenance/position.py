"""How far a scrub came, kept in the state directory so that the next one can go on there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from deltadatabase.maintenance.findings import Ledger
from deltadatabase.statefolder import StateFolder, unusable

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
        self._folder = StateFolder(directory, lock=LOCK, taken="another scrub runs with this state directory")

    def load(self) -> Position | None:
        """Read the position of an interrupted scrub; None without one.

        Raises:
            StartupError: ``state_unusable``.
        """
        data = self._folder.read(FILE)
        if data is None:
            return None
        try:
            position = msgspec.json.decode(data, type=Position)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            position = None
        if position is None or position.format != FORMAT:
            raise unusable(f"holds a {FILE} that this version cannot read: scrub without -resume")
        return position

    def save(self, position: Position) -> None:
        """Replace the file; it is on disk, whole, when this returns. Blocks.

        Raises:
            StartupError: ``state_unusable``.
        """
        try:
            self._folder.write(FILE, msgspec.json.encode(position))
        except OSError as exc:
            raise unusable(f"cannot be written: {exc.strerror}") from None

    def clear(self) -> None:
        """Remove the file: nothing was interrupted."""
        self._folder.remove(FILE)

    def close(self) -> None:
        """Let another scrub run."""
        self._folder.close()
