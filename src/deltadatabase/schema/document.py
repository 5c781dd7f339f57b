"""Strict JSON: the check that every document passes, and the split of a body of several documents.

The grammar is RFC 8259 without its leniencies: UTF-8 alone, no byte order mark, no NaN or
Infinity, no lone surrogate, no number beyond a double's range, nothing behind the value, and at
most ``limits.JSON_DEPTH_MAX`` levels of arrays and objects. Of a name that occurs twice in one
object the last value counts. No I/O.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final

import msgspec

from deltadatabase import limits
from deltadatabase.errors import Invalid, TooLarge

_decode_value: Final = msgspec.json.Decoder().decode
_decode_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_DEPTH_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_REASON: Final = re.compile(r"JSON is malformed: ([a-z0-9 -]+) \(byte (\d+)\)")


def check_document(text: bytes) -> object:
    """Check that ``text`` is one strict JSON value, and decode it.

    Raises:
        Invalid: ``malformed_json``, with the place in bytes where it is known.
    """
    _check_depth(text, limits.JSON_DEPTH_MAX)
    try:
        return _decode_value(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _malformed(text, exc) from None


def split_documents(body: bytes) -> dict[str, bytes]:
    """Split a JSON object into its members: each name with the exact bytes of its value.

    The bytes are copies without surrounding whitespace. Of a name that occurs twice the last
    value counts. The members' own UTF-8 and numbers are left to ``check_document``; their
    nesting is checked here.

    Raises:
        Invalid: ``malformed_json``, ``not_an_object`` or ``no_documents``.
        TooLarge: more than ``limits.BATCH_DOCUMENTS_MAX`` members.
    """
    _check_depth(body, limits.JSON_DEPTH_MAX + 1)
    try:
        members = _decode_members(body)
    except msgspec.ValidationError:
        raise Invalid("the body must be a json object of documents by key", code="not_an_object") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _malformed(body, exc) from None
    if not members:
        raise Invalid("the body holds no documents", code="no_documents")
    if len(members) > limits.BATCH_DOCUMENTS_MAX:
        raise TooLarge(f"too many documents in one body max={limits.BATCH_DOCUMENTS_MAX}")
    # A Raw is a view that would keep the whole body alive.
    return {key: bytes(document) for key, document in members.items()}


def _check_depth(text: bytes, depth_max: int) -> None:
    """Refuse deep nesting before the parser, which recurses, meets it."""
    if not depth_within(text, depth_max):
        raise Invalid(f"the json is nested too deeply levels_max={depth_max}", code="malformed_json")


def depth_within(text: bytes, depth_max: int) -> bool:
    """Tell whether at most so many levels of arrays and objects nest in ``text``.

    Strings are cut out first, since brackets in them do not nest. Text that is not JSON may be
    cut wrongly, but only behind the place where the parser gives up anyway.
    """
    if text.count(b"[") + text.count(b"{") <= depth_max:
        return True
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(text.split(b'"')[::2]).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_DEPTH_STEP.__getitem__, brackets)), default=0) <= depth_max


def _malformed(text: bytes, exc: msgspec.DecodeError | UnicodeDecodeError) -> Invalid:
    """Say what is wrong and where, in words of ours: the parser's may quote the text."""
    if not text.strip(b" \t\r\n"):
        reason = "it is empty"
    elif text.startswith(b"\xef\xbb\xbf"):
        reason = "it begins with a byte order mark byte=0"
    elif isinstance(exc, UnicodeDecodeError):
        reason = f"invalid utf-8 byte={_invalid_utf8_index(text)}"
    elif isinstance(exc, msgspec.ValidationError):
        reason = "a number is out of range"
    elif match := _REASON.match(str(exc)):
        # Of trailing characters the parser names the second one.
        reason = f"{match[1]} byte={int(match[2]) - match[1].startswith('trailing char')}"
    else:
        reason = f"it ends too early or with half a surrogate pair byte={len(text)}"
    return Invalid(f"the text is not valid json: {reason}", code="malformed_json")


def _invalid_utf8_index(text: bytes) -> int:
    try:
        text.decode()
    except UnicodeDecodeError as exc:
        return exc.start
    return len(text)
