"""Where the main worker's secrets come from."""

from __future__ import annotations

import pytest

from deltadatabase.cli import secrets
from deltadatabase.crypto.keyring import MasterKey
from deltadatabase.errors import StartupError
from deltadatabase.settings import load_main, load_scrub


def test_no_key_is_made_for_data_that_another_key_sealed(tmp_path):
    arguments = [f"-shared-fs={tmp_path}"]
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "database.json").write_text("{}")
    with pytest.raises(StartupError) as caught:
        secrets.main_secrets(load_main(arguments, {}))
    assert caught.value.code == "wrong_master_key"
    assert "restore" in caught.value.detail
    assert not (tmp_path / "_state" / "master-key").exists()
    given = load_main(arguments, {"MASTER_KEY": "ab" * 32, "ADMIN_KEY": "k" * 16})
    keys, admin_key, made = secrets.main_secrets(given)
    assert admin_key == "k" * 16
    assert made == secrets.Made()
    assert len(keys.keyring().ids) == 1


def test_keys_are_made_once_for_an_empty_directory(tmp_path):
    settings = load_main([f"-shared-fs={tmp_path}"], {})
    first, admin_key, made = secrets.main_secrets(settings)
    again, same, _ = secrets.main_secrets(settings)
    assert first.keyring().ids == again.keyring().ids
    assert admin_key == same
    assert made.master_key == tmp_path / "_state" / "master-key"


def test_known_keys_are_given_or_kept_and_never_made(tmp_path):
    flags = [f"-data={tmp_path}"]
    assert secrets.known_keys(load_scrub(flags, {})) == []
    assert not list(tmp_path.iterdir())
    secrets.main_secrets(load_main([f"-shared-fs={tmp_path}"], {}))
    (kept,) = secrets.known_keys(load_scrub(flags, {}))
    assert kept.reveal().hex() == (tmp_path / "_state" / "master-key").read_text().strip()
    given = {"MASTER_KEY": "ab" * 32, "MASTER_KEY_PREVIOUS": "cd" * 32}
    ids = [MasterKey.from_hex(text).key_id for text in given.values()]
    assert [key.key_id for key in secrets.known_keys(load_scrub(flags, given))] == ids
    rotated = secrets.known_keys(load_scrub(flags, {"MASTER_KEY_PREVIOUS": "cd" * 32}))
    assert [key.key_id for key in rotated] == [kept.key_id, ids[1]]
