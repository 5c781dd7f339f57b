from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from deltadatabase.cli.keyfiles import is_private, load, load_or_create
from deltadatabase.errors import StartupError


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_made_once_with_private_modes(tmp_path, mask):
    path = tmp_path / "deep" / "state" / "admin-key"
    before = os.umask(mask)
    try:
        assert load_or_create(path, lambda: "first") == ("first", True)
    finally:
        os.umask(before)
    assert load_or_create(path, lambda: "second") == ("first", False)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert is_private(path)
    assert path.read_text() == "first\n"
    assert os.listdir(path.parent) == ["admin-key"]


def test_an_absent_file_is_none(tmp_path):
    assert load(tmp_path / "x" / "admin-key") is None


def test_surrounding_white_space_is_not_part_of_the_secret(tmp_path):
    path = tmp_path / "admin-key"
    path.write_text(" abc \n\n")
    assert load(path) == "abc"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"a\0b", b"a" * 5000])
def test_a_damaged_file_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "master-key"
    path.write_bytes(content)
    with pytest.raises(StartupError) as caught:
        load_or_create(path, lambda: "new")
    assert caught.value.code == "state_unusable"
    assert "the master-key file holds no secret" in caught.value.detail
    assert str(tmp_path) not in caught.value.detail
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_used_is_named_without_its_path(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError) as caught:
        load_or_create(tmp_path / "file" / "admin-key", lambda: "new")
    assert "admin-key file cannot be read: Not a directory" in caught.value.detail
    assert str(tmp_path) not in caught.value.detail


def test_a_file_that_others_may_read_is_told(tmp_path):
    path = tmp_path / "admin-key"
    load_or_create(path, lambda: "x")
    path.chmod(0o640)
    assert not is_private(path)
    assert load(path) == "x"


def test_of_many_at_once_one_wins_and_all_agree(tmp_path):
    path = tmp_path / "state" / "admin-key"
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: load_or_create(path, lambda: f"secret-{i}"), range(64)))
    secrets = {secret for secret, _ in answers}
    assert len(secrets) == 1
    assert [created for _, created in answers].count(True) == 1
    assert os.listdir(path.parent) == ["admin-key"]


def test_a_racer_that_comes_first_wins(tmp_path):
    path = tmp_path / "admin-key"

    def make():
        path.write_text("theirs\n")
        return "ours"

    assert load_or_create(path, make) == ("theirs", False)
    assert os.listdir(tmp_path) == ["admin-key"]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StartupError) as caught:
        load_or_create(tmp_path / "admin-key", lambda: "x")
    assert "No space left on device" in caught.value.detail
    assert os.listdir(tmp_path) == []
