"""``deltadb schema``, ``keys`` and ``workers``."""

from __future__ import annotations

from deltadatabase.cli.bars import counting
from deltadatabase.cli.commanding import (
    EXIT_DONE,
    EXIT_REFUSED,
    connected,
    read_input,
    write,
    write_fields,
    write_json,
)
from deltadatabase.settings import (
    CheckSettings,
    KeyCreateSettings,
    NamedSettings,
    PlainSettings,
    SchemaPutSettings,
)


def schema_ls(settings: PlainSettings) -> int:
    """List schemas."""
    with connected(settings) as client:
        for name in client.schemas(templates=True):
            write_json(name) if settings.json else write(name.encode() + b"\n")
    return EXIT_DONE


def schema_get(settings: NamedSettings) -> int:
    """Print a schema."""
    with connected(settings) as client:
        write(client.schema_get(settings.arguments[0]))
    return EXIT_DONE


def schema_put(settings: SchemaPutSettings) -> int:
    """Put a schema in force."""
    name, *file = settings.arguments
    document = read_input(settings.document, *file or [""])
    with connected(settings) as client:
        write_json(client.schema_put(name, document))
    return EXIT_DONE


def schema_check(settings: CheckSettings) -> int:
    """Check a schema, and perhaps what is stored."""
    name, *file = settings.arguments
    document = read_input(settings.document, *file or [""])
    with connected(settings) as client:
        if not settings.scan:
            write_json(client.schema_check(name, document))
            return EXIT_DONE
        with counting("entities", None) as show:
            report = client.schema_scan(name, document, progress=lambda checked, refused: show(checked))
    for entity in report.entities:
        write_json(entity)
    write_json({name: getattr(report, name) for name in ("checked", "refused", "unreadable")})
    return EXIT_REFUSED if report.refused or report.unreadable else EXIT_DONE


def schema_delete(settings: NamedSettings) -> int:
    """Remove a schema."""
    with connected(settings) as client:
        client.schema_delete(settings.arguments[0])
    return EXIT_DONE


def keys_ls(settings: PlainSettings) -> int:
    """List API keys."""
    with connected(settings) as client:
        keys = client.keys()
    for key in keys:
        write_fields(key)
    return EXIT_DONE


def keys_create(settings: KeyCreateSettings) -> int:
    """Make an API key."""
    with connected(settings) as client:
        created = client.key_create(
            settings.arguments[0],
            _words(settings.permissions),
            expires_in=settings.expires_in or None,
            schemas=_words(settings.schemas) or None,
            rate_per_s=settings.rate or None,
        )
    write_fields(created)
    return EXIT_DONE


def keys_delete(settings: NamedSettings) -> int:
    """End an API key."""
    with connected(settings) as client:
        client.key_delete(settings.arguments[0])
    return EXIT_DONE


def workers(settings: PlainSettings) -> int:
    """List proc workers."""
    with connected(settings) as client:
        for worker in client.workers():
            write_fields(worker)
    return EXIT_DONE


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
