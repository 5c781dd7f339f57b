"""Parameters and headers, each described once."""

from __future__ import annotations

from typing import Any, Final

from deltadatabase.gateway.openapi.operation import CHAT_KEY, Operation, Query

PATH_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "schema_id": {
        "description": "Namespace of the entity, and the name of the JSON Schema that validates it.",
        "schema": {
            "type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        },
        "example": "chat.v1",
    },
    "key": {
        "description": "The entity's key, percent-encoded: any text of 1 to 240 bytes, with '/' as %2F.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 240},
        "example": CHAT_KEY,
    },
    "key_id": {"schema": {"type": "string", "minLength": 1}, "example": "a1b2c3d4e5f6a7b8"},
}  # fmt: skip

REQUEST_HEADERS: Final[dict[str, dict[str, Any]]] = {
    "If-Match": {
        "description": "ETags, one of which must be current, or * for any entity that exists; else 412.",
        "schema": {"type": "string"},
    },
    "If-None-Match": {
        "description": (
            "ETags, none of which may be current, or * for no entity at all; else 304 for a read, "
            "412 for a write."
        ),
        "schema": {"type": "string"},
    },
    "If-Modified-Since": {
        "description": "Without If-None-Match: 304 unless the entity was modified later.",
        "schema": {"type": "string"},
    },
    "Prefer": {
        "description": "`return=minimal` or `return=representation`.",
        "schema": {"type": "string"},
    },
    "Idempotency-Key": {
        "description": (
            "A name for this write, 1 to 255 visible characters, of the client's choice: a new random text "
            "for each. Repeated with the same request within 24 hours it changes nothing and gets the first "
            "outcome, with the header `Idempotent-Replayed: true`; with another request for the same "
            "entity: 422."
        ),
        "schema": {"type": "string"},
    },
    "Last-Event-ID": {
        "description": "Id of the last event that arrived; goes before `since`.",
        "schema": {"type": "string"},
    },
}

ANSWER_HEADERS: Final[dict[str, dict[str, Any]]] = {
    "ETag": {"description": "Strong; never repeats.", "schema": {"type": "string"}},
    "Last-Modified": {"description": "When it was written.", "schema": {"type": "string"}},
    "Location": {"description": "Path of what was made.", "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "`true`: the write had been applied before.",
        "schema": {"type": "string"},
    },
    "Link": {"description": 'The next page, as rel="next".', "schema": {"type": "string"}},
}


def parameters_of(operation: Operation) -> list[dict[str, Any]]:
    """The OpenAPI parameters of an operation: path, query, headers."""
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, **described}
        for name, described in PATH_PARAMETERS.items()
        if f"{{{name}}}" in operation.path
    ]
    for plain in operation.query:
        query = plain if isinstance(plain, Query) else Query(plain[0], plain[1], plain[2])
        parameter = {
            "name": query.name,
            "in": "query",
            "required": query.required,
            "description": query.description,
            "schema": query.schema or {"type": "string", "minLength": 1},
        }
        if query.example is not None:
            parameter["example"] = query.example
        found.append(parameter)
    found += [{"name": name, "in": "header", **REQUEST_HEADERS[name]} for name in operation.headers]
    return found
