"""Byte layout of a journal's segments. Pure.

A segment is frames, one behind the other. A frame is one batch of changes that was synced together:

    magic and version (8) · number of the batch (4) · bytes of the payload (4) · checksum (16) · payload

The checksum is BLAKE2b over number and payload, keyed with the segment's number, so that bytes of
another segment are never taken for this one's. The payload is records:

    flags (1) · path's bytes (2) · data's bytes (4) · ETag before (16) · ETag after (16) · path · data

Integers are big-endian. Flag 1: there was an object before; flag 2: there is one afterwards.
An absent object's ETag is zeros. The data is the object as it is stored: sealed, for an entity.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from deltadatabase.errors import Corrupt

MAGIC: Final = b"DeltaJ\x00\x01"
_FRAME: Final = struct.Struct(">8sII16s")
_RECORD: Final = struct.Struct(">BHI16s16s")
_HAD: Final = 1
_HAS: Final = 2
_NO_ETAG: Final = bytes(16)


class Change(NamedTuple):
    """One object was replaced, made or removed.

    Attributes:
        path: its path.
        before: its ETag before; None: it was not there.
        after: its ETag now; None: it is gone.
        data: its bytes now.
    """

    path: str
    before: str | None
    after: str | None
    data: bytes | None


def frame(changes: Sequence[Change], *, segment: int, batch: int) -> bytes:
    """The bytes of one batch."""
    parts: list[bytes] = []
    for path, before, after, data in changes:
        name = path.encode()
        flags = (_HAD if before is not None else 0) | (_HAS if after is not None else 0)
        body = data or b""
        parts += (_RECORD.pack(flags, len(name), len(body), _raw(before), _raw(after)), name, body)
    payload = b"".join(parts)
    return _FRAME.pack(MAGIC, batch, len(payload), _checksum(segment, batch, payload)) + payload


def parse(data: bytes, *, segment: int) -> Sequence[Change]:
    """All changes of a segment, up to where a crash may have torn it.

    Raises:
        Corrupt: what comes after the damage was synced later, so it is no torn end.
    """
    changes: list[Change] = []
    position, batch = 0, 1
    while (payload := _payload(data, position, segment, batch)) is not None:
        changes += records(payload)
        position += _FRAME.size + len(payload)
        batch += 1
    # The next batch is written when this one is durable, so of a torn one there is no next.
    found = data.find(MAGIC, position + 1)
    while found >= 0:
        if _later(data, found, segment, batch):
            raise Corrupt("the journal is damaged")
        found = data.find(MAGIC, found + 1)
    return changes


def _later(data: bytes, position: int, segment: int, batch: int) -> bool:
    if position + _FRAME.size > len(data):
        return False
    number = _FRAME.unpack_from(data, position)[1]
    return number > batch and _payload(data, position, segment, number) is not None


def _payload(data: bytes, position: int, segment: int, batch: int) -> bytes | None:
    """The payload of the frame at a position; None: there is no sound one."""
    if position + _FRAME.size > len(data):
        return None
    magic, number, size, checksum = _FRAME.unpack_from(data, position)
    payload = data[position + _FRAME.size : position + _FRAME.size + size]
    sound = magic == MAGIC and number == batch and len(payload) == size
    return payload if sound and checksum == _checksum(segment, batch, payload) else None


def records(payload: bytes) -> Iterator[Change]:
    """The changes in a frame's payload, whose checksum is right."""
    position = 0
    while position < len(payload):
        flags, name_bytes, data_bytes, before, after = _RECORD.unpack_from(payload, position)
        position += _RECORD.size
        name = payload[position : position + name_bytes].decode()
        position += name_bytes
        data = payload[position : position + data_bytes]
        position += data_bytes
        yield Change(
            name,
            before.hex() if flags & _HAD else None,
            after.hex() if flags & _HAS else None,
            data if flags & _HAS else None,
        )


def _checksum(segment: int, batch: int, payload: bytes) -> bytes:
    found = hashlib.blake2b(digest_size=16, key=segment.to_bytes(8, "big"))
    found.update(batch.to_bytes(4, "big"))
    found.update(payload)
    return found.digest()


def _raw(etag: str | None) -> bytes:
    return _NO_ETAG if etag is None else bytes.fromhex(etag)
