"""What a new schema would mean for the entities that are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from deltadatabase.client import documents
from deltadatabase.client.answers import Refused, ScanReport
from deltadatabase.client.lines import Lines
from deltadatabase.client.problems import error_of, not_ours, of_problem
from deltadatabase.client.requests import Failure, Request, Response, segment, with_query
from deltadatabase.client.steps import Means, Open, Read, Steps, Trying

T = TypeVar("T")
OnScan = Callable[[int, int], None]


class _Line(msgspec.Struct, frozen=True):
    checked: int = 0
    refused: int = 0
    done: bool = False
    key: str | None = None
    unreadable: int = 0
    status: int = 0


def scan(schema: str, value: object, means: Means, *, progress: OnScan | None) -> Steps[ScanReport]:
    """Check a schema, and every stored entity against it; nothing is changed. A broken scan begins anew.

    Raises:
        Invalid: it is no schema.
    """
    path = with_query(f"/schema/{segment(schema, 'schema id')}", dry_run="true", scan="true")
    headers = {"content-type": "application/json"}
    request = Request("PUT", path, headers, documents.encode(value), harmless=True)
    trying = Trying(request, means)
    while True:
        opened: Response | Failure = yield Open(request)
        error = error_of(request, opened)
        if error is None:
            reader = Lines()
            found: list[Refused] = []
            block: bytes | Failure | None = b""
            while isinstance(block, bytes):
                block = yield Read()
                if not isinstance(block, bytes):
                    break
                for text in reader.feed(block):
                    line = _decoded(text, _Line)
                    if line.done:
                        return ScanReport(
                            checked=line.checked,
                            refused=line.refused,
                            unreadable=line.unreadable,
                            entities=tuple(found),
                        )
                    if line.status:
                        raise of_problem(line.status, text)
                    if line.key is not None:
                        found.append(_decoded(text, Refused))
                    elif progress is not None:
                        progress(line.checked, line.refused)
            error = error_of(request, Failure(sent=True))
            assert error is not None
        yield trying.failed(error)


def _decoded(text: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.MsgspecError:
        raise not_ours() from None
