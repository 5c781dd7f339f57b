"""Following the change feed: Server-Sent Events, and going on behind the last one after a break."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from deltadatabase import limits
from deltadatabase.client import calls, documents
from deltadatabase.client.answers import Change
from deltadatabase.client.lines import Lines
from deltadatabase.client.problems import error_of, not_ours, of_problem
from deltadatabase.client.requests import Failure, Request, Response, segment, with_query
from deltadatabase.client.steps import Emit, Means, Open, Read, Steps, Trying, single


@dataclass(frozen=True)
class Event:
    """One event of a stream; ``name`` is "" for one that only moves the id."""

    name: str
    data: str
    id: str


class EventReader:
    """Reads Server-Sent Events (WHATWG HTML, section 9.2) of a stream of bytes. Pure."""

    def __init__(self) -> None:
        self._lines = Lines()
        self._name = ""
        self._data: list[str] = []
        self._id = ""
        self._moved = False

    def feed(self, block: bytes) -> Iterator[Event]:
        """Take the next bytes; give the events that they complete."""
        for line in self._lines.feed(block):
            text = line.removesuffix(b"\r").decode("utf-8", "replace")
            if text:
                self._field(text)
                continue
            if self._data or self._moved:
                yield Event((self._name or "message") if self._data else "", "\n".join(self._data), self._id)
            self._name, self._data, self._moved = "", [], False

    def _field(self, text: str) -> None:
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id, self._moved = value, True


class _Change(msgspec.Struct, frozen=True):
    key: str
    version: int
    etag: str
    updated_at: datetime
    deleted: bool = False
    error: str = ""
    document: msgspec.Raw = msgspec.Raw()  # empty: there is none; a document may be null


class _Told(msgspec.Struct, frozen=True):
    status: int = 503


def follow(schema: str, means: Means, *, since: str | None, include: str | None, as_: Any) -> Steps[None]:
    """Emit changes for ever; broken connections and restarts of the server are waited for.

    Raises:
        Gone: ``since``, or the last change that came, is too old: list, and begin anew.
        DeltaError: the server refuses.
    """
    path = f"/changes/{segment(schema, 'schema id')}"
    if since is None:
        # Changes count from now on, also those before the first event.
        since = yield from single(calls.position(schema), means)
    last = since
    url = with_query(path, feed="eventsource", include=include, since=since)
    trying = Trying(Request("GET", url), means)
    followed = False
    while True:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if followed else {})
        request = Request("GET", url, headers, timeout_s=limits.CLIENT_FEED_SILENCE_S)
        opened: Response | Failure = yield Open(request)
        error = error_of(request, opened)
        if error is None:
            followed = True
            reader = EventReader()
            while error is None:
                block: bytes | Failure | None = yield Read()
                if not isinstance(block, bytes):
                    # Also a proper end: the server goes.
                    error = error_of(request, block if block is not None else Failure(sent=True))
                    break
                for event in reader.feed(block):
                    last = event.id or last
                    trying.restart()
                    if event.name == "change":
                        yield Emit(_change(event.data, last, as_))
                    elif event.name == "problem":
                        text = event.data.encode()
                        error = of_problem(_decoded(text, _Told).status, text)
        assert error is not None
        yield trying.failed(error, forever=followed)


def _change(data: str, token: str, as_: Any) -> Change[Any]:
    change = _decoded(data.encode(), _Change)
    return Change(
        key=change.key,
        version=change.version,
        etag=change.etag,
        updated_at=change.updated_at,
        deleted=change.deleted,
        damaged=bool(change.error),
        value=documents.decode(text, as_)
        if (text := bytes(change.document)) and not change.deleted
        else None,
        token=token,
    )


def _decoded(text: bytes, shape: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.MsgspecError:
        raise not_ours() from None
