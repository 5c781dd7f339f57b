"""The SQLite file that keeps API keys and sessions over restarts.

It holds digests (SHA-256) of 256-bit random tokens, never a token. One process owns the
file: the connection keeps SQLite's exclusive lock, so what was read at start stays true.
Every change is one transaction, on disk (``synchronous=FULL``) before the call returns.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, final

import msgspec

from deltadatabase.auth.policy import Permission
from deltadatabase.errors import StartupError, StoreFull, Unavailable

_SCHEMA_VERSION: Final = 2
_SCHEMA: Final = (
    """CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        hash BLOB NOT NULL UNIQUE,
        permissions TEXT NOT NULL,
        schemas TEXT,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER,
        rate_per_s INTEGER,
        last_used_ms INTEGER
    )""",
    """CREATE TABLE sessions (
        hash BLOB PRIMARY KEY,
        issuer TEXT NOT NULL,
        binding BLOB NOT NULL,
        client_id TEXT NOT NULL,
        expires_ms INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX sessions_by_issuer ON sessions (issuer)",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)
_FROM_VERSION_1: Final = (
    "ALTER TABLE keys ADD COLUMN rate_per_s INTEGER",
    "ALTER TABLE keys ADD COLUMN last_used_ms INTEGER",
    "PRAGMA user_version = 2",
)


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. ``hash`` is the SHA-256 of its secret; no ``expires_ms``: it does not expire.

    No ``rate_per_s``: it may ask as often as it likes. ``last_used_ms`` lags behind by a minute.
    """

    id: str
    name: str
    hash: bytes
    permissions: tuple[Permission, ...]
    schemas: tuple[str, ...] | None
    created_ms: int
    expires_ms: int | None
    rate_per_s: int | None = None
    last_used_ms: int | None = None


class StoredSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session.

    Attributes:
        hash: SHA-256 of its token.
        issuer: id of the key it was opened with, or ``admin``, or ``dev``.
        binding: for the admin key's sessions, ties them to that very key; else b"".
        client_id: the client's name.
        expires_ms: wall-clock end.
    """

    hash: bytes
    issuer: str
    binding: bytes
    client_id: str
    expires_ms: int


@final
class AccountFile:
    """Opens or creates the file with mode 0600 and keeps it to itself. Not thread-safe.

    Raises:
        StartupError: the file is in use (``locked``), damaged, of another version, or cannot be
            opened (``state_unusable``).
    """

    def __init__(self, path: Path) -> None:
        try:
            _create(path)
        except OSError as exc:
            raise _unusable(f"cannot be created: {exc.strerror}") from exc
        # The lock in the owner guards the connection; requests may come from any thread.
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException as exc:
            self._connection.close()
            if isinstance(exc, sqlite3.Error):
                raise _startup_error(exc) from exc
            if isinstance(exc, UnicodeDecodeError):
                # SQLite's text about a damaged file quotes it.
                raise _damaged() from exc
            raise

    def load(self) -> tuple[list[StoredKey], list[StoredSession]]:
        """Read everything: keys in order of creation, sessions in order of their end.

        Raises:
            StartupError: the contents are damaged.
        """
        try:
            with closing(self._connection.execute("SELECT * FROM keys ORDER BY created_ms, rowid")) as rows:
                keys = [_stored_key(row) for row in rows]
            with closing(self._connection.execute("SELECT * FROM sessions ORDER BY expires_ms")) as rows:
                sessions = [
                    msgspec.convert(
                        dict(zip(StoredSession.__struct_fields__, row, strict=True)), StoredSession
                    )
                    for row in rows
                ]
        except sqlite3.Error as exc:
            raise _startup_error(exc) from exc
        except ValueError as exc:
            raise _damaged() from exc
        return keys, sessions

    def add_key(self, key: StoredKey) -> None:
        """Store a new key. Raises like every write: Unavailable, StoreFull."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key.id,
                    key.name,
                    key.hash,
                    ",".join(key.permissions),
                    None if key.schemas is None else ",".join(key.schemas),
                    key.created_ms,
                    key.expires_ms,
                    key.rate_per_s,
                    key.last_used_ms,
                ),
            )

    def delete_key(self, key_id: str) -> None:
        """Remove a key and all its sessions."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE issuer = ?", (key_id,))
            connection.execute("DELETE FROM keys WHERE id = ?", (key_id,))

    def set_last_used(self, last_used_ms: Mapping[str, int]) -> None:
        """Note when keys were used last, by their ids."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE keys SET last_used_ms = ? WHERE id = ?",
                [(used_ms, key_id) for key_id, used_ms in last_used_ms.items()],
            )

    def replace_sessions(self, *, added: Iterable[StoredSession] = (), ended: Iterable[bytes] = ()) -> None:
        """Remove the sessions with the hashes ``ended`` and store the new ones, in one transaction."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM sessions WHERE hash = ?", [(digest,) for digest in ended])
            connection.executemany(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", [msgspec.structs.astuple(row) for row in added]
            )

    def close(self) -> None:
        """Give the file free."""
        self._connection.close()

    def _prepare(self) -> None:
        connection = self._connection
        # Exclusive before the first access in WAL mode: then there is no shared-memory file either.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").close()
        connection.execute("PRAGMA journal_mode = WAL").close()
        connection.execute("PRAGMA synchronous = FULL").close()
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
        elif version not in (1, _SCHEMA_VERSION):
            raise _unusable(f"was made by another version of this program, version={version}")
        elif connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise _damaged()
        if version == 1:
            for statement in _FROM_VERSION_1:
                connection.execute(statement)
        connection.execute("COMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            if _primary_code(exc) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY):
                raise StoreFull("the state directory is full or read-only") from exc
            raise Unavailable("the state directory cannot be written", code="state_unavailable") from exc


def _stored_key(row: tuple[object, ...]) -> StoredKey:
    values = dict(zip(StoredKey.__struct_fields__, row, strict=True))
    for column in ("permissions", "schemas"):
        text = values[column]
        if isinstance(text, str):
            values[column] = text.split(",")
    return msgspec.convert(values, StoredKey)


def _create(path: Path) -> None:
    """Make sure that there is a file and that it is ours alone, its name on disk."""
    try:
        # SQLite would create it with the umask's mode, readable to others for a moment.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise
        path.chmod(0o600)
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _primary_code(exc: sqlite3.Error) -> int:
    return getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _startup_error(exc: sqlite3.Error) -> StartupError:
    code = _primary_code(exc)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StartupError(
            "the accounts file in the state directory is in use by another process", code="locked"
        )
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        return _unusable("cannot be read and written; check the disk's space and the permissions")
    return _damaged()


def _damaged() -> StartupError:
    return _unusable("is damaged: restore it, or move it away to start without API keys")


def _unusable(what: str) -> StartupError:
    return StartupError(f"the accounts file in the state directory {what}", code="state_unusable")
