"""The OpenAPI 3.1 description of the REST API: every route, body and error, with examples that work.

Handlers take raw bytes, so nothing could be derived from their signatures; a test holds this
table and the routes of the application against each other.
"""

from __future__ import annotations

from deltadatabase.gateway.openapi.document import OPERATIONS, document
from deltadatabase.gateway.openapi.operation import (
    ANY_JSON,
    EVENT_STREAM,
    JSON,
    NDJSON,
    Body,
    Operation,
    Query,
)

__all__ = [
    "ANY_JSON",
    "EVENT_STREAM",
    "JSON",
    "NDJSON",
    "OPERATIONS",
    "Body",
    "Operation",
    "Query",
    "document",
]
