"""``deltadb get``, ``put``, ``patch``, ``delete`` and ``ls``."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import msgspec

from deltadatabase.cli.commanding import (
    EXIT_DONE,
    EXIT_REFUSED,
    compact,
    connected,
    moment,
    read_input,
    say,
    write,
    write_json,
)
from deltadatabase.client import Item, Written
from deltadatabase.client.paging import LIST_PAGE
from deltadatabase.errors import NotFound, StartupError
from deltadatabase.settings import (
    DeleteSettings,
    GetSettings,
    ListingSettings,
    PatchSettings,
    PutSettings,
)


def get(settings: GetSettings) -> int:
    """Print a document."""
    schema, key = settings.arguments
    with connected(settings) as client:
        entity = client.get(schema, key, as_=bytes)
    if settings.json:
        shown = {name: getattr(entity, name) for name in ("key", "version", "etag", "updated_at")}
        write_json({**shown, "document": compact(entity.value)})
        return EXIT_DONE
    write(entity.value)
    if sys.stdout.isatty():
        write(b"\n")
    return EXIT_DONE


def put(settings: PutSettings) -> int:
    """Store a document."""
    if settings.create and settings.if_match:
        raise StartupError("-create and -if-match contradict each other: choose one", code="bad_flag")
    schema, key, *file = settings.arguments
    document = read_input(settings.document, *file or [""])
    with connected(settings) as client:
        written = client.put(
            schema,
            key,
            document,
            if_match=settings.if_match or None,
            if_none_match="*" if settings.create else None,
            idempotency_key=settings.idempotency_key or None,
        )
    _show(written, created=written.created)
    return EXIT_DONE


def patch(settings: PatchSettings) -> int:
    """Change a part of a document."""
    schema, key, *file = settings.arguments
    change = read_input(settings.document, *file or [""])
    kind: Any = settings.kind or None
    with connected(settings) as client:
        written = client.patch(
            schema,
            key,
            change,
            kind=kind,
            if_match=settings.if_match or None,
            idempotency_key=settings.idempotency_key or None,
        )
    _show(written)
    return EXIT_DONE


def delete(settings: DeleteSettings) -> int:
    """Remove entities."""
    schema, *keys = settings.arguments
    if len(keys) > 1 and (settings.if_match or settings.idempotency_key):
        raise StartupError("-if-match and -idempotency-key are for one KEY", code="bad_flag")
    code = EXIT_DONE
    with connected(settings) as client:
        for key in keys:
            try:
                client.delete(
                    schema,
                    key,
                    if_match=settings.if_match or None,
                    idempotency_key=settings.idempotency_key or None,
                )
            except NotFound as exc:
                say(f"deltadb delete: {key}: {exc.detail} ({exc.code})")
                code = EXIT_REFUSED
    return code


def ls(settings: ListingSettings) -> int:
    """List schema ids, or keys."""
    include: Any = settings.include or None
    with connected(settings) as client:
        if not settings.arguments:
            if settings.prefix or include:
                raise StartupError("-prefix and -include need SCHEMA", code="bad_flag")
            if settings.counts:
                for count in client.schema_counts()[: settings.limit or None]:
                    write_json(count)
                return EXIT_DONE
            for name in client.schemas()[: settings.limit or None]:
                write_json(name) if settings.json else write(name.encode() + b"\n")
            return EXIT_DONE
        if settings.counts:
            raise StartupError("-counts takes no SCHEMA", code="bad_flag")
        items = client.iterate(
            settings.arguments[0],
            prefix=settings.prefix,
            include=include,
            page=min(settings.limit or LIST_PAGE, LIST_PAGE),
            as_=bytes,
        )
        for item in itertools.islice(items, settings.limit or None):
            if settings.json or include:
                write(msgspec.json.encode(_shown(item)) + b"\n")
            else:
                write(item.key.encode() + b"\n")
    return EXIT_DONE


def _show(written: Written, **more: object) -> None:
    write_json({"key": written.key, "version": written.version, "etag": written.etag, **more})


def _shown(item: Item[bytes]) -> dict[str, object]:
    shown: dict[str, object] = {"key": item.key, "size": item.size, "updated_at": moment(item.updated_at)}
    if item.version is not None:
        shown |= {"version": item.version, "etag": item.etag}
    if item.value is not None:
        shown["document"] = compact(item.value)
    return shown
