from __future__ import annotations

import base64
import hashlib
import json

import pytest

from deltadatabase.crypto import format as layout
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import Corrupt, Unavailable
from deltadatabase.model import Header, RecentWrite, RecentWrites

OLD, NEW = MasterKey(b"\x01" * 32), MasterKey(b"\x02" * 32)
DOCUMENT = b'{"secret":"plaintext"}'
KEY_ID_OFFSETS = range(11, 19)


class Bytes:
    """A reproducible random source that never repeats itself."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, size: int, /) -> bytes:
        self._calls += 1
        return hashlib.shake_128(str(self._calls).encode()).digest(size)


def header(*, tombstone: bool = False, key: str = "user:42") -> Header:
    return Header(
        schema_id="chat.v1",
        key=key,
        version=3,
        term=7,
        updated_ms=1_700_000_000_123,
        write_id=bytes(range(16)),
        recent=RecentWrites.of(RecentWrite(2, b"r" * 16)),
        tombstone=tombstone,
        key_id=NEW.key_id,
    )


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(Keyring(NEW, [OLD]), Bytes())


def test_open_gives_back_header_and_document(sealer: Sealer) -> None:
    data = sealer.seal(header(), DOCUMENT)
    assert sealer.open(data, "chat.v1", "user:42") == (header(), DOCUMENT)
    assert sealer.open_header(data, "chat.v1", "user:42") == header()
    assert DOCUMENT not in data


def test_a_tombstone_opens_as_an_empty_document_and_has_an_odd_size(sealer: Sealer) -> None:
    data = sealer.seal(header(tombstone=True), b"")
    assert sealer.open(data, "chat.v1", "user:42") == (header(tombstone=True), b"")
    assert layout.is_tombstone_size(len(data))
    assert not layout.is_tombstone_size(len(sealer.seal(header(), DOCUMENT)))


def test_every_write_has_its_own_salt_and_nonce(sealer: Sealer) -> None:
    first, second = (layout.parse(sealer.seal(header(), DOCUMENT)) for _ in range(2))
    assert first.salt != second.salt
    assert first.nonce != second.nonce


@pytest.mark.parametrize("tombstone", [False, True])
def test_every_flipped_bit_is_refused(sealer: Sealer, tombstone: bool) -> None:
    data = sealer.seal(header(tombstone=tombstone), b"" if tombstone else DOCUMENT)
    for offset in range(len(data)):
        # A flipped key id names a key that nobody has: not proof of damage, but refused.
        refusal = Unavailable if offset in KEY_ID_OFFSETS else Corrupt
        for bit in range(8):
            broken = bytearray(data)
            broken[offset] ^= 1 << bit
            with pytest.raises(refusal):
                sealer.open(bytes(broken), "chat.v1", "user:42")


def test_every_flipped_header_byte_is_refused_by_the_header_alone(sealer: Sealer) -> None:
    data = sealer.seal(header(), DOCUMENT)
    for offset in range(layout.parse(data).body_offset):
        broken = bytearray(data)
        broken[offset] ^= 0x01
        for read in (lambda sealed: sealer.open_header(sealed, "chat.v1", "user:42"), sealer.meta_json):
            with pytest.raises((Corrupt, Unavailable)):
                read(bytes(broken))


@pytest.mark.parametrize("tombstone", [False, True])
def test_every_truncation_and_extension_is_refused(sealer: Sealer, tombstone: bool) -> None:
    data = sealer.seal(header(tombstone=tombstone), b"" if tombstone else DOCUMENT)
    for broken in (*(data[:size] for size in range(len(data))), data + b"x", data + b"xx"):
        with pytest.raises(Corrupt):
            sealer.open(broken, "chat.v1", "user:42")


@pytest.mark.parametrize(
    ("schema_id", "key"), [("chat.v1", "user:43"), ("chat.v2", "user:42"), ("user:42", "chat.v1")]
)
def test_another_entitys_object_is_refused(sealer: Sealer, schema_id: str, key: str) -> None:
    data = sealer.seal(header(), DOCUMENT)
    with pytest.raises(Corrupt):
        sealer.open(data, schema_id, key)
    with pytest.raises(Corrupt):
        sealer.open_header(data, schema_id, key)


def test_header_of_one_version_and_document_of_another_do_not_go_together(sealer: Sealer) -> None:
    first, second = (sealer.seal(header(), DOCUMENT) for _ in range(2))
    cut = layout.parse(first).body_offset
    with pytest.raises(Corrupt):
        sealer.open(first[:cut] + second[cut:], "chat.v1", "user:42")


def test_a_previous_key_opens_and_the_primary_seals(sealer: Sealer) -> None:
    old = Sealer(Keyring(OLD), Bytes()).seal(header(), DOCUMENT)
    opened, document = sealer.open(old, "chat.v1", "user:42")
    assert (opened.key_id, document) == (OLD.key_id, DOCUMENT)
    assert layout.parse(sealer.seal(opened, DOCUMENT)).header.key_id == NEW.key_id


def test_an_unknown_key_is_not_damage(sealer: Sealer) -> None:
    data = sealer.seal(header(), DOCUMENT)
    with pytest.raises(Unavailable) as caught:
        Sealer(Keyring(OLD), Bytes()).open(data, "chat.v1", "user:42")
    assert caught.value.code == "key_unavailable"


def test_a_forged_key_id_does_not_open_under_another_key(sealer: Sealer) -> None:
    data = sealer.seal(header(), DOCUMENT)
    forged = data[: KEY_ID_OFFSETS.start] + OLD.key_id + data[KEY_ID_OFFSETS.stop :]
    with pytest.raises(Corrupt):
        sealer.open(forged, "chat.v1", "user:42")


def test_all_damage_reads_alike_and_shows_nothing(sealer: Sealer) -> None:
    data = sealer.seal(header(), DOCUMENT)
    errors = []
    flipped = data[:-1] + bytes((data[-1] ^ 1,))
    for broken, key in ((data[:50], "user:42"), (flipped, "user:42"), (data, "user:43")):
        with pytest.raises(Corrupt) as caught:
            sealer.open(broken, "chat.v1", key)
        errors.append(caught.value)
    assert {(error.detail, error.code) for error in errors} == {(layout.corrupt().detail, "integrity")}
    assert all(error.__cause__ is None for error in errors)


def test_meta_json_tells_the_whole_header(sealer: Sealer) -> None:
    data = sealer.seal(header(key="été"), DOCUMENT)
    parsed = layout.parse(data)
    text = sealer.meta_json(data)
    assert json.loads(text) == {
        "format": 1,
        "suite": "HKDF-SHA256/HMAC-SHA256/AES-256-GCM",
        "schema_id": "chat.v1",
        "key": "été",
        "key_id": NEW.key_id.hex(),
        "iv": base64.b64encode(parsed.nonce).decode(),
        "tag": base64.b64encode(data[-16:]).decode(),
        "salt": base64.b64encode(parsed.salt).decode(),
        "version": 3,
        "term": 7,
        "time": "2023-11-14T22:13:20.123Z",
        "time_ms": 1_700_000_000_123,
        "write_id": "000102030405060708090a0b0c0d0e0f",
        "recent": [{"version": 2, "write_id": "72" * 16}],
        "tombstone": False,
    }
    assert b"plaintext" not in text
    assert json.loads(sealer.meta_json(sealer.seal(header(tombstone=True), b"")))["tombstone"] is True


def test_the_sealer_hides_its_keys(sealer: Sealer) -> None:
    assert NEW.reveal().hex() not in repr(sealer) + repr(sealer.keyring)
