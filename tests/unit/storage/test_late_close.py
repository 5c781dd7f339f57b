"""Files that were replaced are let go, all of them, and never too many at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from deltadatabase.storage import late_close
from deltadatabase.storage.disk import OsDisk
from deltadatabase.storage.late_close import LateClose


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def wait_for_descriptors(count: int) -> None:
    deadline_s = time.monotonic() + 10
    while descriptors() > count:
        assert time.monotonic() < deadline_s, "descriptors stay open"
        time.sleep(0.01)


def replace(disk: OsDisk, folder: Path, content: bytes) -> None:
    (folder / "new").write_bytes(content)
    disk.rename(folder / "new", folder / "file")


def test_each_replaced_file_is_let_go(tmp_path: Path) -> None:
    disk, before = OsDisk(), descriptors()
    for number in range(3 * late_close.WAITING_MAX):
        replace(disk, tmp_path, b"%d" % number)
        assert (tmp_path / "file").read_bytes() == b"%d" % number
        assert descriptors() <= before + 2 * late_close.WAITING_MAX + 1
    wait_for_descriptors(before)


def test_a_rename_that_fails_keeps_nothing_open(tmp_path: Path) -> None:
    disk, before = OsDisk(), descriptors()
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(FileNotFoundError):
        disk.rename(tmp_path / "missing", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"kept"
    wait_for_descriptors(before)


def test_what_is_not_there_and_what_is_too_much_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = LateClose()
    assert closing.pin(tmp_path / "missing") is None
    monkeypatch.setattr(late_close, "WAITING_MAX", 0)
    assert closing.pin(tmp_path) is None


def test_a_file_with_a_pin_has_its_bytes_until_it_is_closed(tmp_path: Path) -> None:
    closing = LateClose()
    (tmp_path / "file").write_bytes(b"old")
    fd = closing.pin(tmp_path / "file")
    assert fd is not None
    (tmp_path / "file").unlink()
    assert os.fstat(fd).st_nlink == 0
    closing.close(fd)
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            os.fstat(fd)
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError("the descriptor stays open")
