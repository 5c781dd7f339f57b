"""Object names: the one place that builds and parses them. Pure; no I/O.

Layout (``docs/architecture.md``): a sealed entity is ``files/<schema id>/<escaped key>.json.enc``,
its readable header ``….meta.json`` beside it, a schema ``templates/<schema id>.json``.

A key is escaped byte by byte: ASCII letters, digits, ``-``, ``_`` and every ``.`` but a first one
stand as they are, every other byte becomes ``=XX`` with upper-case hex digits. ``=`` itself is
escaped, so two keys never share a name; ``/`` is escaped and no name begins with a dot, so none
leaves its folder. Sealed entities and readable headers end differently, so no key can be chosen
to make one's name the other's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from deltadatabase import limits
from deltadatabase.errors import Invalid

FILES: Final = "files/"
"""Folder of the entities: one folder per schema id in it."""
TEMPLATES: Final = "templates/"
"""Folder of the schemas."""
CLUSTER: Final = "cluster/"
"""Folder of what the database knows of itself; entities and schemas never lie in it."""
DATABASE_PATH: Final = CLUSTER + "database.json"
"""The object that describes the database."""
PROBE: Final = CLUSTER + "probe/"
"""Folder of the start-up probe's own objects."""
PRESENCE: Final = CLUSTER + "presence/"
"""Folder of the workers' signs of life, one small object for each worker id."""
QUARANTINE: Final = "quarantine/"
"""Folder of damaged entities that were copied aside: a folder for each one's old name in it."""

_ENTITY_SUFFIX: Final = ".json.enc"
_META_SUFFIX: Final = ".meta.json"
_TEMPLATE_SUFFIX: Final = ".json"

_SCHEMA_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
_ESCAPED_BYTE = tuple(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in range(256))
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", re.ASCII)
_ESCAPE = re.compile(r"=([0-9A-F]{2})", re.ASCII)
# Unicode category Cc: C0, DEL and C1.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_LEAF_FOLDER = re.compile(rf"{TEMPLATES}|{PROBE}|{PRESENCE}|{FILES}[^/]+/|{QUARANTINE}[^/]+/[^/]+/")

assert max(len(_ENTITY_SUFFIX), len(_META_SUFFIX)) <= limits.OBJECT_SUFFIX_BYTES_MAX


@lru_cache(maxsize=1024)
def check_schema_id(text: str) -> str:
    """Return ``text`` if it is a schema id.

    Raises:
        Invalid: ``invalid_schema_id``.
    """
    if len(text) > limits.SCHEMA_ID_BYTES_MAX or not _SCHEMA_ID.fullmatch(text) or ".." in text:
        raise Invalid(
            "a schema id is 1 to 100 ASCII letters, digits, '_', '.' and '-', "
            "begins with a letter or digit and has no '..'",
            code="invalid_schema_id",
        )
    return text


def check_key(text: str) -> str:
    """Return ``text`` if it is an entity key.

    Raises:
        Invalid: ``invalid_key``.
    """
    if not text:
        raise Invalid("the key is empty", code="invalid_key")
    if _PLAIN_KEY.fullmatch(text):
        size = len(text)
    elif _CONTROL.search(text):
        raise Invalid("the key holds a control character", code="invalid_key")
    else:
        size = len(escape_key(text))
    if size > limits.KEY_ESCAPED_BYTES_MAX:
        raise Invalid(
            "the key is longer than 240 bytes as stored: letters, digits, '-', '_' and '.' take one, "
            "every other UTF-8 byte takes three",
            code="invalid_key",
        )
    return text


def escape_key(key: str) -> str:
    """Spell ``key`` (or the beginning of one) as it is stored.

    The escaped form of a key's beginning is the beginning of the escaped key.

    Raises:
        Invalid: ``invalid_key``: not encodable as UTF-8 (a lone surrogate).
    """
    if _PLAIN_KEY.fullmatch(key):
        return key
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raise Invalid("the key is not valid Unicode text", code="invalid_key") from None
    escaped = "".join(map(_ESCAPED_BYTE.__getitem__, raw))
    return "=2E" + escaped[1:] if escaped.startswith(".") else escaped


def unescape_key(escaped: str) -> str:
    """Undo ``escape_key``.

    Raises:
        Invalid: ``invalid_key``: not what ``escape_key`` would have written.
    """
    if _PLAIN_KEY.fullmatch(escaped):
        return escaped
    try:
        # Latin-1 maps each byte to the code point of the same number, so that escapes
        # and plain characters can be put side by side before the UTF-8 decoding.
        key = _ESCAPE.sub(_unescape_byte, escaped).encode("latin-1").decode()
    except UnicodeError:
        key = ""
    # Only one spelling counts: "=41" or "=c3" would be a second name of the same key.
    if not key or escape_key(key) != escaped:
        raise Invalid("not the stored form of a key", code="invalid_key")
    return key


def _unescape_byte(match: re.Match[str]) -> str:
    return chr(int(match[1], 16))


def schema_folder(schema_id: str) -> str:
    """Folder of a schema's entities, with its closing slash."""
    return f"{FILES}{schema_id}/"


def entity_path(schema_id: str, key: str) -> str:
    """Path of the sealed entity. Both names must have been checked."""
    return f"{FILES}{schema_id}/{escape_key(key)}{_ENTITY_SUFFIX}"


def listing_order(escaped: str) -> str:
    """What escaped keys are sorted by in listings: the names of their objects.

    That is not the order of the escaped keys themselves: ``a-b`` comes before ``a``.
    """
    return escaped + _ENTITY_SUFFIX


def stored_name(schema_id: str, path: str) -> str | None:
    """The escaped key of an entity's path in this schema's folder; None for anything else."""
    folder = schema_folder(schema_id)
    return stored_name_of(path[len(folder) :]) if path.startswith(folder) else None


def stored_name_of(file_name: str) -> str | None:
    """The escaped key of an entity's file in its folder; None for anything else."""
    escaped = file_name.removesuffix(_ENTITY_SUFFIX)
    return escaped if escaped != file_name and is_stored_name(escaped) else None


def is_stored_name(escaped: str) -> bool:
    """Whether this is how some key is spelled in its object's name."""
    if not _PLAIN_KEY.fullmatch(escaped):
        try:
            check_key(unescape_key(escaped))
        except Invalid:
            return False
    # As stored it is ASCII.
    return len(escaped) <= limits.KEY_ESCAPED_BYTES_MAX


def meta_path(schema_id: str, key: str) -> str:
    """Path of the entity's readable header. Both names must have been checked."""
    return f"{FILES}{schema_id}/{escape_key(key)}{_META_SUFFIX}"


def template_path(schema_id: str) -> str:
    """Path of a schema. The id must have been checked."""
    return f"{TEMPLATES}{schema_id}{_TEMPLATE_SUFFIX}"


def presence_path(worker_id: str) -> str:
    """Path of a worker's sign of life."""
    return f"{PRESENCE}{escape_key(worker_id)}"


def parse_presence_path(path: str) -> str | None:
    """Worker id of a sign of life; None for anything else."""
    if not path.startswith(PRESENCE):
        return None
    try:
        return unescape_key(path[len(PRESENCE) :])
    except Invalid:
        return None


def quarantine_path(schema_id: str, key: str, digest: str) -> str:
    """Path of a damaged entity's copy. Its old name becomes a folder: the file name has no room left."""
    return f"{QUARANTINE}{schema_id}/{escape_key(key)}{_ENTITY_SUFFIX}/{digest}"


def parse_quarantine_path(path: str) -> tuple[str, str] | None:
    """Schema id and key that a quarantined object had; None for anything else."""
    folder, slash, digest = path.removeprefix(QUARANTINE).rpartition("/")
    if not (path.startswith(QUARANTINE) and slash and digest):
        return None
    return parse_entity_path(FILES + folder)


def parse_entity_path(path: str) -> tuple[str, str] | None:
    """Schema id and key of a sealed entity's path; None for anything else."""
    return _parse_file(path, _ENTITY_SUFFIX)


def parse_meta_path(path: str) -> tuple[str, str] | None:
    """Schema id and key of a readable header's path; None for anything else."""
    return _parse_file(path, _META_SUFFIX)


def is_meta(path: str) -> bool:
    """True for what is named like a readable header. No entity's path is."""
    return path.startswith(FILES) and path.endswith(_META_SUFFIX)


def parse_template_path(path: str) -> str | None:
    """Schema id of a schema's path; None for anything else."""
    if not (path.startswith(TEMPLATES) and path.endswith(_TEMPLATE_SUFFIX)):
        return None
    try:
        return check_schema_id(path[len(TEMPLATES) : -len(_TEMPLATE_SUFFIX)])
    except Invalid:
        return None


def _parse_file(path: str, suffix: str) -> tuple[str, str] | None:
    if not (path.startswith(FILES) and path.endswith(suffix)):
        return None
    schema_id, slash, escaped = path[len(FILES) : -len(suffix)].partition("/")
    if not slash:
        return None
    try:
        return check_schema_id(schema_id), check_key(unescape_key(escaped))
    except Invalid:
        return None


def is_leaf_folder(prefix: str) -> bool:
    """True when the layout puts no folder into the folder ``prefix``."""
    return _LEAF_FOLDER.fullmatch(prefix) is not None
