"""What the client gives back: frozen values with the names of the REST API."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from deltadatabase.errors import Issue

T = TypeVar("T")


class Entity(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A document as it was read.

    Attributes:
        key: the entity's name under its schema id.
        value: the document, as the type that was asked for.
        etag: names this state; for ``if_match`` and ``known``.
        version: count of the entity's successful writes.
        updated_at: when it was written, UTC; to the second.
    """

    key: str
    value: T
    etag: str
    version: int
    updated_at: datetime | None


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What a write left.

    Attributes:
        key: the entity's name under its schema id.
        etag, version, updated_at: of the new state; the etag is "" where the server tells none (a delete).
        created: there was no such entity before.
        repeated: the server had done this write already, for an earlier try of the same request.
    """

    key: str
    etag: str
    version: int
    updated_at: datetime | None
    created: bool = False
    repeated: bool = False


class Item(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """An entity in a list.

    Attributes:
        key: the entity's name.
        size: of the stored, sealed object, in bytes.
        updated_at: when it was written, UTC.
        version, etag: None unless ``include`` asks for them.
        value: the document; None unless ``include="document"``.
    """

    key: str
    size: int
    updated_at: datetime
    version: int | None = None
    etag: str | None = None
    value: T | None = None


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list; ``next`` is the token of the part behind it, None at the end."""

    items: tuple[Item[T], ...]
    next: str | None


class Change(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A state that an entity got.

    Attributes:
        key, version, etag, updated_at: of that state.
        deleted: the entity is gone.
        value: its document; None unless asked for, and when deleted or damaged.
        damaged: its document should be here, and fails its integrity check.
        token: go on behind this change with ``since=token``.
    """

    key: str
    version: int
    etag: str
    updated_at: datetime
    deleted: bool
    value: T | None
    token: str
    damaged: bool = False


class LineError(msgspec.Struct, frozen=True):
    """A line that an import refused. ``line`` counts from 1; ``key`` is "" where the line has none."""

    line: int
    error: str
    detail: str = ""
    key: str | None = ""


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """How an import ended.

    Attributes:
        lines: read from the source, refused and blank ones among them.
        imported: entities written; ``created`` of them are new.
        skipped: left alone because they exist, with ``skip_existing``.
        failed: lines that were refused.
        errors: the first thousand of them.
        stopped: ``on_error="stop"`` ended it before the source's end.
    """

    lines: int = 0
    imported: int = 0
    created: int = 0
    skipped: int = 0
    failed: int = 0
    errors: tuple[LineError, ...] = ()
    stopped: bool = False


class Progress(msgspec.Struct, frozen=True):
    """How far an import or export is: lines and bytes that are certainly done."""

    lines: int
    bytes: int


class SchemaStored(msgspec.Struct, frozen=True, kw_only=True):
    """A schema that is in force, or (``enforced`` is False) only checked.

    ``version`` is the SHA-256 of its exact bytes, in hex.
    """

    schema_id: str = ""
    version: str = ""
    enforced: bool = True


class SchemaCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many entities a schema id holds.

    ``complete`` is False where counting would have taken too long: then there are at least so many.
    ``schema`` says whether it has a schema.
    """

    schema_id: str
    entities: int
    complete: bool = True
    schema: bool = False


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stored entity that a new schema would refuse, with the reasons; or (``error``) a damaged one."""

    key: str
    version: int = 0
    errors: tuple[Issue, ...] = ()
    error: str = ""


class ScanReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a new schema would mean for the stored entities.

    Attributes:
        checked: entities that were held against it.
        refused: those of them that it refuses.
        unreadable: entities that are damaged.
        entities: the first thousand of the last two.
    """

    checked: int
    refused: int
    unreadable: int = 0
    entities: tuple[Refused, ...] = ()


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as an admin sees it. The secret is not among it."""

    id: str
    name: str
    permissions: tuple[str, ...]
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    enabled: bool = True
    schemas: tuple[str, ...] | None = None
    rate_per_s: int | None = None


class NewApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was just made. ``secret`` is told this once only, and is not in the ``repr``."""

    id: str
    name: str
    secret: str
    permissions: tuple[str, ...]
    created_at: datetime | None = None
    expires_at: datetime | None = None
    schemas: tuple[str, ...] | None = None
    rate_per_s: int | None = None

    def __repr__(self) -> str:
        return f"NewApiKey(id={self.id!r}, name={self.name!r}, permissions={self.permissions!r})"


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A proc worker as the main worker sees it."""

    worker_id: str
    status: str
    key_id: str = ""
    last_seen: datetime | None = None
    tags: dict[str, str] = {}
