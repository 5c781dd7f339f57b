"""Positions in a change feed, and the tokens that clients keep of them. Pure.

A token is no secret and no proof: it says where to go on, and a forged one misleads its own client at
most. What it names is checked all the same, so that a mistake is an error and never a silent gap.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from typing import Final

import msgspec

from deltadatabase.errors import Gone, Invalid
from deltadatabase.gateway.changes import INCARNATION_BYTES
from deltadatabase.limits import FEED_TOKEN_BYTES_MAX, KEY_ESCAPED_BYTES_MAX

_VERSION: Final = 1
_LIVE: Final = 1
_CATCH_UP: Final = 2
# Version, kind, digests of database and schema, incarnation, sequence, time, time to look again from.
_FIXED: Final = struct.Struct(f">BB8s4s{INCARNATION_BYTES}sQQQ")
_SINCE: Final = struct.Struct(">Q")
_TIME_MS_MAX: Final = 1 << 53
_STORED_NAME: Final = re.compile(r"[A-Za-z0-9_.=-]*", re.ASCII)

assert (_FIXED.size + _SINCE.size + KEY_ESCAPED_BYTES_MAX) * 4 // 3 + 4 <= FEED_TOKEN_BYTES_MAX


class Live(msgspec.Struct, frozen=True, gc=False):
    """A place in the log of changes.

    Attributes:
        incarnation: of the log.
        sequence: everything up to here was delivered.
        at_ms: wall time of that place: whatever was stored well before it was delivered.
        again_ms: when puts of an earlier time have certainly landed, the store is to be looked through
            from this time on; 0: not needed.
    """

    incarnation: bytes
    sequence: int
    at_ms: int
    again_ms: int = 0


class CatchUp(msgspec.Struct, frozen=True, gc=False):
    """A place in a walk over the stored entities.

    Attributes:
        since_ms: what was stored since this wall time is delivered.
        after: stored name that the walk has come to; "" at its beginning.
        then: where to go on after the walk; taken before it began.
    """

    since_ms: int
    after: str
    then: Live


Position = Live | CatchUp


def encode(position: Position, database_id: str, schema_id: str) -> str:
    """Return the token of a position in the feed of one schema of one database."""
    live = position if isinstance(position, Live) else position.then
    data = _FIXED.pack(
        _VERSION,
        _LIVE if isinstance(position, Live) else _CATCH_UP,
        _digest(database_id, 8),
        _digest(schema_id, 4),
        live.incarnation,
        live.sequence,
        live.at_ms,
        live.again_ms,
    )
    if isinstance(position, CatchUp):
        data += _SINCE.pack(position.since_ms) + position.after.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(token: str, database_id: str, schema_id: str) -> Position:
    """Return the position that a token names.

    Raises:
        Invalid: ``bad_token``: no token, or one of another schema's feed.
        Gone: ``changes_gone``: a token of another database.
    """
    position, database, schema = _parse(token)
    if schema != _digest(schema_id, 4):
        raise bad_token("the token belongs to the feed of another schema")
    if database != _digest(database_id, 8):
        raise changes_gone("the token belongs to another database")
    return position


def bad_token(detail: str = "this is not a token of a change feed") -> Invalid:
    """What is wrong with a token."""
    return Invalid(detail, code="bad_token")


def changes_gone(reason: str) -> Gone:
    """Why a position is good no longer, and what to do."""
    return Gone(
        f"{reason}: take a new token without 'since', list the entities, then follow that token",
        code="changes_gone",
    )


def _parse(token: str) -> tuple[Position, bytes, bytes]:
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
        version, kind, database, schema, incarnation, *numbers = _FIXED.unpack_from(data)
        live = Live(incarnation, *numbers)
        rest = data[_FIXED.size :]
        if kind == _LIVE:
            position: Position = live
            usable = not rest
        else:
            (since_ms,) = _SINCE.unpack_from(rest)
            after = rest[_SINCE.size :].decode("ascii")
            position = CatchUp(since_ms, after, live)
            usable = kind == _CATCH_UP and len(after) <= KEY_ESCAPED_BYTES_MAX
            usable = usable and since_ms < _TIME_MS_MAX and _STORED_NAME.fullmatch(after) is not None
    except (struct.error, binascii.Error, ValueError):
        raise bad_token() from None
    if version != _VERSION or not usable or max(live.at_ms, live.again_ms) >= _TIME_MS_MAX:
        raise bad_token()
    return position, database, schema


def _digest(text: str, size: int) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:size]
