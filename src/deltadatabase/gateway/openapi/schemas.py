"""JSON Schemas."""

from __future__ import annotations

from typing import Final

from deltadatabase.gateway.counting import SchemaCount
from deltadatabase.gateway.openapi.operation import ANY_JSON, CHAT_SCHEMA, DATA, OK, Operation, Query
from deltadatabase.gateway.routes.access import Status

SCHEMAS: Final = (
    Operation(
        "PUT", "/schema/{schema_id}", "Schemas", "Store a JSON Schema", "write", Status,
        (400, 408, 413, *DATA, 507),
        body={"type": ["object", "boolean"]}, body_example=CHAT_SCHEMA, answer_example=OK,
        note="Draft 4 to 2020-12. In force, on every worker, for any write that starts after the answer.",
    ),
    Operation(
        "GET", "/schema/{schema_id}", "Schemas", "Read a JSON Schema", "read", ANY_JSON, (400, 404, *DATA),
        answer_example=CHAT_SCHEMA,
    ),
    Operation(
        "DELETE", "/schema/{schema_id}", "Schemas", "Delete a JSON Schema", "write", Status,
        (400, 404, *DATA, 507), answer_example=OK, note="Its entities stay, and are no longer validated.",
    ),
    Operation(
        "POST", "/schemas/{schema_id}", "Schemas", "Store a JSON Schema (same as PUT /schema)", "write",
        Status, (400, 408, 413, *DATA, 507),
        body={"type": ["object", "boolean"]}, body_example=CHAT_SCHEMA, answer_example=OK,
    ),
    Operation(
        "GET", "/admin/schemas", "Schemas", "List schemas", "read", list[str], DATA,
        answer_example=["chat.v1"],
    ),
    Operation(
        "GET", "/api/schemas", "Schemas", "List every schema id that holds an entity or a schema", "read",
        list[str | SchemaCount], (400, *DATA), answer_example=["chat.v1"],
        query=(Query(
            "counts", "Tell how many entities each holds.",
            schema={"type": "boolean", "default": False}, example="false",
        ),),
        note=(
            "With counts=true each entry is an object. Counting walks every list, a list request for each "
            "page, for 8 seconds at the most: 'complete' is false where it did not come to the end."
        ),
    ),
)  # fmt: skip
