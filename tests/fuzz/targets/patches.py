"""Patches: what clients send to change documents with."""

from __future__ import annotations

from pathlib import Path

from deltadatabase.errors import Conflict, Invalid
from deltadatabase.model import PatchKind
from deltadatabase.schema.document import check_document
from deltadatabase.schema.patch import parse_patch
from fuzz.engine import Target, Wrong
from fuzz.mutate import framed, json_change, sequence_change, unframed

BYTES_MAX = 4096
WORDS = (
    "add", "remove", "replace", "move", "copy", "test", "op", "path", "from", "value", "", "/", "/a", "/a/b",
    "/a/b/c", "/a/0", "/a/1", "/a/-", "/a/01", "/-", "/0", "/0/0", "/~0", "/~1", "/~2", "a/b", "//", "a", "b",
    "/a/99999999999999999999", "/\u0661", "/a/b/c/d/e/f/g",
)  # fmt: skip
SEEDS = (
    (b'{"title":"a","author":{"x":1,"y":2},"tags":["a"]}', b'{"title":"b","author":{"y":null},"tags":["c"]}'),
    (b"{}", b'{"a":{"bb":{"ccc":null}}}'),
    (b"[1,2]", b'{"a":"b","c":null}'),
    (
        b'{"a":{"b":1},"l":[1,2,3]}',
        b'[{"op":"add","path":"/l/1","value":{"x":0.10}},{"op":"test","path":"/a/b","value":1.0}]',
    ),
    (
        b'{"a":{"b":[true,1e5]}}',
        b'[{"op":"move","from":"/a/b/0","path":"/c"},{"op":"copy","from":"/a","path":"/a/b/-"}]',
    ),
    (b'{"a":[0]}', b'[{"op":"copy","from":"/a","path":"/a/-"},{"op":"copy","from":"/a","path":"/a/-"}]'),
    (
        b'{"a":1}',
        b'[{"op":"replace","path":"","value":[{"/":9,"~1":10}]},{"op":"remove","path":"/0/~01"}]',
    ),
)


def check_patch(data: bytes) -> None:
    """Apply a patch of either kind; what it makes is a document, within its bounds."""
    document, patch, *_ = [*unframed(data), b"", b""]
    try:
        check_document(document)
    except Invalid:
        return
    for kind in PatchKind:
        try:
            patched = parse_patch(patch, kind).apply(document, BYTES_MAX)
        except (Invalid, Conflict):
            continue
        try:
            check_document(patched)
        except Invalid as exc:
            raise Wrong("a patched document is none") from exc
        if len(patched) > max(BYTES_MAX, len(document)):
            raise Wrong("a patched document is larger than it may be")


def patches(_folder: Path) -> Target:
    return Target("patch", check_patch, [framed(seed) for seed in SEEDS], sequence_change(json_change(WORDS)))
