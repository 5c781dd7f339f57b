"""Python values to JSON documents and back, without silent changes."""

from __future__ import annotations

import math
from typing import Any, Final, TypeVar, cast

import msgspec

from deltadatabase.errors import Invalid

T = TypeVar("T")

_BYTES: Final = (bytes, bytearray, memoryview, msgspec.Raw)


def encode(value: object) -> bytes:
    """Return the JSON text of a value. Bytes are JSON text already and stay as they are.

    Raises:
        Invalid: ``not_json``: JSON has no such value.
    """
    if isinstance(value, _BYTES):
        return bytes(value)
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        # The words of a UnicodeEncodeError would repeat what is in the document.
        reason = "text is not Unicode" if isinstance(exc, UnicodeError) else type(exc).__name__
        raise Invalid(f"the value cannot be written as JSON: {reason}", code="not_json") from None
    # The encoder writes null for what JSON has no number for.
    if b"null" in text and _has_no_number(msgspec.to_builtins(value)):
        raise Invalid("the value cannot be written as JSON: NaN or infinity", code="not_json")
    return text


def decode(text: bytes, as_: type[T]) -> T:
    """Read a document as a type; ``bytes`` gives its text as it is.

    Raises:
        Invalid: ``unreadable``: it does not fit the type.
    """
    if as_ is bytes:
        return cast(T, bytes(text))
    try:
        return msgspec.json.decode(text, type=as_)
    except msgspec.MsgspecError:
        raise Invalid(
            "the document does not fit the type that was asked for; as_=bytes gives its text",
            code="unreadable",
        ) from None


def _has_no_number(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_no_number, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_no_number, value))
