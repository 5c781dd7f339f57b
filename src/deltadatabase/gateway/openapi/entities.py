"""Entities, by ``/entity``, which the Go system's clients know, and as lists."""

from __future__ import annotations

from typing import Final

import msgspec

from deltadatabase.gateway.listing import INCLUDES, LIMIT_DEFAULT, ItemPage, token_of
from deltadatabase.gateway.openapi.operation import ANY_JSON, CHAT, DATA, KEY, KEYED, OK, Operation, Query
from deltadatabase.gateway.routes.access import Status


class Versions(msgspec.Struct, frozen=True):
    """Every document was stored: its new version by key."""

    status: str
    versions: dict[str, int]


_LIST: Final = (
    Query("prefix", "Beginning of the keys wanted.", schema={"type": "string"}, example="session"),
    Query(
        "limit", "Entities on a page, at most.",
        schema={"type": "integer", "minimum": 1, "maximum": LIMIT_DEFAULT, "default": LIMIT_DEFAULT},
        example=100,
    ),
    Query(
        "after", "The 'next' of the page before, with the same prefix.", schema={"type": "string"},
        example=token_of("chat.v1", "session", "session_000"),
    ),
    Query(
        "include", "Look entities up: 'meta' adds version and etag, 'document' the document (8 MiB a page).",
        schema={"type": "string", "enum": list(INCLUDES)}, example="document",
    ),
)  # fmt: skip

ENTITIES: Final = (
    Operation(
        "PUT", "/entity/{schema_id}", "Entities", "Write one or more entities", "write", Versions,
        (400, 408, 409, 413, 422, 428, *DATA, 507), headers=KEYED,
        body={"type": "object", "minProperties": 1, "additionalProperties": True},
        body_example={"session_001": CHAT},
        answer_example={"status": "ok", "versions": {"session_001": 1}},
        note=(
            "The body maps keys to documents. All are validated before any is stored. Documents whose "
            "key begins with '_' are metadata and are not validated unless the schema says "
            '"x-validate-metadata": true. Of a key that stands there twice, the last document counts. '
            'Under a schema with "x-require-if-match": true this is 428: /entities takes conditions.'
        ),
    ),
    Operation(
        "GET", "/entity/{schema_id}", "Entities", "Read an entity", "read", ANY_JSON, (400, 404, *DATA),
        query=KEY, answer_example=CHAT,
        also=(304,), headers=("If-None-Match",), answer_headers=("ETag", "Last-Modified"),
        note=(
            "The document, byte for byte as it was sent, with ETag and Last-Modified. "
            "With If-None-Match naming the current ETag: 304."
        ),
    ),
    Operation(
        "DELETE", "/entity/{schema_id}", "Entities", "Delete an entity", "write", Status,
        (400, 409, 422, 428, *DATA, 507), query=KEY, headers=KEYED, answer_example=OK,
        note="Succeeds for an absent key too.",
    ),
    Operation(
        "GET", "/entities/{schema_id}", "Entities", "List entities", "read", ItemPage, (400, 503),
        query=_LIST, answer_example={
            "items": [{"key": "session_001", "size": 305, "updated_at": "2026-02-26T09:00:00.000Z"}],
            "next": None,
        },
        note=(
            "In the order of the stored names, page by page: 'next' is the next page's 'after', and a "
            "Link header leads there. A page may be short, even empty, before the end, which is where "
            "'next' is null. Whatever exists from the first page to the last is listed once. 'size' is "
            "that of the stored, sealed object. A schema id that nobody has used has an empty list."
        ),
    ),
)  # fmt: skip
