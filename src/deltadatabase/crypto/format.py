"""Byte layout of a sealed entity: pack and parse, no cryptography.

Format 1, integers big-endian, lengths in bytes::

    offset  length
         0  4       magic "DDBe"
         4  1       format version, 1
         5  1       suite, 1: HKDF-SHA256, HMAC-SHA256, AES-256-GCM
         6  1       flags: bit 0 tombstone, the others 0
         7  4       header length: offset of the ciphertext
        11  8       key id
        19  32      salt
        51  12      nonce
        63  8       entity version
        71  8       term
        79  8       time, milliseconds since the Unix epoch
        87  16      write id
       103  1       number of recent writes, n
       104  24 * n  recent writes, newest first: version (8), write id (16)
            2 + s   schema id: length, UTF-8
            2 + k   key: length, UTF-8
            1 + p   padding: length (0 or 1), that many zero bytes
            32      header MAC over everything before it
            d + 16  ciphertext and tag

The padding makes the size of the whole object even for a live entity and odd for a
tombstone, so that a listing tells them apart without reading either. A tombstone has no
ciphertext, its tag alone.

A new layout gets a new format version; the golden bytes of this one stay in the tests.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from deltadatabase import limits
from deltadatabase.errors import Corrupt
from deltadatabase.model import RECENT_WRITE_BYTES, Header, RecentWrites

MAGIC: Final = b"DDBe"
FORMAT_VERSION: Final = 1
SUITE_AES_256_GCM: Final = 1
"""HKDF-SHA256 (RFC 5869), HMAC-SHA256 (RFC 2104), AES-256-GCM (NIST SP 800-38D)."""

KEY_ID_BYTES: Final = 8
SALT_BYTES: Final = 32
NONCE_BYTES: Final = 12
MAC_BYTES: Final = 32
TAG_BYTES: Final = 16

_TOMBSTONE_FLAG: Final = 1
_FIXED: Final = struct.Struct(">4sBBBI8s32s12sQQQ16sB")
_LENGTH: Final = struct.Struct(">H")

# The most recent writes that a count can say, the longest names, and the rest.
_NAMES_BYTES_MAX: Final = limits.SCHEMA_ID_BYTES_MAX + limits.KEY_ESCAPED_BYTES_MAX + 4
_HEADER_BYTES_MAX: Final = _FIXED.size + 255 * RECENT_WRITE_BYTES + _NAMES_BYTES_MAX + 2 + MAC_BYTES

assert RECENT_WRITE_BYTES == 8 + limits.WRITE_ID_BYTES


class Parsed(msgspec.Struct, frozen=True, gc=False):
    """Where the parts of a sealed entity lie. Nothing in it is to be believed before its MAC is checked.

    Attributes:
        header: the header's fields.
        suite: algorithms, ``SUITE_AES_256_GCM``.
        salt, nonce: inputs of key derivation and encryption.
        mac_offset: the header MAC begins here and covers all bytes before.
        body_offset: the ciphertext begins here; all bytes before are associated data.
    """

    header: Header
    suite: int
    salt: bytes
    nonce: bytes
    mac_offset: int
    body_offset: int


def corrupt() -> Corrupt:
    """The one error for everything that is wrong with a sealed entity.

    One text for all causes: which check failed would help only somebody who forges objects.
    """
    return Corrupt("the stored entity fails its integrity check")


def is_tombstone_size(size_bytes: int) -> bool:
    """Whether a sealed object of this size is a tombstone."""
    return size_bytes % 2 == 1


def is_cut_short(data: bytes) -> bool:
    """Whether a sealed entity ends before its header, which may be damaged, says that it can.

    A cut within the ciphertext cannot be told from other damage: the header has no length of it.
    """
    if len(data) < _FIXED.size:
        return MAGIC.startswith(data[: len(MAGIC)])
    body_offset = int.from_bytes(data[7:11])
    return data.startswith(MAGIC) and body_offset <= _HEADER_BYTES_MAX and len(data) < body_offset + TAG_BYTES


def pack(header: Header, *, key_id: bytes, salt: bytes, nonce: bytes, document_bytes: int) -> bytes:
    """Lay out all header bytes that come before the MAC.

    Args:
        header: the fields; its own ``key_id`` is ignored.
        key_id: master key that seals it, 8 bytes.
        salt: 32 bytes.
        nonce: 12 bytes.
        document_bytes: length of the plaintext, 0 for a tombstone.
    """
    # struct would cut or fill fields of the wrong length in silence.
    assert len(key_id) == KEY_ID_BYTES
    assert len(salt) == SALT_BYTES
    assert len(nonce) == NONCE_BYTES
    assert len(header.write_id) == limits.WRITE_ID_BYTES
    assert not (header.tombstone and document_bytes)
    schema_id = header.schema_id.encode()
    key = header.key.encode()
    recent = header.recent
    unpadded = _FIXED.size + len(recent.packed) + 2 + len(schema_id) + 2 + len(key) + 1
    header_bytes = unpadded + MAC_BYTES
    padding = b"\x00"
    if is_tombstone_size(header_bytes + document_bytes + TAG_BYTES) is not header.tombstone:
        header_bytes += 1
        padding = b"\x01\x00"
    parts = [
        _FIXED.pack(
            MAGIC,
            FORMAT_VERSION,
            SUITE_AES_256_GCM,
            _TOMBSTONE_FLAG if header.tombstone else 0,
            header_bytes,
            key_id,
            salt,
            nonce,
            header.version,
            header.term,
            header.updated_ms,
            header.write_id,
            len(recent),
        )
    ]
    parts += (recent.packed, _LENGTH.pack(len(schema_id)), schema_id, _LENGTH.pack(len(key)), key, padding)
    return b"".join(parts)


def parse(data: bytes, *, header_only: bool = False) -> Parsed:
    """Take a sealed entity apart, accepting only what ``pack`` can have made.

    Args:
        data: the whole object.
        header_only: accept a body of any length, also none: what is left of a damaged entity.

    Raises:
        Corrupt: an unknown magic, format version, suite or flag, a length that does not fit,
            text that is not UTF-8, or a size whose parity contradicts the tombstone flag.
    """
    try:
        return _parse(data, header_only=header_only)
    except (struct.error, UnicodeDecodeError):
        raise corrupt() from None


def _parse(data: bytes, *, header_only: bool) -> Parsed:
    (
        magic,
        format_version,
        suite,
        flags,
        body_offset,
        key_id,
        salt,
        nonce,
        version,
        term,
        updated_ms,
        write_id,
        recent_count,
    ) = _FIXED.unpack_from(data)
    if magic != MAGIC or format_version != FORMAT_VERSION or suite != SUITE_AES_256_GCM:
        raise corrupt()
    if flags & ~_TOMBSTONE_FLAG:
        raise corrupt()
    offset = _FIXED.size
    end = offset + RECENT_WRITE_BYTES * recent_count
    recent = RecentWrites(bytes(data[offset:end]))
    offset = end
    schema_id, offset = _text(data, offset)
    key, offset = _text(data, offset)
    # The padding and the MAC fill the header exactly, and the tag at least follows it.
    padding = data[offset : body_offset - MAC_BYTES]
    if padding != b"\x00" and padding != b"\x01\x00":
        raise corrupt()
    mac_offset = offset + len(padding)
    body_bytes = len(data) - body_offset
    tombstone = flags == _TOMBSTONE_FLAG
    if mac_offset + MAC_BYTES != body_offset or body_bytes < 0:
        raise corrupt()
    if not header_only and (
        body_bytes < TAG_BYTES
        or (tombstone and body_bytes != TAG_BYTES)
        or is_tombstone_size(len(data)) is not tombstone
    ):
        raise corrupt()
    header = Header(
        schema_id=schema_id,
        key=key,
        version=version,
        term=term,
        updated_ms=updated_ms,
        write_id=write_id,
        recent=recent,
        tombstone=tombstone,
        key_id=key_id,
    )
    return Parsed(header, suite, salt, nonce, mac_offset, body_offset)


def _text(data: bytes, offset: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(data, offset)
    start = offset + 2
    end = start + length
    # Past the end of the data, whatever is read next fails.
    return data[start:end].decode(), end
