"""Entities by ``/entity``: the calls that the Go system's clients know."""

from __future__ import annotations

from typing import Final

import msgspec

from deltadatabase.gateway.openapi.operation import ANY_JSON, CHAT, DATA, KEY, OK, Operation
from deltadatabase.gateway.routes.access import Status


class Versions(msgspec.Struct, frozen=True):
    """Every document was stored: its new version by key."""

    status: str
    versions: dict[str, int]


ENTITIES: Final = (
    Operation(
        "PUT", "/entity/{schema_id}", "Entities", "Write one or more entities", "write", Versions,
        (400, 408, 409, 413, 422, *DATA, 507), headers=("Idempotency-Key",),
        body={"type": "object", "minProperties": 1, "additionalProperties": True},
        body_example={"session_001": CHAT},
        answer_example={"status": "ok", "versions": {"session_001": 1}},
        note=(
            "The body maps keys to documents. All are validated before any is stored. Documents whose "
            "key begins with '_' are metadata and are not validated unless the schema says "
            '"x-validate-metadata": true. Of a key that stands there twice, the last document counts.'
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
        (400, 409, 422, *DATA, 507), query=KEY, headers=("Idempotency-Key",), answer_example=OK,
        note="Succeeds for an absent key too.",
    ),
)  # fmt: skip
