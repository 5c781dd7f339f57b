"""One row of the API's description, and what several rows share."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from deltadatabase.gateway.problem import CONTENT_TYPE

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
EVENT_STREAM: Final = "text/event-stream"
PROBLEM: Final = CONTENT_TYPE

OK: Final = {"status": "ok"}
DATA: Final = (503, 504)
"""Statuses that every call may have which needs a worker."""
ANY_JSON: Final[dict[str, Any]] = {"description": "Any JSON value."}
CHAT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"messages": {"type": "array"}},
    "required": ["messages"],
}
CHAT: Final[dict[str, Any]] = {"messages": [{"role": "user", "content": "Hello!"}]}
CHAT_KEY: Final = "session_001"


class Query(NamedTuple):
    """A query parameter.

    Attributes:
        name: of the parameter.
        description: for readers.
        required: whether a request without it is malformed.
        schema: JSON Schema of its value.
        example: a value that works; None: it is left out of examples.
    """

    name: str
    description: str
    required: bool = False
    schema: dict[str, Any] | None = None
    example: Any = None


class Body(NamedTuple):
    """One form that a request or an answer may have.

    Attributes:
        shape: type, JSON Schema, or several types of which it is one; of a stream: of a line or event.
        example: a value that works; a text for what is no JSON.
        media_type: its content type.
    """

    shape: Any
    example: Any = None
    media_type: str = JSON


class Operation(NamedTuple):
    """One method of one path.

    Attributes:
        method, path: as routed, ``{name}`` for parameters.
        tag: group in the documentation.
        summary: one line.
        permission: right needed; ``any`` for any valid key, None for none.
        answer: shape of the success body, as of ``Body``; None: there is no body.
        errors: statuses of failures beyond 500, the request's own form and its credentials.
        status: of success.
        body: shape of the request body, as of ``Body``.
        body_required: whether a request without one is malformed.
        body_example, answer_example: values that work; a text for what is no JSON.
        query: the query parameters; a plain tuple gives name, description and whether it is required.
        note: more than the summary says.
        body_type, answer_type: content types, where they are not JSON.
        bodies, answers: further forms of the request's and of the answer's body.
        also: further statuses of success, such as 201 or 304.
        headers: request headers, of those in ``parameters.REQUEST_HEADERS``.
        answer_headers: headers of the success, of those in ``parameters.ANSWER_HEADERS``.
    """

    method: str
    path: str
    tag: str
    summary: str
    permission: str | None
    answer: Any
    errors: tuple[int, ...] = ()
    status: int = 200
    body: Any = None
    body_required: bool = True
    body_example: Any = None
    answer_example: Any = None
    query: tuple[tuple[str, str, bool] | Query, ...] = ()
    note: str = ""
    body_type: str = JSON
    answer_type: str = JSON
    bodies: tuple[Body, ...] = ()
    answers: tuple[Body, ...] = ()
    also: tuple[int, ...] = ()
    headers: tuple[str, ...] = ()
    answer_headers: tuple[str, ...] = ()


KEYED: Final = ("Idempotency-Key",)
CONDITIONS: Final = ("If-Match", "If-None-Match")
KEY: Final = (
    Query("key", "The entity's key; '/', '\\' and '..' are not served here.", True, example=CHAT_KEY),
)
