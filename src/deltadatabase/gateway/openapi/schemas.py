"""JSON Schemas."""

from __future__ import annotations

from typing import Final

from deltadatabase.gateway.counting import SchemaCount
from deltadatabase.gateway.openapi.operation import (
    ANY_JSON,
    CHAT_SCHEMA,
    DATA,
    NDJSON,
    OK,
    Body,
    Operation,
    Query,
)
from deltadatabase.gateway.routes.access import Status
from deltadatabase.gateway.routes.schemas import SchemaStatus
from deltadatabase.gateway.scan import ScanDone, ScanProgress, ScanRefused, ScanUnreadable

_VERSION: Final = "9fb1f5ad0a0bb9b8bb2b1f1a2d2d1f3c57e2f40c2c04e7a40e9b9e1d3a3b7c1e"
_STORED: Final = {"status": "ok", "schema_id": "chat.v1", "version": _VERSION, "enforced": True}
_FLAG: Final = {"enum": ["true", "false"]}
_WISHES: Final = (
    Query("dry_run", "Check the schema only, and store nothing.", schema=_FLAG),
    Query("scan", "With dry_run=true: say also which stored entities the schema would refuse.", schema=_FLAG),
)
_SCANNED: Final = Body(
    (ScanRefused, ScanUnreadable, ScanProgress, ScanDone),
    '{"key":"session_007","version":3,"errors":[{"pointer":"","keyword":"required",'
    '"detail":"a required member is missing name=messages"}]}\n'
    '{"checked":1000,"refused":1,"unreadable":0}\n'
    '{"done":true,"checked":1024,"refused":1,"unreadable":0}\n',
    NDJSON,
)
_NOTE: Final = (
    "Draft 4 to 2020-12. In force, on every worker, for any write that starts after the answer; 'version' "
    "is the hex SHA-256 of the schema's bytes. With dry_run=true nothing is stored, and what would be "
    "refused is refused. With scan=true, too (which needs the permission read as well), the answer is a "
    "stream of lines: at least every second how far it is, each entity that would be refused (the first "
    "1000 are listed, all are counted) and at last a line with 'done'. A stream without that line was "
    'broken off. A schema may say "x-require-if-match": true (every write must name the version that it '
    'replaces) and "x-validate-metadata": true.'
)

SCHEMAS: Final = (
    Operation(
        "PUT", "/schema/{schema_id}", "Schemas", "Store a JSON Schema", "write", SchemaStatus,
        (400, 408, 409, 413, *DATA, 507),
        body={"type": ["object", "boolean"]}, body_example=CHAT_SCHEMA, answer_example=_STORED,
        answers=(_SCANNED,), query=_WISHES, note=_NOTE,
    ),
    Operation(
        "GET", "/schema/{schema_id}", "Schemas", "Read a JSON Schema", "read", ANY_JSON,
        (400, 404, 409, *DATA),
        answer_example=CHAT_SCHEMA, also=(304,), headers=("If-None-Match",), answer_headers=("ETag",),
        note="Byte for byte as it was sent. The ETag is its version.",
    ),
    Operation(
        "DELETE", "/schema/{schema_id}", "Schemas", "Delete a JSON Schema", "write", Status,
        (400, 404, *DATA, 507), answer_example=OK, note="Its entities stay, and are no longer validated.",
    ),
    Operation(
        "POST", "/schemas/{schema_id}", "Schemas", "Store a JSON Schema (same as PUT /schema)", "write",
        SchemaStatus, (400, 408, 409, 413, *DATA, 507),
        body={"type": ["object", "boolean"]}, body_example=CHAT_SCHEMA, answer_example=_STORED,
        answers=(_SCANNED,), query=_WISHES, note="See there.",
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
