"""``deltadb import``, ``export`` and ``watch``."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import Any, BinaryIO

from deltadatabase.cli.bars import counting
from deltadatabase.cli.commanding import (
    EXIT_DONE,
    EXIT_REFUSED,
    STDIN,
    compact,
    connected,
    moment,
    say,
    write,
    write_json,
)
from deltadatabase.client import LineError
from deltadatabase.errors import StartupError
from deltadatabase.settings import ExportSettings, ImportSettings, WatchSettings


def import_(settings: ImportSettings) -> int:
    """Store the documents of a file."""
    schema, *file = settings.arguments
    on_error: Any = settings.on_error
    with contextlib.ExitStack() as opened:
        source = _source(opened, *file or [STDIN])
        client = opened.enter_context(connected(settings))
        show = opened.enter_context(counting("bytes", _size(source), sizes=True))
        report = client.import_ndjson(
            schema,
            source,
            skip_existing=settings.skip_existing,
            skip_lines=settings.skip_lines,
            on_error=on_error,
            progress=lambda progress: show(progress.bytes),
        )
    for error in report.errors:
        say(_line(error))
    if report.failed > len(report.errors):
        say(f"deltadb import: {report.failed - len(report.errors)} more lines were refused")
    if report.stopped:
        say(f"deltadb import: stopped at line {report.lines}")
    counts = ("lines", "imported", "created", "skipped", "failed")
    write_json({name: getattr(report, name) for name in counts})
    return EXIT_REFUSED if report.failed else EXIT_DONE


def export(settings: ExportSettings) -> int:
    """Write all documents."""
    (schema,) = settings.arguments
    with connected(settings) as client:
        if settings.output is None:
            for line in client.export_lines(schema, prefix=settings.prefix, after=settings.after or None):
                write(line + b"\n")
            return EXIT_DONE
        if settings.after:
            raise StartupError("-o writes whole files: it takes no -after", code="bad_flag")
        try:
            with counting("documents", None) as show:
                done = client.export_ndjson(
                    schema,
                    settings.output,
                    prefix=settings.prefix,
                    progress=lambda progress: show(progress.lines),
                )
        except OSError as exc:
            raise StartupError(f"-o: the file cannot be written: {exc.strerror}", code="bad_flag") from None
    write_json(done)
    return EXIT_DONE


def watch(settings: WatchSettings) -> int:
    """Print changes until it is ended."""
    (schema,) = settings.arguments
    include: Any = settings.include or None
    with connected(settings) as client:
        for change in client.changes(schema, since=settings.since or None, include=include, as_=bytes):
            shown: dict[str, object] = {
                "key": change.key,
                "version": change.version,
                "etag": change.etag,
                "updated_at": moment(change.updated_at),
                "deleted": change.deleted,
            }
            if change.value is not None:
                shown["document"] = compact(change.value)
            if change.damaged:
                shown["error"] = "integrity"
            write_json({**shown, "token": change.token})
    return EXIT_DONE


def _source(opened: contextlib.ExitStack, file: str) -> BinaryIO:
    if file == STDIN:
        return sys.stdin.buffer
    try:
        return opened.enter_context(Path(file).open("rb"))
    except OSError as exc:
        raise StartupError(f"FILE cannot be read: {exc.strerror}", code="bad_flag") from None


def _size(file: BinaryIO) -> int | None:
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _line(error: LineError) -> str:
    named = f" {error.key}:" if error.key else ""
    return f"line {error.line}:{named} {error.detail} ({error.error})"
