"""Entities as HTTP resources: conditions, patches, idempotency keys."""

from __future__ import annotations

from typing import Final

from deltadatabase.gateway.openapi.operation import (
    ANY_JSON,
    CHAT,
    CONDITIONS,
    DATA,
    KEYED,
    Body,
    Operation,
)
from deltadatabase.gateway.resources import Stored

_PATH: Final = "/entities/{schema_id}/{key}"
_VALIDATORS: Final = ("ETag", "Last-Modified")
_WRITE_HEADERS: Final = (*CONDITIONS, *KEYED, "Prefer")

RESOURCES: Final = (
    Operation(
        "GET", _PATH, "Entities", "Read an entity as a resource", "read", ANY_JSON,
        (400, 404, 412, *DATA), also=(304,), headers=(*CONDITIONS, "If-Modified-Since"),
        answer_headers=_VALIDATORS, answer_example=CHAT,
        note=(
            "The document, byte for byte. Anything but control characters may stand in "
            "the key, a '/' escaped as %2F or not."
        ),
    ),
    Operation(
        "HEAD", _PATH, "Entities", "Look whether an entity is there, and in which version", "read", None,
        (400, 404, 412, *DATA), also=(304,), headers=(*CONDITIONS, "If-Modified-Since"),
        answer_headers=_VALIDATORS, note="As GET, without the document. A failure has its status alone.",
    ),
    Operation(
        "PUT", _PATH, "Entities", "Write an entity as a resource", "write", Stored,
        (400, 408, 409, 412, 413, 415, 422, 428, *DATA, 507),
        also=(201, 204), headers=_WRITE_HEADERS,
        answer_headers=(*_VALIDATORS, "Location", "Idempotent-Replayed"),
        body=ANY_JSON, body_example=CHAT,
        answer_example={"status": "ok", "version": 2, "etag": '"2-5f0c2a9b"'},
        note=(
            "The body is the document; its content type is application/json, application/*+json or none. "
            "201 with Location when there was none before. With `Prefer: return=minimal` there is no body "
            "(204, or 201), with `return=representation` the document. 428: the schema says "
            "x-require-if-match."
        ),
    ),
    Operation(
        "PATCH", _PATH, "Entities", "Change an entity", "write", ANY_JSON,
        (400, 404, 408, 409, 412, 413, 415, 422, 428, *DATA, 507),
        also=(204,), headers=_WRITE_HEADERS, answer_headers=(*_VALIDATORS, "Idempotent-Replayed"),
        body={"type": "object"}, body_type="application/merge-patch+json", body_example={"archived": True},
        bodies=(
            Body(
                {"type": "array", "items": {"type": "object"}},
                [{"op": "add", "path": "/archived", "value": True}],
                "application/json-patch+json",
            ),
        ),
        answer_example={**CHAT, "archived": True},
        note=(
            "By a JSON Merge Patch (RFC 7396, application/merge-patch+json) or a JSON Patch (RFC 6902, "
            "application/json-patch+json). It needs the permission read as well, since what comes of a "
            "patch tells of the document. The answer is the patched document; 204 without it with "
            "`Prefer: return=minimal`, and for a repeat after which the entity has changed. 409: a JSON "
            "Patch that does not fit the document."
        ),
    ),
    Operation(
        "DELETE", _PATH, "Entities", "Delete an entity as a resource", "write", None,
        (400, 404, 409, 412, 422, 428, *DATA, 507), status=204, headers=(*CONDITIONS, *KEYED),
        answer_headers=("Idempotent-Replayed",),
        note="404 for an absent one, unlike DELETE /entity.",
    ),
)  # fmt: skip
