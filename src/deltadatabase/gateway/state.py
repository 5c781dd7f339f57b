"""What the main worker must remember across restarts: reserved epochs and schema revisions.

SQLite in the state directory. One process at a time: the directory is locked while it is open.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from deltadatabase.errors import StartupError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS epochs (
    database_id TEXT PRIMARY KEY,
    epoch_limit INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS revisions (
    schema_id TEXT PRIMARY KEY,
    revision INTEGER NOT NULL
) STRICT;
"""


class ClusterState:
    """The main worker's own durable facts. Every setter is on disk when it returns.

    Args:
        directory: the state directory; made with mode 0700 if missing.

    Raises:
        StartupError: ``locked`` when another main worker uses the directory,
            ``state_damaged`` when the file in it cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StartupError(
                f"the state directory cannot be used; reason={os.strerror(exc.errno or 0).lower()}",
                code="state_unusable",
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StartupError(
                "another main worker uses this state directory; stop it, or give -state-dir", code="locked"
            ) from None
        try:
            self._db = _open(directory / "cluster.db")
            self._revisions: dict[str, int] = dict(
                self._db.execute("SELECT schema_id, revision FROM revisions")
            )
        except sqlite3.Error:
            os.close(self._lock)
            raise StartupError(
                "cluster.db in the state directory is damaged; move it away: epochs and schema "
                "revisions are taken from the store again",
                code="state_damaged",
            ) from None

    def epoch_limit(self, database_id: str) -> int:
        """Highest epoch that was ever reserved for this database by this state directory."""
        row = self._db.execute(
            "SELECT epoch_limit FROM epochs WHERE database_id = ?", (database_id,)
        ).fetchone()
        return int(row[0]) if row else 0

    def set_epoch_limit(self, database_id: str, limit: int) -> None:
        """Remember a reservation; never lowers it."""
        with self._db:
            self._db.execute(
                "INSERT INTO epochs VALUES (?, ?) ON CONFLICT (database_id)"
                " DO UPDATE SET epoch_limit = max(epoch_limit, excluded.epoch_limit)",
                (database_id, limit),
            )

    def revision(self, schema_id: str) -> int:
        """The schema's present revision; 0 if it was never changed through here."""
        return self._revisions.get(schema_id, 0)

    def raise_revisions(self, schema_ids: Iterable[str]) -> None:
        """Raise the revision of each schema by one."""
        raised = {schema_id: self._revisions.get(schema_id, 0) + 1 for schema_id in schema_ids}
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO revisions VALUES (?, ?)", raised.items())
        self._revisions.update(raised)

    def close(self) -> None:
        """Close the file and let the directory go."""
        self._db.close()
        os.close(self._lock)


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db
