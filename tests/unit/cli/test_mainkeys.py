"""Where master keys come from, also when a rotation is broken off between any two steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.clocks import SeededRandom

from deltadatabase.cli import keyfiles, mainkeys
from deltadatabase.cli.mainkeys import NEXT, GivenKeys, KeptKeys
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import Conflict, Unavailable
from deltadatabase.settings import Secret

A, B, C = ("aa" * 32, "bb" * 32, "cc" * 32)


def key_id(text: str) -> bytes:
    return MasterKey.from_hex(text).key_id


def kept(folder: Path, seed: int = 1) -> KeptKeys:
    return KeptKeys(folder, SeededRandom(seed), on_made=lambda path: None)


def ids(keyring: Keyring) -> set[bytes]:
    return set(keyring.ids)


# Kept


def test_the_first_key_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []
    first = KeptKeys(tmp_path, SeededRandom(1), on_made=made.append).keyring()
    again = KeptKeys(tmp_path, SeededRandom(2), on_made=made.append).keyring()
    assert ids(first) == ids(again) and len(ids(first)) == 1
    assert made == [tmp_path / "master-key"]


def test_a_rotation_makes_the_next_key_once_and_adopts_it(tmp_path: Path) -> None:
    present = kept(tmp_path).keyring()
    target = kept(tmp_path, 2).target(present)
    assert target.primary.key_id == kept(tmp_path, 3).target(present).primary.key_id
    assert ids(target) == {present.primary.key_id, target.primary.key_id}
    # Readable after a restart, and not the primary one yet.
    assert kept(tmp_path).keyring().primary.key_id == present.primary.key_id
    assert ids(kept(tmp_path).keyring()) == ids(target)
    kept(tmp_path).adopt(target)
    after = kept(tmp_path).keyring()
    assert after.primary.key_id == target.primary.key_id and ids(after) == ids(target)
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    second = kept(tmp_path, 4).target(after)
    assert len(ids(second)) == 3


@pytest.mark.parametrize("steps", range(3))
def test_adopting_may_be_broken_off_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    present = kept(tmp_path).keyring()
    target = kept(tmp_path, 2).target(present)
    done = 0

    def step() -> None:
        nonlocal done
        if done == steps:
            raise OSError("planted")
        done += 1

    replace, unlink = keyfiles.replace, Path.unlink

    def replacing(path: Path, secret: str) -> None:
        step()
        replace(path, secret)

    def unlinking(path: Path, missing_ok: bool = False) -> None:
        if path.name == NEXT:
            step()
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(mainkeys.keyfiles, "replace", replacing)
        patch.setattr(Path, "unlink", unlinking)
        with pytest.raises(Unavailable):
            kept(tmp_path).adopt(target)
    after = kept(tmp_path).keyring()
    assert ids(after) == ids(target)
    if after.primary.key_id != target.primary.key_id:
        assert kept(tmp_path, 3).target(after).primary.key_id == target.primary.key_id
        kept(tmp_path).adopt(target)
        after = kept(tmp_path).keyring()
    assert after.primary.key_id == target.primary.key_id and ids(after) == ids(target)
    fresh = kept(tmp_path, 5).target(after)
    assert fresh.primary.key_id not in ids(after)


# Given


def test_given_keys_rotate_from_the_previous_to_the_new(tmp_path: Path) -> None:
    present = Keyring(MasterKey.from_hex(A))
    target = GivenKeys(Secret(B), Secret(A)).target(present)
    assert target.primary.key_id == key_id(B) and ids(target) == {key_id(A), key_id(B)}
    restarted = GivenKeys(Secret(B), Secret(A))
    assert ids(restarted.target(restarted.keyring())) == {key_id(A), key_id(B)}


def test_keys_in_files_are_read_anew(tmp_path: Path) -> None:
    primary, previous = tmp_path / "primary", tmp_path / "previous"
    primary.write_text(A)
    previous.write_text(C)
    keys = GivenKeys(Secret(A, file=str(primary)), Secret(C, file=str(previous)))
    present = keys.keyring()
    primary.write_text(B + "\n")
    with pytest.raises(Conflict) as caught:
        keys.target(present)
    assert "-master-key-previous" in caught.value.detail
    previous.write_text(A)
    target = keys.target(present)
    assert target.primary.key_id == key_id(B) and ids(target) == {key_id(A), key_id(B), key_id(C)}
    primary.unlink()
    with pytest.raises(Conflict):
        keys.target(present)


def test_one_key_alone_is_no_rotation() -> None:
    with pytest.raises(Conflict) as caught:
        GivenKeys(Secret(A), None).target(Keyring(MasterKey.from_hex(A)))
    assert caught.value.code == "nothing_to_rotate"
    assert A not in caught.value.detail


def test_a_retired_key_is_put_aside_and_not_read_again(tmp_path: Path) -> None:
    present = kept(tmp_path).keyring()
    target = kept(tmp_path, 2).target(present)
    kept(tmp_path).adopt(target)
    old = present.primary.key_id.hex()
    kept(tmp_path).retire([old, "not there"])
    assert ids(kept(tmp_path).keyring()) == {target.primary.key_id}
    aside = tmp_path / f"master-key-retired-{old}"
    assert MasterKey.from_hex(aside.read_text()).key_id == present.primary.key_id
    kept(tmp_path).retire([old])
