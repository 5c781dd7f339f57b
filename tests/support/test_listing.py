"""A listing of a directory survives that its files go meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

from support.listing import directory_listing


def test_the_files_are_those_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"1")
    (tmp_path / "d").write_bytes(b"2")
    assert {name: data for name, (_, data) in directory_listing(tmp_path).items()} == {
        "a/b/c": b"1",
        "d": b"2",
    }


def test_a_file_that_is_moved_away_meanwhile_is_left_out(tmp_path: Path) -> None:
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "stays").write_bytes(b"1")
    ends = threading.Event()

    def come_and_go() -> None:
        while not ends.is_set():
            for number in range(50):
                (listed / str(number)).write_bytes(b"2")
            for number in range(50):
                (listed / str(number)).rename(tmp_path / "elsewhere")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        assert all("stays" in directory_listing(listed) for _ in range(300))
    finally:
        ends.set()
        thread.join()
