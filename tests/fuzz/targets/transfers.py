"""Bodies of imports and batches."""

from __future__ import annotations

from pathlib import Path
from random import Random

from deltadatabase.errors import Invalid
from deltadatabase.gateway.batch import METHODS, NOT_BATCHED, lane_of, parse_batch, rounds
from deltadatabase.gateway.ndjson import LineSplitter, parse_line, render_line
from deltadatabase.gateway.request import decode_path
from deltadatabase.schema.document import check_document
from deltadatabase.storage.paths import check_key
from fuzz.engine import Target, Wrong
from fuzz.mutate import bytes_changed, json_change

LINE_BYTES_MAX = 2000
DOCUMENT_BYTES_MAX = 500
LINES = (
    b'{"key":"a","document":{"x":1.0}}\n', b'\xef\xbb\xbf{"document":[1,2],"key":"a/b"}\r\n\r\n\n',
    b'{"key":"k","document":{ "a":1},"text":"{\\n\\"a\\":1}"}\n{"key":"\\u00e9","document":null}',
    b'{"key":"k","document":"' + b"x" * 600 + b'"}\n' + b"y" * 2100 + b'\n{"key":"","document":1}\n',
    b'{"key":"k","document":1e999}\n{"key":"k"}\nnot json\n{"key":"k","document":1,"more":2}\n',
)  # fmt: skip


def check_lines(data: bytes) -> None:
    """The splitter, whole and in pieces, and what each line is read as."""
    whole = LineSplitter(LINE_BYTES_MAX)
    lines = [*whole.feed(data), *whole.end()]
    pieces = LineSplitter(LINE_BYTES_MAX)
    random = Random(len(data))
    again, at = [], 0
    while at < len(data):
        size = random.randrange(1, 700)
        again += pieces.feed(data[at : at + size])
        at += size
    if [*again, *pieces.end()] != lines:
        raise Wrong("pieces make a difference")
    for number, text in lines:
        if not 0 < number <= data.count(b"\n") + 1:
            raise Wrong("a line that is not there")
        if text is None:
            continue
        if len(text) > LINE_BYTES_MAX or b"\n" in text:
            raise Wrong("more than a line")
        try:
            key, document = parse_line(text, DOCUMENT_BYTES_MAX)
            check_document(document)
        except Invalid as exc:
            if "\n" in exc.detail or len(exc.detail) > 300:
                raise Wrong("an error that may hold more than its own words") from None
            continue
        check_key(key)
        line = render_line(key, document)
        if line.count(b"\n") != 1 or parse_line(line[:-1], DOCUMENT_BYTES_MAX) != (key, document):
            raise Wrong("a document does not survive its own line")


def lines(_folder: Path) -> Target:
    return Target("import-lines", check_lines, LINES, bytes_changed)


WORDS = (
    "defaults", "requests", "method", "path", "headers", "body", "GET", "PUT", "POST", "/batch",
    "/entity/a?key=b", "/entities/a/b", "/%62atch", "//batch", "http://a/", "if-match", "If-Match", "host",
    "content-length", "*",
)  # fmt: skip
BATCHES = (
    b'{"requests":[{"path":"/entity/a?key=b"}]}',
    b'{"defaults":{"method":"PUT","path":"/entities/a/b","headers":{"If-Match":"*"},"body":1},"requests":[{}]}',
    b'{"requests":[{"path":"/entities/a/c%2F"},{"path":"/api/me"},{"path":"/entities/a/b","body":null}]}',
    b'{"requests":[{"path":"/batch"}]}', b'{"requests":[{"path":"/a","headers":{"host":"a"}}]}',
)  # fmt: skip


def check_batch(data: bytes) -> None:
    """What gets through must be what a server below would have let through, and nothing nested."""
    try:
        requests = parse_batch(data)
    except Invalid as exc:
        if "\n" in exc.detail or len(exc.detail) > 300:
            raise Wrong("an error that may hold more than its own words") from None
        return
    for request in requests:
        if request.method not in METHODS or not request.target.startswith("/"):
            raise Wrong("a request line that no server lets through")
        if not (request.target.isascii() and request.target.isprintable()) or " " in request.target:
            raise Wrong("a target that breaks its line")
        for name, value in request.headers:
            if not name.islower() or b"\r" in value or b"\n" in value or b"\0" in value:
                raise Wrong("a header that breaks its line")
        try:
            path = decode_path(request.target.partition("?")[0].encode())
        except Invalid:
            continue
        if path.split("/")[1] in NOT_BATCHED:
            raise Wrong("a batch or a stream in a batch")
    order = [
        number
        for beside in rounds([lane_of(r.method, r.target) for r in requests])
        for lane in beside
        for number in lane
    ]
    if sorted(order) != list(range(len(requests))):
        raise Wrong("not each request is served once")


def batches(_folder: Path) -> Target:
    return Target("batch", check_batch, BATCHES, json_change(WORDS))
