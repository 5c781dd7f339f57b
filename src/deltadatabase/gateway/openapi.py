"""The OpenAPI 3.1 description of the REST API: every route, body and error, with examples that work.

Handlers take raw bytes, so nothing could be derived from their signatures; a test holds this
table and the routes of the application against each other.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec

from deltadatabase.auth.contract import CreatedKey, KeyInfo, Session
from deltadatabase.errors import Issue
from deltadatabase.gateway.counting import SchemaCount
from deltadatabase.gateway.listing import INCLUDES, LIMIT_DEFAULT, Item, ItemPage, token_of
from deltadatabase.gateway.problem import CONTENT_TYPE, TYPE_PREFIX
from deltadatabase.gateway.rotation import RotationStatus
from deltadatabase.gateway.routes.access import Status
from deltadatabase.gateway.routes.admin import Store, Worker
from deltadatabase.gateway.routes.health import Health, Ready
from deltadatabase.gateway.routes.keys import NewKey
from deltadatabase.gateway.routes.logs import LogLevel
from deltadatabase.gateway.routes.rotation import Order
from deltadatabase.gateway.routes.session import Login, Me

_Json = dict[str, Any]
_REF: Final = "#/components/schemas/{name}"
_ANY_JSON: Final[_Json] = {"description": "Any JSON value."}

_CHAT_SCHEMA: Final[_Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"messages": {"type": "array"}},
    "required": ["messages"],
}
_CHAT: Final[_Json] = {"messages": [{"role": "user", "content": "Hello!"}]}


class Versions(msgspec.Struct, frozen=True):
    """Every document was stored: its new version by key."""

    status: str
    versions: dict[str, int]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request failed (RFC 9457). ``error`` is a short stable code.

    ``errors`` lists what a schema refuses, ``outcomes`` what became of each key of a write
    stored only in part (new version, or error code), ``checks`` what ``/readyz`` looked at.
    """

    type: str
    title: str
    status: int
    detail: str
    error: str
    request_id: str
    errors: list[Issue] | msgspec.UnsetType = msgspec.UNSET
    outcomes: dict[str, int | str] | msgspec.UnsetType = msgspec.UNSET
    checks: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


class Operation(NamedTuple):
    """One method of one path.

    Attributes:
        method, path: as routed, ``{name}`` for parameters.
        tag: group in the documentation.
        summary: one line.
        permission: right needed; ``any`` for any valid key, None for none.
        answer: type or JSON Schema of the success body.
        errors: statuses of failures beyond 500, the request's own form and its credentials.
        status: of success.
        body: type or JSON Schema of the request body.
        body_required: whether a request without one is malformed.
        body_example, answer_example: values that work.
        query: name, description and whether it is required, of each query parameter, and its JSON
            Schema with an example if it is no entity's key.
        note: more than the summary says.
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
    query: tuple[tuple[str, str, bool] | tuple[str, str, bool, _Json], ...] = ()
    note: str = ""


_OK: Final = {"status": "ok"}
_KEY_SCHEMA: Final[_Json] = {"type": "string", "minLength": 1, "example": "session_001"}
_KEY: Final = (("key", "The entity's key; '/', '\\' and '..' are not served here.", True),)
_LIST: Final[tuple[tuple[str, str, bool, _Json], ...]] = (
    ("prefix", "Beginning of the keys wanted.", False, {"type": "string", "example": "session"}),
    (
        "limit", "Entities on a page, at most.", False,
        {"type": "integer", "minimum": 1, "maximum": LIMIT_DEFAULT, "default": LIMIT_DEFAULT, "example": 100},
    ),
    (
        "after", "The 'next' of the page before, with the same prefix.", False,
        {"type": "string", "example": token_of("chat.v1", "session", "session_000")},
    ),
    (
        "include", "Look entities up: 'meta' adds version and etag, 'document' the document (8 MiB a page).",
        False,
        {"type": "string", "enum": list(INCLUDES), "example": "document"},
    ),
)  # fmt: skip
_DATA: Final = (503, 504)

OPERATIONS: Final = (
    Operation(
        "PUT", "/entity/{schema_id}", "Entities", "Write one or more entities", "write", Versions,
        (400, 408, 409, 413, *_DATA, 507),
        body={"type": "object", "minProperties": 1, "additionalProperties": True},
        body_example={"session_001": _CHAT},
        answer_example={"status": "ok", "versions": {"session_001": 1}},
        note=(
            "The body maps keys to documents. All are validated before any is stored. Documents whose "
            "key begins with '_' are metadata and are not validated unless the schema says "
            '"x-validate-metadata": true. Of a key that stands there twice, the last document counts.'
        ),
    ),
    Operation(
        "GET", "/entity/{schema_id}", "Entities", "Read an entity", "read", _ANY_JSON, (400, 404, *_DATA),
        query=_KEY, answer_example=_CHAT,
        note=(
            "The document, byte for byte as it was sent, with ETag and Last-Modified. "
            "With If-None-Match naming the current ETag: 304."
        ),
    ),
    Operation(
        "DELETE", "/entity/{schema_id}", "Entities", "Delete an entity", "write", Status, (400, *_DATA, 507),
        query=_KEY, answer_example=_OK, note="Succeeds for an absent key too.",
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
    Operation(
        "PUT", "/schema/{schema_id}", "Schemas", "Store a JSON Schema", "write", Status,
        (400, 408, 413, *_DATA, 507),
        body={"type": ["object", "boolean"]}, body_example=_CHAT_SCHEMA, answer_example=_OK,
        note="Draft 4 to 2020-12. In force, on every worker, for any write that starts after the answer.",
    ),
    Operation(
        "GET", "/schema/{schema_id}", "Schemas", "Read a JSON Schema", "read", _ANY_JSON, (400, 404, *_DATA),
        answer_example=_CHAT_SCHEMA,
    ),
    Operation(
        "DELETE", "/schema/{schema_id}", "Schemas", "Delete a JSON Schema", "write", Status,
        (400, 404, *_DATA, 507), answer_example=_OK, note="Its entities stay, and are no longer validated.",
    ),
    Operation(
        "POST", "/schemas/{schema_id}", "Schemas", "Store a JSON Schema (same as PUT /schema)", "write",
        Status, (400, 408, 413, *_DATA, 507),
        body={"type": ["object", "boolean"]}, body_example=_CHAT_SCHEMA, answer_example=_OK,
    ),
    Operation(
        "GET", "/admin/schemas", "Schemas", "List schemas", "read", list[str], _DATA,
        answer_example=["chat.v1"],
    ),
    Operation(
        "GET", "/api/schemas", "Schemas", "List every schema id that holds an entity or a schema", "read",
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "array", "items": {"$ref": _REF.format(name="SchemaCount")}},
            ]
        },
        (400, *_DATA), answer_example=["chat.v1"],
        query=((
            "counts", "Tell how many entities each holds.", False,
            {"type": "boolean", "default": False, "example": "false"},
        ),),
        note=(
            "With counts=true each entry is an object. Counting walks every list, a list request for each "
            "page, for 8 seconds at the most: 'complete' is false where it did not come to the end."
        ),
    ),
    Operation(
        "POST", "/api/login", "Access", "Open a session", None, Session, (400, 401, 408, 413, 429),
        body=Login, body_example={"key": "dk_your_key"},
        answer_example={
            "token": "ds_…", "client_id": "admin", "expires_at": "2026-02-26T09:00:00.000Z",
            "permissions": ["read", "write", "admin"],
        },
        note="The token is used like a key, and expires. In dev mode a client_id alone is enough.",
    ),
    Operation(
        "GET", "/api/me", "Access", "Who am I?", "any", Me,
        answer_example={"client_id": "admin", "permissions": ["read", "write", "admin"], "is_admin": True},
    ),
    Operation(
        "GET", "/api/keys", "Access", "List API keys", "admin", list[KeyInfo],
        answer_example=[{
            "id": "a1b2c3d4e5f6a7b8", "name": "ci-deploy", "key_hash": "…", "permissions": ["read", "write"],
            "created_at": "2026-02-25T09:00:00.000Z", "expires_at": None,
            "last_used_at": "2026-02-26T08:30:00.000Z", "enabled": True,
        }],
    ),
    Operation(
        "POST", "/api/keys", "Access", "Create an API key", "admin", CreatedKey, (400, 408, 413), status=201,
        body=NewKey,
        body_example={"name": "ci-deploy", "permissions": ["read", "write"], "expires_in": "7d"},
        answer_example={
            "id": "a1b2c3d4e5f6a7b8", "name": "ci-deploy", "secret": "dk_…",
            "permissions": ["read", "write"], "created_at": "2026-02-25T09:00:00.000Z",
            "expires_at": "2026-03-04T09:00:00.000Z",
        },
        note=(
            "The secret is shown this once. 'schemas' limits the key, such as [\"chat.*\"]; 'rate_per_s' "
            "(1 to 100000) limits its requests and those of its sessions, with as many at once after a "
            "second without any. Beyond it: 429."
        ),
    ),
    Operation(
        "DELETE", "/api/keys/{key_id}", "Access", "Delete an API key and its sessions", "admin", Status,
        (404,), answer_example=_OK,
    ),
    Operation(
        "GET", "/admin/workers", "Operation", "List proc workers", "admin", list[Worker],
        answer_example=[{
            "worker_id": "proc-1", "status": "Available", "key_id": "9f8e7d6c5b4a3928",
            "last_seen": "2026-02-24T12:01:30.000Z", "tags": {"grpc_addr": "127.0.0.1:50052"},
        }],
    ),
    Operation(
        "GET", "/admin/store", "Operation", "What the store guarantees, as probed at start", "admin", Store,
    ),
    Operation(
        "GET", "/admin/rotation", "Operation", "How a rotation of the master key stands", "admin",
        RotationStatus,
    ),
    Operation(
        "POST", "/admin/rotation", "Operation", "Begin a rotation of the master key, or go on with one",
        "admin", RotationStatus, (400, 408, 409, 413, 503), status=202, body=Order, body_required=False,
        body_example={"dry_run": True},
        note=(
            "Works on in the main worker; GET tells how far it is, `deltadb rotate` shows it. With dry_run "
            "it only counts how many objects each key seals. No body means {}."
        ),
    ),
    Operation(
        "DELETE", "/admin/rotation", "Operation", "Pause a rotation of the master key", "admin",
        RotationStatus, (503,), note="POST goes on with it.",
    ),
    Operation(
        "GET", "/admin/log-level", "Operation", "How much this process logs", "admin", LogLevel,
        answer_example={"level": "info"},
    ),
    Operation(
        "PUT", "/admin/log-level", "Operation", "Log more or less, until the process ends", "admin",
        LogLevel, (400, 408, 413), body=LogLevel, body_example={"level": "info"},
        note="Of the process that answers; a proc worker switches to debug and back on the signal SIGUSR1.",
    ),
    Operation(
        "GET", "/health", "Operation", "The process answers", None, Health,
        answer_example={"status": "ok", "version": "0.1.0"},
    ),
    Operation("GET", "/livez", "Operation", "Liveness", None, Status, answer_example=_OK),
    Operation(
        "GET", "/readyz", "Operation", "Readiness: workers joined, store probed", None, Ready, (503,),
        note="A 503 names the first failed check in 'error' and shows all of them in 'checks'.",
    ),
    Operation("GET", "/openapi.json", "Operation", "This description", None, _ANY_JSON),
)  # fmt: skip
"""Every operation, in the order of the documentation."""

_PARAMETERS: Final = {
    "schema_id": {
        "type": "string", "maxLength": 100, "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$", "example": "chat.v1",
    },
    "key_id": {"type": "string", "example": "a1b2c3d4e5f6a7b8"},
}  # fmt: skip


def document(version: str, *, public_schemas: bool = False) -> _Json:
    """Build the OpenAPI document. ``public_schemas`` as in the gateway's options."""
    types = [Versions, Problem, Status, Session, Login, Me, NewKey, CreatedKey, KeyInfo, Worker, Store]
    types += [LogLevel, Order, RotationStatus, SchemaCount, Item, ItemPage]
    _, components = msgspec.json.schema_components([*types, Health, Ready], ref_template=_REF)
    for component in components.values():
        component["description"] = _for_readers(component.get("description", ""))
    paths: dict[str, _Json] = {}
    for operation in OPERATIONS:
        if public_schemas and (operation.method, operation.path) in _PUBLIC_SCHEMAS:
            operation = operation._replace(permission=None)
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "DeltaDatabase",
            "version": version,
            "description": (
                "A JSON document database, encrypted at rest. Documents (entities) live under a schema id; "
                "a JSON Schema of that id, if there is one, validates them."
            ),
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, the admin key, or a session token of POST /api/login.",
                }
            },
        },
    }


def _for_readers(docstring: str) -> str:
    """The first paragraph of a docstring, as prose: the rest is for who reads the code."""
    return " ".join(docstring.split("\n\n", 1)[0].replace("``", "`").split())


_PUBLIC_SCHEMAS: Final = frozenset({("GET", "/schema/{schema_id}"), ("GET", "/admin/schemas")})


def _operation(operation: Operation) -> _Json:
    statuses = {*operation.errors, 431, 500}
    if operation.permission is not None:
        statuses |= {401, 403, 429} if operation.permission != "any" else {401, 429}
    described: _Json = {
        "operationId": _operation_id(operation),
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": _description(operation),
        "responses": {
            str(operation.status): _success(operation),
            **({"304": {"description": "The ETag is still current."}} if _has_etag(operation) else {}),
            **{str(status): _problem(status) for status in sorted(statuses)},
        },
    }
    if operation.permission is None:
        described["security"] = []
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": _content(operation.body, operation.body_example)},
        }
    return described


def _operation_id(operation: Operation) -> str:
    words = operation.path.replace("{", "").replace("}", "").replace(".", "/").replace("-", "_").split("/")
    return "_".join([operation.method.lower(), *filter(None, words)])


def _description(operation: Operation) -> str:
    right = {None: "No credentials needed.", "any": "Needs any valid key."}.get(
        operation.permission, f"Needs the permission {operation.permission}."
    )
    return f"{operation.note} {right}".strip()


def _has_etag(operation: Operation) -> bool:
    return operation.method == "GET" and operation.path == "/entity/{schema_id}"


def _parameters(operation: Operation) -> list[_Json]:
    parameters: list[_Json] = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in _PARAMETERS.items()
        if f"{{{name}}}" in operation.path
    ]
    for name, description, required, *schema in operation.query:
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": required,
                "description": description,
                "schema": schema[0] if schema else _KEY_SCHEMA,
            }
        )
    if _has_etag(operation):
        parameters.append({"name": "If-None-Match", "in": "header", "schema": {"type": "string"}})
    return parameters


def _success(operation: Operation) -> _Json:
    answer: _Json = {
        "description": HTTPStatus(operation.status).phrase,
        "content": {"application/json": _content(operation.answer, operation.answer_example)},
    }
    if _has_etag(operation):
        answer["headers"] = {
            "ETag": {"description": "Strong; never repeats.", "schema": {"type": "string"}},
            "Last-Modified": {"schema": {"type": "string"}},
        }
    return answer


def _content(shape: Any, example: Any) -> _Json:
    schema = shape
    if not isinstance(shape, dict):
        (schema,), _ = msgspec.json.schema_components([shape], ref_template=_REF)
    content: _Json = {"schema": schema}
    if example is not None:
        content["example"] = example
    return content


_MEANING: Final = {
    400: "Malformed, or refused by the schema; `errors` then says where and why. Nothing was stored.",
    401: "No valid credentials.",
    403: "The credentials lack this right.",
    404: "It does not exist.",
    408: "The request did not arrive in time.",
    409: "It contradicts the present state, such as a stored template that is no valid JSON Schema.",
    413: "Larger than the limit.",
    429: "Too many failed logins, or more requests than the key may make; see Retry-After.",
    431: "The headers are larger than the limit.",
    500: "`integrity`: the stored object is damaged or was tampered with.",
    503: "Not served now, and certainly nothing was changed; see Retry-After.",
    504: "`outcome_unknown`: the write may have been applied; read before you try again.",
    507: "The store is full or read-only; nothing was changed.",
}
"""What a client may conclude from each status."""


def _problem(status: int) -> _Json:
    answer: _Json = {
        "description": _MEANING[status],
        "content": {CONTENT_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
    if status == 404:
        answer["content"][CONTENT_TYPE]["example"] = {
            "type": TYPE_PREFIX + "not_found",
            "title": "Not Found",
            "status": 404,
            "detail": "there is no such entity",
            "error": "not_found",
            "request_id": "5f0c2a9be1d34478",
        }
    if status in (429, 503):
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return answer
