from __future__ import annotations

import pytest

from deltadatabase.crypto import format as layout
from deltadatabase.errors import Corrupt
from deltadatabase.model import Header, RecentWrite, RecentWrites

KEY_ID, SALT, NONCE = b"K" * 8, b"S" * 32, b"N" * 12


def header(*, key: str = "user:42", tombstone: bool = False, recent: RecentWrites | None = None) -> Header:
    return Header(
        schema_id="chat.v1",
        key=key,
        version=3,
        term=7,
        updated_ms=1_700_000_000_000,
        write_id=b"w" * 16,
        recent=recent or RecentWrites(),
        tombstone=tombstone,
        key_id=KEY_ID,
    )


def sealed(head: Header, document_bytes: int = 0) -> bytes:
    signed = layout.pack(head, key_id=KEY_ID, salt=SALT, nonce=NONCE, document_bytes=document_bytes)
    return signed + b"M" * 32 + b"c" * document_bytes + b"T" * 16


def changed(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


@pytest.mark.parametrize("document_bytes", [0, 1, 2, 1023, 1024])
@pytest.mark.parametrize("key", ["k", "kk"])
def test_live_entities_have_even_sizes(document_bytes: int, key: str) -> None:
    assert not layout.is_tombstone_size(len(sealed(header(key=key), document_bytes)))


@pytest.mark.parametrize("key", ["k", "kk"])
def test_tombstones_have_odd_sizes(key: str) -> None:
    assert layout.is_tombstone_size(len(sealed(header(key=key, tombstone=True))))


def test_parse_gives_back_what_was_packed() -> None:
    head = header(key="été 🦀", recent=RecentWrites.of(RecentWrite(2, b"b" * 16), RecentWrite(1, b"a" * 16)))
    data = sealed(head, 10)
    parsed = layout.parse(data)
    assert parsed.header == head
    assert (parsed.suite, parsed.salt, parsed.nonce) == (layout.SUITE_AES_256_GCM, SALT, NONCE)
    assert data[parsed.mac_offset : parsed.body_offset] == b"M" * 32
    assert data[parsed.body_offset :] == b"c" * 10 + b"T" * 16


def test_255_recent_writes_are_read() -> None:
    recent = RecentWrites.of(*(RecentWrite(version, b"r" * 16) for version in range(255, 0, -1)))
    assert layout.parse(sealed(header(recent=recent), 4)).header.recent == recent


@pytest.mark.parametrize("tombstone", [False, True])
def test_every_truncation_is_refused(tombstone: bool) -> None:
    data = sealed(header(tombstone=tombstone))
    for size in range(len(data)):
        with pytest.raises(Corrupt):
            layout.parse(data[:size])


def test_bytes_after_a_tombstone_are_refused() -> None:
    data = sealed(header(tombstone=True))
    for surplus in (b"x", b"xx"):
        with pytest.raises(Corrupt):
            layout.parse(data + surplus)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"X"),  # magic
        (4, b"\x00"),  # format version
        (4, b"\x02"),
        (5, b"\x00"),  # suite
        (5, b"\x02"),
        (6, b"\x02"),  # unknown flag
        (6, b"\x80"),
        (6, b"\x01"),  # tombstone, although the size is even and there is a document
        (7, b"\xff\xff\xff\xff"),  # header length
        (7, b"\x00\x00\x00\x00"),
        (103, b"\xff"),  # number of recent writes
        (103, b"\x01"),
        (104, b"\xff\xff"),  # length of the schema id
        (104, b"\x00\x00"),
        (106, b"\xff"),  # schema id is not UTF-8
    ],
)
def test_impossible_fields_are_refused(offset: int, value: bytes) -> None:
    with pytest.raises(Corrupt):
        layout.parse(changed(sealed(header(), 64), offset, value))


def test_a_header_length_off_by_a_few_bytes_is_refused() -> None:
    data = sealed(header(), 64)
    right = int.from_bytes(data[7:11], "big")
    for wrong in range(right - 40, right + 90):
        if wrong != right:
            with pytest.raises(Corrupt):
                layout.parse(changed(data, 7, wrong.to_bytes(4, "big")))


def test_padding_must_be_zero_bytes_of_the_stated_length() -> None:
    data = next(
        candidate
        for candidate in (sealed(header(), 4), sealed(header(), 5))
        if candidate[layout.parse(candidate).mac_offset - 2] == 1
    )
    end = layout.parse(data).mac_offset
    for value in (b"\x01\x01", b"\x02\x00", b"\x00\x00"):
        with pytest.raises(Corrupt):
            layout.parse(changed(data, end - 2, value))


def test_parity_must_agree_with_the_flag() -> None:
    live = changed(sealed(header(tombstone=True)), 6, b"\x00")
    with pytest.raises(Corrupt):
        layout.parse(live)


def test_all_refusals_read_alike() -> None:
    data = sealed(header(), 8)
    texts = set()
    for broken in (b"", data[:-9], changed(data, 0, b"X"), changed(data, 106, b"\xff"), data + b"x"):
        with pytest.raises(Corrupt) as caught:
            layout.parse(broken)
        texts.add((caught.value.detail, caught.value.code))
    assert texts == {(layout.corrupt().detail, "integrity")}


def test_what_is_left_of_a_header_is_read_without_its_body() -> None:
    data = sealed(header(recent=RecentWrites.of(RecentWrite(2, b"r" * 16))), 100)
    parsed = layout.parse(data)
    for end in range(parsed.body_offset, len(data)):
        assert layout.parse(data[:end], header_only=True).header == parsed.header
    for end in range(parsed.body_offset):
        with pytest.raises(Corrupt):
            layout.parse(data[:end], header_only=True)


def test_a_cut_that_the_header_tells_of_is_recognised() -> None:
    data = sealed(header(), 100)
    least = layout.parse(data).body_offset + layout.TAG_BYTES
    for end in range(len(data)):
        assert layout.is_cut_short(data[:end]) is (end < least)
    assert not layout.is_cut_short(b"{}" * 200) and not layout.is_cut_short(b"{}")
    # A flipped high byte of the header's length is no cut.
    assert not layout.is_cut_short(changed(data, 8, b"\x01"))
