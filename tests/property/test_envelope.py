"""Properties of the envelope: it opens to what was sealed, and to nothing else."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase import limits
from deltadatabase.crypto import format as layout
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import Corrupt, Unavailable
from deltadatabase.model import Header, RecentWrite, RecentWrites

SEALER = Sealer(Keyring(MasterKey(bytes(32))), os.urandom)
KEY_ID = SEALER.keyring.primary.key_id

U64 = st.integers(0, 2**64 - 1)
WRITE_IDS = st.binary(min_size=limits.WRITE_ID_BYTES, max_size=limits.WRITE_ID_BYTES)
NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
HEADERS = st.builds(
    Header,
    schema_id=NAMES,
    key=NAMES,
    version=U64,
    term=U64,
    updated_ms=U64,
    write_id=WRITE_IDS,
    recent=st.lists(st.builds(RecentWrite, U64, WRITE_IDS), max_size=12).map(
        lambda writes: RecentWrites.of(*writes)
    ),
    tombstone=st.booleans(),
    key_id=st.just(KEY_ID),
)


def sealed(header: Header, document: bytes) -> bytes:
    return SEALER.seal(header, b"" if header.tombstone else document)


@given(HEADERS, st.binary(max_size=300))
def test_opening_gives_back_what_was_sealed(header: Header, document: bytes) -> None:
    data = sealed(header, document)
    expected = b"" if header.tombstone else document
    assert SEALER.open(data, header.schema_id, header.key) == (header, expected)
    assert SEALER.open_header(data, header.schema_id, header.key) == header
    assert layout.is_tombstone_size(len(data)) is header.tombstone


@given(HEADERS, st.binary(max_size=100), st.data())
def test_any_flipped_bit_is_refused(header: Header, document: bytes, data: st.DataObject) -> None:
    broken = bytearray(sealed(header, document))
    bit = data.draw(st.integers(0, len(broken) * 8 - 1))
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Corrupt, Unavailable)):
        SEALER.open(bytes(broken), header.schema_id, header.key)


@given(HEADERS, st.binary(max_size=100), NAMES, NAMES)
def test_only_the_right_name_opens_it(header: Header, document: bytes, schema_id: str, key: str) -> None:
    if (schema_id, key) == (header.schema_id, header.key):
        key += "x"
    with pytest.raises(Corrupt):
        SEALER.open(sealed(header, document), schema_id, key)


@given(st.binary(max_size=400), st.booleans())
def test_parsing_never_fails_otherwise(data: bytes, with_magic: bool) -> None:
    """Arbitrary bytes, half of them with a beginning that gets past the first checks."""
    if with_magic:
        data = layout.MAGIC + bytes((layout.FORMAT_VERSION, layout.SUITE_AES_256_GCM, 0)) + data
    try:
        parsed = layout.parse(data)
    except Corrupt:
        return
    assert parsed.body_offset + layout.TAG_BYTES <= len(data)
