"""NDJSON into the database, in requests of bounded size that each can be sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

import msgspec

from deltadatabase import limits
from deltadatabase.client import documents
from deltadatabase.client.answers import ImportReport, LineError, Progress
from deltadatabase.client.problems import not_ours
from deltadatabase.client.requests import Request, segment, with_query
from deltadatabase.client.steps import END, Means, Steps, Take, respond
from deltadatabase.errors import DeltaError, Invalid, TooLarge

REQUEST_LINES: Final = limits.CLIENT_IMPORT_REQUEST_LINES
LINE_BYTES_MAX: Final = limits.CLIENT_LINE_BYTES_MAX
ERRORS_MAX: Final = limits.CLIENT_IMPORT_ERRORS_MAX
_WHITE: Final = b" \t\r\n"
_BREAKS_AS_SPACES: Final = bytes.maketrans(b"\r\n", b"  ")

OnError = Literal["continue", "stop"]
OnProgress = Callable[[Progress], None]


class _Counts(msgspec.Struct, frozen=True):
    lines: int = 0
    imported: int = 0
    created: int = 0
    skipped: int = 0
    failed: int = 0
    errors: tuple[LineError, ...] = ()
    stopped_at: int = 0


@dataclass
class _Chunk:
    """Lines that are sent together."""

    first: int
    lines: list[bytes]
    size: int = 0

    def add(self, line: bytes) -> None:
        self.lines.append(line)
        self.size += len(line) + 1

    @property
    def full(self) -> bool:
        return self.size >= limits.CLIENT_IMPORT_REQUEST_BYTES or len(self.lines) >= REQUEST_LINES


def import_lines(
    schema: str,
    means: Means,
    *,
    skip_existing: bool,
    skip_lines: int,
    on_error: OnError,
    progress: OnProgress | None,
) -> Steps[ImportReport]:
    """Send the items of the caller's source, each ``as_line``; give the sum of all answers.

    Raises:
        DeltaError: a request failed for good. A note at it says how many lines are certainly done.
    """
    path = with_query(
        f"/import/{segment(schema, 'schema id')}",
        skip_existing="true" if skip_existing else None,
        on_error="stop" if on_error == "stop" else None,
    )
    report = ImportReport()
    sent_bytes = 0
    number = 0
    ended = False
    while not ended and not report.stopped:
        chunk = _Chunk(number + 1, [])
        while not chunk.full:
            item = yield Take()
            if item is END:
                ended = True
                break
            number += 1
            line = as_line(item)
            if number <= skip_lines:
                chunk.first = number + 1
                continue
            chunk.add(line)
        if chunk.lines:
            try:
                report = yield from _send(path, chunk, report, means, on_error)
            except DeltaError as exc:
                exc.add_note(
                    f"the first {chunk.first - 1} lines are done; go on with skip_lines={chunk.first - 1}"
                )
                raise
            sent_bytes += chunk.size
        elif number:
            report = msgspec.structs.replace(report, lines=max(report.lines, min(number, skip_lines)))
        if progress is not None:
            progress(Progress(report.lines, sent_bytes))
    return report


def as_line(item: Any) -> bytes:
    """One line of NDJSON, without its end, of an item: a line, or a pair of key and document.

    Raises:
        Invalid: ``bad_line``: it is neither; ``not_json``.
        TooLarge: ``line_too_large``.
    """
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
        line = _pair(*item)
    elif isinstance(item, str):
        line = item.encode("utf-8", "surrogatepass")
    elif isinstance(item, (bytes, bytearray, memoryview)):
        line = bytes(item)
    else:
        raise Invalid("an item is neither a line nor a pair of key and document", code="bad_line")
    line = line.rstrip(b"\r\n")
    if b"\n" in line:
        raise Invalid("an item holds several lines: hand them over one by one", code="bad_line")
    if len(line) > LINE_BYTES_MAX:
        raise TooLarge(f"a line is larger than {LINE_BYTES_MAX} bytes", code="line_too_large")
    return line


def _pair(key: str, value: object) -> bytes:
    """A line of a key and a document, whose exact text stands beside it where a line cannot hold it."""
    text = documents.encode(value)
    shown = text.strip(_WHITE).translate(_BREAKS_AS_SPACES)
    more = b"" if shown == text else b',"text":' + documents.encode(text.decode("utf-8", "replace"))
    return b'{"key":%b,"document":%b%b}' % (documents.encode(key), shown, more)


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, each held in memory only up to a bound."""
    while line := file.readline(LINE_BYTES_MAX + 3):
        yield line


def _send(
    path: str, chunk: _Chunk, report: ImportReport, means: Means, on_error: OnError
) -> Steps[ImportReport]:
    body = b"\n".join(chunk.lines) + b"\n"
    headers = {"content-type": "application/x-ndjson"}
    request = Request("POST", path, headers, body, repeatable=True, timeout_s=limits.CLIENT_IMPORT_TIMEOUT_S)
    response = yield from respond(request, means)
    try:
        counts = msgspec.json.decode(response.body, type=_Counts)
    except msgspec.MsgspecError:
        raise not_ours() from None
    room = ERRORS_MAX - len(report.errors)
    moved = [
        msgspec.structs.replace(error, line=error.line + chunk.first - 1) for error in counts.errors[:room]
    ]
    stopped = on_error == "stop" and counts.failed > 0
    read = counts.stopped_at or counts.lines if stopped else len(chunk.lines)
    return ImportReport(
        lines=chunk.first - 1 + read,
        imported=report.imported + counts.imported,
        created=report.created + counts.created,
        skipped=report.skipped + counts.skipped,
        failed=report.failed + counts.failed,
        errors=(*report.errors, *moved),
        stopped=stopped,
    )
