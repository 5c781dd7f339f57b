"""Following what is written."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from deltadatabase.gateway.openapi.operation import DATA, Operation, Query
from deltadatabase.limits import (
    FEED_PAGE_DEFAULT,
    FEED_PAGE_MAX,
    FEED_WAIT_DEFAULT_S,
    FEED_WAIT_MAX_S,
)


class ChangeShown(msgspec.Struct, frozen=True, kw_only=True):
    """A state that an entity got. ``etag`` is empty when it is deleted."""

    key: str
    version: int
    etag: str
    updated_at: str
    deleted: bool
    document: Any = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class Changes(msgspec.Struct, frozen=True):
    """Changes, the token to go on with, and whether it is worth while to ask again at once."""

    changes: list[ChangeShown]
    next: str
    more: bool


CHANGES: Final = (
    Operation(
        "GET", "/changes/{schema_id}", "Changes", "Follow the changes of entities", "read", Changes,
        (400, 410, *DATA), headers=("Last-Event-ID",),
        query=(
            Query("since", "Token to go on after: 'next', or the id of an event. Without it: from now."),
            # Without the values in the schema: generated requests would wait for changes that never come.
            Query("feed", "normal (the default), longpoll, or eventsource, a stream.", example="normal"),
            Query("include", "With the present documents.", schema={"type": "string", "enum": ["document"]}),
            Query(
                "limit", "Changes in one answer, at most.", example=10,
                schema={
                    "type": "integer", "minimum": 1, "maximum": FEED_PAGE_MAX, "default": FEED_PAGE_DEFAULT,
                },
            ),
            Query(
                "timeout", "For how many seconds a longpoll waits.", example=0,
                schema={
                    "type": "integer", "minimum": 0, "maximum": FEED_WAIT_MAX_S,
                    "default": FEED_WAIT_DEFAULT_S,
                },
            ),
        ),
        answer_example={
            "changes": [{
                "key": "session_001", "version": 3, "etag": '"3-0a1b2c3d"',
                "updated_at": "2026-02-26T09:00:00.000Z", "deleted": False,
            }],
            "next": "AQF…", "more": False,
        },
        note=(
            "At least once, the last state of each entity, in order of its versions; tokens are good for an "
            "hour, also over restarts. An eventsource answers with text/event-stream: events 'change', whose "
            "id is the token and whose data is one change; a last event 'problem' when coming back is of no "
            "use; and a sign of life every 15 seconds."
        ),
    ),
)  # fmt: skip
