"""Changed and made-up inputs: bytes, JSON, protobuf messages, HTTP requests. All from one seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

Change = Callable[[Random, bytes, bytes], bytes]

INTERESTING: Final = (
    b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff\xff", b"\x00" * 4, b"\xff" * 4, b"\xff" * 8,
    b"\x80" + b"\x00" * 7, b"\x7f" + b"\xff" * 7, b"DDBe", b"%", b"%00", b"%2f", b"%C3%28", b"=2F",
    b"=00", b"..", b"../", b"/", b"\\", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\u0000", b"\\ud800",
    b"\xed\xa0\x80", b"\xc3\x28", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"1e999", b"-0",
    b"18446744073709551616", b"9223372036854775808", b"-1", b"0", b"NaN", b"null", b"true", b"\r\n",
    b"\n", b"\t", b" ", b"*", b"W/", b".json", b".json.enc", b".meta.json", b"=", b"&", b"?", b"+", b"#",
)  # fmt: skip
NUMBERS: Final = (
    0, 1, -1, 2, 7, 127, 128, 255, 256, 65_535, 65_536, 1024, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53,
    2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**31), -(2**63), -(2**63) - 1, 10**30, 253_402_300_800_000,
)  # fmt: skip
TEXTS: Final = (
    "", "a", "notes", "chat.v1", "key", "..", "../x", "a/b", "a\\b", ".hidden", "_meta", "%2e", "=41", "=",
    "\0", "\x7f", "\u0085", "\u2028", "\ufeff", "\ufffe", "ü", "日本", "😀", "\U0010ffff", "e\u0301",
    "x" * 241, "x" * 100, "é" * 80, "é" * 81, "*", '"1-aa"', "127.0.0.1:1", "[::1]:1", "[", ":", "proc-1",
    "directory", "s3", "Infinity", "https://json-schema.org/draft/2020-12/schema", "#", "#/$defs/a", "٣", "²",
)  # fmt: skip


def bytes_changed(random: Random, data: bytes, other: bytes) -> bytes:
    """Change a few places of an input without knowing what it is."""
    changed = bytearray(data)
    for _ in range(1 << random.randrange(4)):
        at = random.randrange(len(changed) + 1)
        size = min(random.choice((1, 1, 2, 4, 8, 16, 64)), len(changed) - at)
        match random.randrange(10):
            case 0 if size:
                changed[at] ^= 1 << random.randrange(8)
            case 1 if size:
                changed[at] = random.randrange(256)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[at : at + size] * random.choice((1, 2, 16))
            case 4:
                changed[at:at] = random.choice(INTERESTING)
            case 5:
                token = random.choice(INTERESTING)
                changed[at : at + len(token)] = token
            case 6 if other:
                start = random.randrange(len(other))
                changed[at : at + size] = other[start : start + random.randrange(1, 65)]
            case 7 if other:
                changed[at:] = other[min(at, len(other)) :]
            case 8:
                changed[at:at] = random.randbytes(size)
            case _ if size:
                changed[at] = (changed[at] + random.choice((-1, 1))) % 256
    if random.random() < 0.02:
        del changed[random.randrange(len(changed) + 1) :]
    return bytes(changed)


# JSON


def json_value(random: Random, words: Sequence[str] = TEXTS, depth: int = 4) -> Any:
    """Make a value; member names and many of the strings are ``words``."""
    kind = random.randrange(9 if depth else 5)
    match kind:
        case 0:
            return random.choice((None, True, False))
        case 1:
            return random.choice(NUMBERS)
        case 2:
            return random.choice((0.5, -1.5e300, 5e-324, 1e22, 0.1))
        case 3:
            return random.choice(TEXTS)
        case 4:
            return random.choice(words)
        case 5 | 6:
            return [json_value(random, words, depth - 1) for _ in range(random.randrange(4))]
        case _:
            return {
                random.choice(words): json_value(random, words, depth - 1) for _ in range(random.randrange(5))
            }


def json_text(random: Random, value: Any) -> bytes:
    """Write a value in one of the ways in which it may be written, now and then in none of them."""
    text = json.dumps(
        value,
        ensure_ascii=random.random() < 0.3,
        indent=random.choice((None, None, 1)),
        separators=random.choice(((",", ":"), (" , ", " : "))),
    )
    data = text.encode("utf-8", "surrogatepass")
    if random.random() < 0.1:
        levels = random.choice((1, 2, 126, 127, 128, 129, 2000))
        opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
        data = opening * levels + data + closing * random.choice((levels, levels, levels - 1))
    return data


def json_changed(random: Random, data: bytes, other: bytes, *, words: Sequence[str] = TEXTS) -> bytes:
    """Change one value of a JSON text, or its bytes."""
    if random.random() < 0.4:
        return bytes_changed(random, data, other)
    try:
        value = json.loads(data)
        donor = json.loads(other)
    except (ValueError, RecursionError):
        return json_text(random, json_value(random, words))
    return json_text(random, _replaced(random, value, donor, words))


def _replaced(random: Random, value: Any, donor: Any, words: Sequence[str]) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.85:
        name = random.choice([*value])
        copy = dict(value)
        match random.randrange(6):
            case 0:
                copy.pop(name)
            case 1:
                copy[random.choice(words)] = copy[name]
            case 2:
                copy[random.choice(words)] = json_value(random, words, 2)
            case _:
                copy[name] = _replaced(random, copy[name], donor, words)
        return copy
    if isinstance(value, list) and value and random.random() < 0.85:
        copy = list(value)
        at = random.randrange(len(copy))
        match random.randrange(4):
            case 0:
                del copy[at]
            case 1:
                copy[at:at] = copy[at : at + 1] * random.choice((1, 2, 30))
            case _:
                copy[at] = _replaced(random, copy[at], donor, words)
        return copy
    return donor if random.random() < 0.2 else json_value(random, words, 2)


def json_change(words: Sequence[str]) -> Change:
    """A change for JSON texts whose members have such names."""
    return partial(json_changed, words=(*words, *words, *TEXTS))


# protobuf


def message_filled(random: Random, message: Message, share: float = 0.5, depth: int = 4) -> Message:
    """Set some of the fields to whatever their types allow."""
    for field in message.DESCRIPTOR.fields:
        if random.random() < share:
            _set(random, message, field, depth)
    return message


def _set(random: Random, message: Message, field: FieldDescriptor, depth: int) -> None:
    name = field.name
    if _is_map(field):
        entries = getattr(message, name)
        for _ in range(random.randrange(4)):
            with_value = field.message_type.fields_by_name["value"]
            if with_value.message_type is None:
                entries[random.choice(TEXTS)] = _scalar(random, with_value)
    elif field.message_type is not None:
        if depth == 0:
            return
        if field.is_repeated:
            for _ in range(random.randrange(4)):
                message_filled(random, getattr(message, name).add(), 0.6, depth - 1)
        else:
            getattr(message, name).SetInParent()
            message_filled(random, getattr(message, name), 0.6, depth - 1)
    elif field.is_repeated:
        getattr(message, name).extend(_scalar(random, field) for _ in range(random.randrange(4)))
    else:
        setattr(message, name, _scalar(random, field))


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


_RANGES: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def _scalar(random: Random, field: FieldDescriptor) -> Any:
    kind = field.cpp_type
    if kind in _RANGES:
        low, high = _RANGES[kind]
        return random.choice([number for number in NUMBERS if low <= number <= high])
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return random.randrange(-1, 25)
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return random.choice((0.0, 1.5, float("nan"), float("inf")))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random.choice(
            (
                b"",
                random.randbytes(16),
                random.randbytes(32),
                random.randbytes(random.randrange(80)),
                b'{"a":1}',
            )
        )
    return random.choice(TEXTS)


def message_changed(random: Random, message: Message) -> Message:
    """Set or clear a field, perhaps one of a message within."""
    fields = message.DESCRIPTOR.fields
    field = random.choice(fields)
    if random.random() < 0.15:
        message.ClearField(field.name)
    elif field.message_type is not None and not field.is_repeated and random.random() < 0.7:
        getattr(message, field.name).SetInParent()
        if field.message_type.fields:
            message_changed(random, getattr(message, field.name))
    elif (
        field.message_type is not None
        and field.is_repeated
        and not _is_map(field)
        and len(getattr(message, field.name))
    ):
        message_changed(random, random.choice(getattr(message, field.name)))
    else:
        _set(random, message, field, 3)
    return message


def unknown_field(random: Random) -> bytes:
    """A field of a number that no message has, in each of the wire types, some of them no more in use."""
    tag = (random.choice((17, 99, 1000, 2**29 - 1)) << 3) | random.choice((0, 1, 2, 5, 3, 4, 6, 7))
    return _varint(tag) + random.choice((b"\x01", b"\x08" * 8, b"\x03abc", b"\xff" * 10, b""))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes((*encoded, number))


def message_change(cls: type[Message]) -> Change:
    """A change for encoded messages of one type."""

    def change(random: Random, data: bytes, other: bytes) -> bytes:
        draw = random.random()
        if draw < 0.3:
            return bytes_changed(random, data, other)
        if draw < 0.45:
            return message_filled(random, cls(), random.choice((0.2, 0.5, 0.9))).SerializeToString()
        try:
            message = cls.FromString(data)
        except DecodeError:
            message = cls()
        for _ in range(random.randrange(1, 4)):
            message_changed(random, message)
        encoded = message.SerializeToString()
        if random.random() < 0.1:
            encoded += unknown_field(random)
        return encoded

    return change


# Several messages after each other, and HTTP

FRAME_BYTES: Final = 4


def framed(parts: Sequence[bytes]) -> bytes:
    """Several inputs as one: each after its length."""
    return b"".join(len(part).to_bytes(FRAME_BYTES, "big") + part for part in parts)


def unframed(data: bytes) -> list[bytes]:
    """Undo ``framed``; a length past the end takes what is there."""
    parts = []
    while data:
        size = int.from_bytes(data[:FRAME_BYTES], "big")
        parts.append(data[FRAME_BYTES : FRAME_BYTES + size])
        data = data[FRAME_BYTES + size :]
    return parts


def sequence_change(each: Change) -> Change:
    """A change for several inputs after each other: one of them, their order, their number."""

    def change(random: Random, data: bytes, other: bytes) -> bytes:
        parts, others = unframed(data), unframed(other) or [b""]
        for _ in range(random.randrange(1, 3)):
            at = random.randrange(len(parts)) if parts else 0
            match random.randrange(7) if parts else 6:
                case 0:
                    del parts[at]
                case 1:
                    parts.insert(at, random.choice(parts))
                case 2:
                    end = random.randrange(len(parts))
                    parts[at], parts[end] = parts[end], parts[at]
                case 6:
                    parts.insert(at, random.choice(others))
                case _:
                    parts[at] = each(random, parts[at], random.choice(others))
        return framed(parts[:64])

    return change
