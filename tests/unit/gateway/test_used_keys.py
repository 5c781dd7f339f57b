import sqlite3
import stat

import pytest

from deltadatabase.errors import StartupError, StoreFull, Unavailable
from deltadatabase.gateway.used_keys import FILE, Outcome, Use, UsedKeys

DAY_MS = 24 * 3600 * 1000
USE = Use(b"w" * 16, 1000, 7)
OUTCOME = Outcome(8, '"8-77777777"', 1234, True)


@pytest.fixture(params=["file", "memory"])
def used(request, tmp_path):
    table = UsedKeys(tmp_path / FILE if request.param == "file" else None)
    yield table
    table.close()


def test_a_use_is_begun_completed_and_forgotten(used):
    assert used.find(b"n", 1000) is None
    used.begin([(b"n", USE), (b"m", USE)], 1000)
    assert used.find(b"n", 1001) == USE
    used.complete([(b"n", OUTCOME)])
    assert used.find(b"n", 1001) == Use(b"w" * 16, 1000, 7, OUTCOME)
    used.forget([b"n", b"absent"])
    assert used.find(b"n", 1001) is None
    assert used.find(b"m", 1001) == USE


def test_a_use_ends_after_a_day(used):
    used.begin([(b"n", USE)], 1000)
    assert used.find(b"n", 1000 + DAY_MS) == USE
    assert used.find(b"n", 1001 + DAY_MS) is None
    used.begin([(b"n", Use(b"v" * 16, 1001 + DAY_MS, 0))], 1001 + DAY_MS)
    assert used.find(b"n", 1001 + DAY_MS) == Use(b"v" * 16, 1001 + DAY_MS, 0)


def test_the_oldest_go_first():
    used = UsedKeys(rows_max=100)
    for count in range(2000):
        used.begin([(b"%d" % count, Use(b"w" * 16, count, 0))], count)
    left = [count for count in range(2000) if used.find(b"%d" % count, 2000)]
    assert left == list(range(2000 - len(left), 2000))
    assert 100 <= len(left) < 100 + 500
    used.close()


def test_freed_names_make_room():
    used = UsedKeys(rows_max=100)
    used.begin([(b"kept", Use(b"w" * 16, 0, 0))], 0)
    for count in range(2000):
        used.begin([(b"n", Use(b"w" * 16, 1, 0))], 1)
        if count % 2:
            used.forget([b"n"])
    assert used.find(b"kept", 1) is not None
    used.close()


def test_it_outlives_a_process_that_is_killed(tmp_path):
    path = tmp_path / FILE
    used = UsedKeys(path)
    used.begin([(b"n", USE)], 1000)
    # What a process that is killed now leaves behind.
    left = tmp_path / "left"
    left.mkdir()
    for file in tmp_path.glob(FILE + "*"):
        (left / file.name).write_bytes(file.read_bytes())
    used.close()
    again = UsedKeys(left / FILE)
    assert again.find(b"n", 1000) == USE
    again.close()


def test_only_its_owner_may_read_it(tmp_path):
    used = UsedKeys(tmp_path / FILE)
    used.begin([(b"n", USE)], 1000)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
    used.close()


@pytest.mark.parametrize("damage", ["no database", "another version", "torn"])
def test_a_damaged_file_is_begun_anew(tmp_path, damage):
    path = tmp_path / FILE
    if damage == "no database":
        path.write_bytes(b"nonsense" * 1000)
    else:
        used = UsedKeys(path)
        used.begin(((b"%d" % number, USE) for number in range(1000)), 1000)
        used.close()
        if damage == "torn":
            path.write_bytes(path.read_bytes()[:8192] + bytes(8192))
        else:
            with sqlite3.connect(path) as connection:
                connection.execute("PRAGMA user_version = 99")
            connection.close()
    used = UsedKeys(path)
    assert used.find(b"1", 1000) is None
    used.begin([(b"n", USE)], 1000)
    used.close()


def test_a_file_that_cannot_be_made_ends_the_start(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(StartupError) as caught:
        UsedKeys(tmp_path / FILE)
    assert caught.value.code == "state_unusable"


def test_a_full_disk_refuses_and_keeps_what_was_there(tmp_path):
    used = UsedKeys(tmp_path / FILE)
    used.begin([(b"n", USE)], 1000)
    used._connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StoreFull):
        used.begin(((b"%d" % number, USE) for number in range(1000)), 1000)
    assert used.find(b"n", 1000) == USE
    assert used.find(b"1", 1000) is None
    used.close()
    with pytest.raises(Unavailable):
        used.find(b"n", 1000)
