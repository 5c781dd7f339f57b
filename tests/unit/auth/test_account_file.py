from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deltadatabase.auth.account_file import AccountFile, StoredKey, StoredSession
from deltadatabase.auth.policy import Permission
from deltadatabase.errors import StartupError, StoreFull, Unavailable

KEY = StoredKey(
    id="k1",
    name="ada",
    hash=b"h" * 32,
    permissions=(Permission.READ, Permission.WRITE),
    schemas=("chat.*", "users"),
    created_ms=1,
    expires_ms=2,
)
SESSION = StoredSession(hash=b"s" * 32, issuer="k1", binding=b"", client_id="ada", expires_ms=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounts.sqlite"


@pytest.fixture
def file(path: Path) -> Iterator[AccountFile]:
    opened = AccountFile(path)
    yield opened
    opened.close()


def load(path: Path) -> None:
    with closing(AccountFile(path)) as file:
        file.load()


def refused(path: Path) -> StartupError:
    with pytest.raises(StartupError) as caught:
        load(path)
    assert str(path) not in caught.value.detail
    return caught.value


def test_what_was_stored_is_read_again(file: AccountFile, path: Path) -> None:
    unlimited = StoredKey(
        id="k2",
        name="b, c",
        hash=b"i" * 32,
        permissions=(Permission.ADMIN,),
        schemas=None,
        created_ms=1,
        expires_ms=None,
    )
    file.add_key(KEY)
    file.add_key(unlimited)
    file.replace_sessions(added=[SESSION])
    file.close()
    with closing(AccountFile(path)) as again:
        assert again.load() == ([KEY, unlimited], [SESSION])
        again.delete_key("k1")
        assert again.load() == ([unlimited], [])


def test_nobody_else_may_read_the_file(file: AccountFile, path: Path) -> None:
    file.add_key(KEY)
    assert {stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()} == {0o600}


def test_an_existing_files_mode_is_tightened(path: Path) -> None:
    AccountFile(path).close()
    path.chmod(0o644)
    AccountFile(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_nothing_behind(file: AccountFile) -> None:
    file.replace_sessions(added=[SESSION])
    with pytest.raises(Unavailable) as caught:
        file.replace_sessions(added=[SESSION], ended=[])
    assert caught.value.code == "state_unavailable"
    assert file.load() == ([], [SESSION])
    file.add_key(KEY)
    assert file.load() == ([KEY], [SESSION])


def test_a_full_disk_is_told_apart(file: AccountFile) -> None:
    # SQLite's own limit stands in for the disk's: both are SQLITE_FULL.
    pages = file._connection.execute("PRAGMA page_count").fetchone()[0]
    file._connection.execute(f"PRAGMA max_page_count = {pages}").close()
    with pytest.raises(StoreFull):
        file.replace_sessions(
            added=[
                StoredSession(
                    hash=number.to_bytes(32, "big"),
                    issuer="k1",
                    binding=b"",
                    client_id="ada",
                    expires_ms=number,
                )
                for number in range(1000)
            ]
        )
    assert file.load() == ([], [])


def test_a_file_in_use_is_refused(file: AccountFile, path: Path) -> None:
    error = refused(path)
    assert error.code == "locked"
    assert "in use" in error.detail
    file.add_key(KEY)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"not a database, whatever its name says" * 100)
    before = path.read_bytes()
    error = refused(path)
    assert error.code == "state_unusable"
    assert "damaged" in error.detail
    assert path.read_bytes() == before


def test_a_damaged_page_is_refused(path: Path) -> None:
    with closing(AccountFile(path)) as file:
        file.add_key(KEY)
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 64] = b"\xff" * 64
    path.write_bytes(data)
    assert "damaged" in refused(path).detail


@pytest.mark.parametrize(
    "change",
    ["UPDATE keys SET permissions = 'root'", "UPDATE keys SET created_ms = 'soon'", "DROP TABLE sessions"],
)
def test_impossible_contents_are_refused(path: Path, change: str) -> None:
    with closing(AccountFile(path)) as file:
        file.add_key(KEY)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.commit()
    assert "damaged" in refused(path).detail


def test_a_file_of_a_later_version_is_refused(path: Path) -> None:
    AccountFile(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    error = refused(path)
    assert "another version" in error.detail
    assert "99" in error.detail


def test_a_missing_directory_is_one_clear_error(tmp_path: Path) -> None:
    assert "cannot be created" in refused(tmp_path / "absent" / "accounts.sqlite").detail


def test_a_directory_in_its_place_is_one_clear_error(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)
    assert refused(path).code == "state_unusable"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_a_damaged_file_of_version_1_is_refused_and_not_migrated(path: Path) -> None:
    old = bytearray((Path(__file__).parents[2] / "vectors" / "accounts-v1.db").read_bytes())
    for start in range(4096, len(old), 4096):
        old[start : start + 64] = b"\xff" * 64
    path.write_bytes(old)
    assert "damaged" in refused(path).detail
    # The header's user_version (SQLite file format, section 1.3): still 1.
    assert path.read_bytes()[60:64] == (1).to_bytes(4, "big")


def test_the_last_use_of_a_key_is_noted(file: AccountFile) -> None:
    file.add_key(KEY)
    file.set_last_used({"k1": 5, "gone": 6})
    ((found,), _) = file.load()
    assert found.last_used_ms == 5
