"""What the bytes under an entity's name are: sound, damaged and how, or sealed with another key. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.format import MAGIC, is_cut_short, is_tombstone_size
from deltadatabase.errors import Corrupt, Unavailable
from deltadatabase.maintenance.findings import Kind
from deltadatabase.model import Header

Name = tuple[str, str]
_VERSION_MAX: Final = 2**62


class Verdict(msgspec.Struct, frozen=True):
    """What an object is.

    Attributes:
        kind: what is wrong; None: a sound entity or tombstone.
        header: the authenticated header, if it names this entity; else None.
        detail: more in words.
    """

    kind: Kind | None
    header: Header | None = None
    detail: str = ""


def judge(sealer: Sealer, data: bytes, name: Name, known_keys: Collection[str]) -> Verdict:
    """Judge the bytes that lie under the name of the entity ``name``.

    Args:
        sealer: with all keys there are.
        data: the object.
        name: schema id and key that its name stands for.
        known_keys: ids of all keys that the database knows, in hex.
    """
    if not (data.startswith(MAGIC) or MAGIC.startswith(data)):
        return Verdict(Kind.FOREIGN, detail="it is no sealed entity")
    try:
        header = sealer.surviving_header(data)
    except Corrupt:
        return Verdict(Kind.TRUNCATED if is_cut_short(data) else Kind.INTEGRITY)
    except Unavailable:
        key_id = data[11:19].hex()
        known = "" if key_id in known_keys else "; the database does not know that key either"
        return Verdict(Kind.KEY_UNAVAILABLE, detail=f"key_id={key_id}{known}")
    if (header.schema_id, header.key) != name:
        return Verdict(Kind.MISPLACED, detail=f"it is the entity {header.key!r} of {header.schema_id!r}")
    if is_cut_short(data):
        return Verdict(Kind.TRUNCATED, header)
    try:
        sealer.open(data, *name)
    except Corrupt:
        return Verdict(Kind.INTEGRITY, header)
    # What a listing tells by the size alone must be what the header says.
    assert is_tombstone_size(len(data)) is header.tombstone
    return Verdict(None, header)


def next_version(header: Header | None, meta: bytes | None, name: Name) -> int:
    """The version of the tombstone that replaces a damaged entity.

    One above the header's; where that cannot be believed, one above what a meta file of this
    entity says; else 1. The meta file is not authenticated, so it decides nothing but this number.
    """
    if header is not None:
        return header.version + 1
    return _version_in(meta, name) + 1


class _Meta(msgspec.Struct):
    schema_id: str
    key: str
    version: int


def _version_in(meta: bytes | None, name: Name) -> int:
    if meta is None:
        return 0
    try:
        read = msgspec.json.decode(meta, type=_Meta)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return 0
    return read.version if (read.schema_id, read.key) == name and 0 < read.version < _VERSION_MAX else 0
