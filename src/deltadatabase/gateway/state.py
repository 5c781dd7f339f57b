"""What the main worker must remember across restarts: the epochs that it has reserved.

A small file in the state directory. One process at a time: the directory is locked while in use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from deltadatabase.errors import StartupError, Unavailable
from deltadatabase.limits import EPOCH_MAX
from deltadatabase.statefolder import StateFolder, unusable

FILE: Final = "epochs.json"
LOCK: Final = "lock"


class ClusterState:
    """The main worker's own durable facts.

    Args:
        directory: the state directory; made with mode 0700 if missing.

    Attributes:
        folder: the directory, locked, for what else the main worker keeps there.

    Raises:
        StartupError: ``locked`` when another main worker uses the directory,
            ``state_unusable`` when it or its file cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = StateFolder(
            directory,
            lock=LOCK,
            taken="another main worker uses this state directory; stop it, or give this one another -data",
        )
        try:
            self._limits = _parse(self.folder.read(FILE))
        except BaseException:
            self.folder.close()
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
            self.folder.write(FILE, msgspec.json.encode(limits))
        except OSError:
            raise Unavailable("the state directory cannot be written", code="state_unavailable") from None
        self._limits = limits

    def close(self) -> None:
        """Let the directory go."""
        self.folder.close()


def _parse(data: bytes | None) -> dict[str, int]:
    if data is None:
        return {}
    try:
        limits = msgspec.json.decode(data, type=dict[str, int])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _damaged() from None
    if not all(0 <= limit <= EPOCH_MAX for limit in limits.values()):
        raise _damaged()
    return limits


def _damaged() -> StartupError:
    return unusable(f"holds a damaged {FILE}; remove that file: epochs are then taken from the store")
