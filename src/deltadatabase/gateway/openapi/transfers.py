"""Many documents in one request: batches, import, export."""

from __future__ import annotations

from typing import Any, Final

from deltadatabase.gateway.batch import BatchAnswer
from deltadatabase.gateway.importing import Imported
from deltadatabase.gateway.openapi.operation import CHAT, CHAT_KEY, DATA, NDJSON, Operation, Query

_REQUEST: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "method": {"enum": ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]},
        "path": {"type": "string", "pattern": "^/"},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "body": {"description": "Any JSON value."},
    },
    "additionalProperties": False,
}
_LINE: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "key": {"type": "string", "minLength": 1},
        "document": {"description": "Any JSON value."},
        "text": {
            "type": "string",
            "description": "Exact text of a document with line breaks in it or white space around it.",
        },
    },
    "required": ["key", "document"],
    "additionalProperties": False,
}
_LINES_EXAMPLE: Final = '{"key":"session_001","document":{"messages":[]}}\n'

TRANSFERS: Final = (
    Operation(
        "POST", "/batch", "Entities", "Send several requests at once", "any", BatchAnswer,
        (400, 408, 413),
        body={
            "type": "object",
            "properties": {
                "defaults": _REQUEST,
                "requests": {"type": "array", "items": _REQUEST, "minItems": 1, "maxItems": 100},
            },
            "required": ["requests"],
            "additionalProperties": False,
        },
        body_example={
            "defaults": {"method": "PUT", "path": "/entity/chat.v1"},
            "requests": [
                {"body": {CHAT_KEY: CHAT}},
                {"method": "GET", "path": f"/entity/chat.v1?key={CHAT_KEY}"},
            ],
        },
        note=(
            "Kinto's form: up to 100 requests, answered in order, each with its own rights and status. "
            "Requests that each concern one entity run beside each other, those of the same entity in order; "
            "any other request waits for all before it, and all behind it wait for it. Nothing is executed "
            "of a malformed batch. No streams and no batches in it."
        ),
    ),
    Operation(
        "POST", "/import/{schema_id}", "Entities", "Import entities, one a line", "write", Imported,
        (400, 408, *DATA),
        body=_LINE, body_type=NDJSON, body_required=False, body_example=_LINES_EXAMPLE,
        query=(
            Query(
                "skip_existing", "`true`: leave entities alone that exist, so that an import can go on.",
                schema={"enum": ["false", "true"]},
            ),
            Query(
                "on_error", "`stop`: end at the first line that fails.",
                schema={"enum": ["continue", "stop"]},
            ),
        ),
        note=(
            "A stream without a limit of its length. Each line is written on its own; of two lines with one "
            "key the later one stays. Lines that fail are listed, and the rest is imported."
        ),
    ),
    Operation(
        "GET", "/export/{schema_id}", "Entities", "Export entities, one a line", "read", _LINE,
        (400, *DATA),
        answer_type=NDJSON, answer_example=_LINES_EXAMPLE,
        query=(
            Query("prefix", "Only keys that begin so.", schema={"type": "string"}),
            Query("after", "Go on after this key.", schema={"type": "string"}),
        ),
        note=(
            "In the order of the stored names. An answer that breaks off is not whole: go on after its last "
            "key. Entities that are written meanwhile are there as they were before or after."
        ),
    ),
)  # fmt: skip
