"""The table of idempotency keys in use: which write each names, and what became of it.

A SQLite file in the state directory, or memory. It holds digests, versions and ETags, never a key
or a document. It outlives a killed process, not a loss of power: nothing is synced, since a request
would wait for it, and a damaged file is begun anew.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import msgspec

from deltadatabase.errors import StoreFull, Unavailable
from deltadatabase.limits import IDEMPOTENCY_KEPT_S, IDEMPOTENCY_ROWS_IN_MEMORY_MAX, IDEMPOTENCY_ROWS_MAX
from deltadatabase.statefolder import unusable
from deltadatabase.telemetry.logging import get_logger

FILE: Final = "idempotency.db"

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = (
    """CREATE TABLE uses (
        name BLOB PRIMARY KEY,
        write_id BLOB NOT NULL,
        begun_ms INTEGER NOT NULL,
        seen INTEGER NOT NULL,
        version INTEGER,
        etag TEXT,
        updated_ms INTEGER,
        created INTEGER
    ) WITHOUT ROWID""",
    "CREATE INDEX uses_by_age ON uses (begun_ms)",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)
_SWEEP_EVERY: Final = 500
"""New rows between two looks for old ones."""
_SWEPT_MAX: Final = 1000
"""Rows that one look removes: the event loop waits for it."""

_log = get_logger(__name__)


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What a write did. ``etag`` is "" for a delete."""

    version: int
    etag: str
    updated_ms: int
    created: bool


class Use(msgspec.Struct, frozen=True, gc=False):
    """One use of an idempotency key.

    Attributes:
        write_id: the write that it names.
        begun_ms: wall clock of its first attempt.
        seen: version of the entity before that attempt; 0 where none was seen.
        outcome: what the write did; None while that is not known.
    """

    write_id: bytes
    begun_ms: int
    seen: int
    outcome: Outcome | None = None


@final
class UsedKeys:
    """Opens or creates the table. Not thread-safe; each call takes some 10 µs.

    Args:
        path: the file, kept by this process alone; None: memory.
        kept_s: for how long a use is remembered.
        rows_max: past so many, the oldest are forgotten; None: as ``limits`` say.

    Raises:
        StartupError: ``state_unusable``: the file cannot be made or opened.
    """

    def __init__(
        self, path: Path | None = None, *, kept_s: float = IDEMPOTENCY_KEPT_S, rows_max: int | None = None
    ) -> None:
        self._kept_ms = int(kept_s * 1000)
        default_max = IDEMPOTENCY_ROWS_IN_MEMORY_MAX if path is None else IDEMPOTENCY_ROWS_MAX
        self._rows_max = default_max if rows_max is None else rows_max
        self._connection = _memory() if path is None else _opened(path)
        self._rows: int = self._connection.execute("SELECT count(*) FROM uses").fetchone()[0]
        self._until_sweep = 0

    def find(self, name: bytes, now_ms: int) -> Use | None:
        """The use of this name that is still remembered. Raises Unavailable."""
        with _translated():
            row = self._connection.execute(
                "SELECT write_id, begun_ms, seen, version, etag, updated_ms, created "
                "FROM uses WHERE name = ?",
                (name,),
            ).fetchone()
        if row is None or row[1] < now_ms - self._kept_ms:
            return None
        write_id, begun_ms, seen, version, etag, updated_ms, created = row
        outcome = None if version is None else Outcome(version, etag, updated_ms, bool(created))
        return Use(write_id, begun_ms, seen, outcome)

    def begin(self, uses: Iterable[tuple[bytes, Use]], now_ms: int) -> None:
        """Note uses by their names, all or none, in place of earlier ones. Raises Unavailable, StoreFull."""
        rows = [(name, use.write_id, use.begun_ms, use.seen) for name, use in uses]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO uses (name, write_id, begun_ms, seen) VALUES (?, ?, ?, ?)", rows
            )
            self._rows += len(rows)  # A replaced row counts twice until the next look.
            self._until_sweep -= len(rows)
            if self._until_sweep <= 0:
                self._sweep(connection, now_ms)

    def complete(self, outcomes: Iterable[tuple[bytes, Outcome]]) -> None:
        """Note what the named writes did. Raises Unavailable, StoreFull."""
        rows = [(*msgspec.structs.astuple(outcome), name) for name, outcome in outcomes]
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE uses SET version = ?, etag = ?, updated_ms = ?, created = ? WHERE name = ?", rows
            )

    def forget(self, names: Iterable[bytes]) -> None:
        """Free names whose writes were certainly not applied. Raises Unavailable, StoreFull."""
        with self._transaction() as connection:
            rows = [(name,) for name in names]
            self._rows -= connection.executemany("DELETE FROM uses WHERE name = ?", rows).rowcount

    def close(self) -> None:
        """Give the file free."""
        self._connection.close()

    def _sweep(self, connection: sqlite3.Connection, now_ms: int) -> None:
        self._until_sweep = _SWEEP_EVERY
        self._rows -= connection.execute(
            "DELETE FROM uses WHERE name IN "
            "(SELECT name FROM uses WHERE begun_ms < ? ORDER BY begun_ms LIMIT ?)",
            (now_ms - self._kept_ms, _SWEPT_MAX),
        ).rowcount
        if self._rows <= self._rows_max:
            return
        # Counting takes milliseconds: some more are removed, so that it is not soon done again.
        self._rows = connection.execute("SELECT count(*) FROM uses").fetchone()[0]
        if self._rows > self._rows_max:
            self._rows -= connection.execute(
                "DELETE FROM uses WHERE name IN (SELECT name FROM uses ORDER BY begun_ms LIMIT ?)",
                (self._rows - self._rows_max + self._rows_max // 1000,),
            ).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with _translated():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
            raise StoreFull("the state directory is full or read-only") from exc
        raise Unavailable("the state directory cannot be used", code="state_unavailable") from exc


def _memory() -> sqlite3.Connection:
    # Requests may come from any thread; there is one event loop.
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    for statement in _SCHEMA:
        connection.execute(statement)
    return connection


def _opened(path: Path) -> sqlite3.Connection:
    try:
        try:
            return _prepared(path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as exc:
            if isinstance(exc, sqlite3.OperationalError):
                raise
            _log.warning("the table of idempotency keys is damaged and begun anew")
            for suffix in ("", "-wal", "-shm", "-journal"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            return _prepared(path)
    except (OSError, sqlite3.Error) as exc:
        raise unusable(f"holds {FILE}, which cannot be used; remove that file") from exc


def _prepared(path: Path) -> sqlite3.Connection:
    # SQLite would make it with the umask's mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").close()
        connection.execute("PRAGMA journal_mode = WAL").close()
        connection.execute("PRAGMA synchronous = OFF").close()
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
        elif version != _SCHEMA_VERSION or connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("damaged, or of another version")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection
