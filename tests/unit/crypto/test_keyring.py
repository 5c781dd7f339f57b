from __future__ import annotations

import os

import msgspec
import pytest

from deltadatabase.crypto.keyring import Keyring, MasterKey, check_database
from deltadatabase.errors import Invalid, StartupError, Unavailable
from deltadatabase.model import DatabaseInfo

OLD, NEW, OTHER = (MasterKey(bytes((number,)) * 32) for number in (1, 2, 3))


def database(*keys: MasterKey, database_id: str = "d1") -> DatabaseInfo:
    return DatabaseInfo(
        database_id=database_id,
        format=1,
        shards=1024,
        highest_epoch=5,
        keys={key.key_id.hex(): key.check_value(database_id) for key in keys},
    )


def test_hex_is_read_in_either_case_and_with_a_newline() -> None:
    text = "Ab" * 32
    assert MasterKey.from_hex(f"{text}\n").reveal() == bytes.fromhex(text)


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "zz" * 32, "ab " * 21 + "a", "٣" * 64])
def test_bad_hex_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(StartupError) as caught:
        MasterKey.from_hex(text)
    assert caught.value.code == "bad_flag"
    assert "64 hex digits" in caught.value.detail
    assert not text or text not in caught.value.detail


def test_keys_of_another_length_are_refused() -> None:
    with pytest.raises(Invalid):
        MasterKey(bytes(31))


def test_a_generated_key_comes_from_the_random_source() -> None:
    assert MasterKey.generate(lambda size: b"r" * size).reveal() == b"r" * 32


def test_the_key_id_names_the_key_and_reveals_nothing() -> None:
    assert len(OLD.key_id) == 8
    assert OLD.key_id == MasterKey(OLD.reveal()).key_id != NEW.key_id
    assert OLD.key_id not in OLD.reveal()


def test_check_values_differ_by_key_and_database() -> None:
    values = {key.check_value(name) for key in (OLD, NEW) for name in ("d1", "d2")}
    assert len(values) == 4
    assert OLD.key_id.hex() not in OLD.check_value("d1")


def test_text_forms_hide_the_keys() -> None:
    secret = os.urandom(32)
    key = MasterKey(secret)
    for text in (repr(key), str(key), repr(Keyring(key)), str(Keyring(key, [OLD])), f"{key}"):
        assert secret.hex() not in text
        assert repr(secret) not in text
    assert key.key_id.hex() in repr(key)


def test_a_keyring_finds_each_of_its_keys() -> None:
    keyring = Keyring(NEW, [OLD, NEW])
    assert keyring.primary is NEW
    assert keyring.ids == (NEW.key_id, OLD.key_id)
    assert keyring.get(OLD.key_id) is OLD
    with pytest.raises(Unavailable) as caught:
        keyring.get(OTHER.key_id)
    assert caught.value.code == "key_unavailable"


def test_the_payload_carries_the_whole_keyring() -> None:
    keyring = Keyring.from_payload(Keyring(NEW, [OLD, OTHER]).to_payload())
    assert keyring.ids == (NEW.key_id, OLD.key_id, OTHER.key_id)
    assert keyring.get(OTHER.key_id).reveal() == OTHER.reveal()


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x02" + bytes(32), b"\x01" + bytes(33), bytes(32)])
def test_malformed_payloads_are_refused(payload: bytes) -> None:
    with pytest.raises(Invalid):
        Keyring.from_payload(payload)


def test_a_known_key_changes_nothing() -> None:
    assert check_database(Keyring(OLD), database(OLD)) is None
    assert check_database(Keyring(NEW, [OLD]), database(OLD, NEW)) is None
    assert check_database(Keyring(NEW, [OTHER]), database(NEW)) is None


def test_a_new_primary_is_added_beside_a_known_key() -> None:
    info = database(OLD)
    assert check_database(Keyring(NEW, [OLD]), info) == database(OLD, NEW)
    assert info == database(OLD)


@pytest.mark.parametrize("info", [database(OLD), database(OLD, NEW), database()])
def test_a_database_of_other_keys_is_refused(info: DatabaseInfo) -> None:
    with pytest.raises(StartupError) as caught:
        check_database(Keyring(OTHER), info)
    assert caught.value.code == "wrong_master_key"
    assert OTHER.reveal().hex() not in caught.value.detail


def test_a_check_value_of_another_database_is_refused() -> None:
    info = msgspec.structs.replace(database(OLD, database_id="d2"), database_id="d1")
    with pytest.raises(StartupError) as caught:
        check_database(Keyring(OLD), info)
    assert caught.value.code == "wrong_master_key"


def test_one_wrong_check_value_is_refused_though_another_key_fits() -> None:
    keys = {**database(OLD).keys, NEW.key_id.hex(): "00" * 32}
    info = msgspec.structs.replace(database(OLD), keys=keys)
    for keyring in (Keyring(OLD, [NEW]), Keyring(NEW, [OLD])):
        with pytest.raises(StartupError):
            check_database(keyring, info)


def test_a_key_that_is_still_in_use_must_not_be_missing() -> None:
    with pytest.raises(StartupError) as caught:
        check_database(Keyring(NEW), database(OLD, NEW))
    assert caught.value.code == "wrong_master_key"
    assert OLD.key_id.hex() in caught.value.detail and "deltadb rotate" in caught.value.detail


def test_a_retired_key_opens_nothing_any_more() -> None:
    info = msgspec.structs.replace(database(NEW), retired_keys=(OLD.key_id.hex(),))
    assert check_database(Keyring(NEW), info) is None
    assert check_database(Keyring(NEW, [OLD]), info) is None
    for keyring in (Keyring(OLD), Keyring(OLD, [NEW])):
        with pytest.raises(StartupError) as caught:
            check_database(keyring, info)
        assert caught.value.code == "wrong_master_key" and "retired" in caught.value.detail


def test_a_keyring_is_named_by_its_keys_and_their_primary() -> None:
    keyring = Keyring(OLD)
    readable = keyring.with_readable(NEW)
    promoted = readable.promoted(NEW.key_id)
    assert readable.primary is OLD and promoted.primary is NEW
    assert set(readable.ids) == set(promoted.ids) == {OLD.key_id, NEW.key_id}
    assert len({keyring.fingerprint, readable.fingerprint, promoted.fingerprint}) == 3
    assert Keyring(NEW, [OTHER, OLD]).fingerprint == Keyring(NEW, [OLD, OTHER]).fingerprint
    with pytest.raises(Unavailable):
        keyring.promoted(OTHER.key_id)
