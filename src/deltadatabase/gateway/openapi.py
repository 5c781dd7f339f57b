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
from deltadatabase.gateway.problem import CONTENT_TYPE, TYPE_PREFIX
from deltadatabase.gateway.resources import Stored
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
        body_type: its content type, where not any.
        body_example, answer_example: values that work.
        query: name, description and whether it is required, of each query parameter.
        headers: request headers that matter, of those in ``_HEADERS``.
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
    body_type: str = "application/json"
    body_example: Any = None
    answer_example: Any = None
    query: tuple[tuple[str, str, bool], ...] = ()
    headers: tuple[str, ...] = ()
    note: str = ""


_OK: Final = {"status": "ok"}
_KEY: Final = (("key", "The entity's key; '/', '\\' and '..' are not served here.", True),)
_DATA: Final = (503, 504)
_HEADERS: Final = {
    "If-Match": "ETags one of which must be current, or `*` for any existing entity; else 412.",
    "If-None-Match": "ETags none of which may be current; `*`: there must be no entity.",
    "If-Modified-Since": "Without If-None-Match: 304 unless the entity was modified later.",
    "Idempotency-Key": (
        "A name for this write, 1 to 255 visible characters, of the client's choice. Repeated with the same "
        "request within 24 hours it changes nothing and gets the first outcome, with the header "
        "`Idempotent-Replayed: true`; with another request for the same entity: 422."
    ),
    "Prefer": "`return=minimal` or `return=representation`.",
}
_KEYED: Final = ("Idempotency-Key",)
_CONDITIONS: Final = ("If-Match", "If-None-Match")
_RESOURCE: Final = "/entities/{schema_id}/{key}"

OPERATIONS: Final = (
    Operation(
        "PUT", "/entity/{schema_id}", "Entities", "Write one or more entities", "write", Versions,
        (400, 408, 409, 413, 422, *_DATA, 507), headers=_KEYED,
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
        query=_KEY, answer_example=_CHAT, headers=("If-None-Match",),
        note=(
            "The document, byte for byte as it was sent, with ETag and Last-Modified. "
            "With If-None-Match naming the current ETag: 304."
        ),
    ),
    Operation(
        "DELETE", "/entity/{schema_id}", "Entities", "Delete an entity", "write", Status,
        (400, 409, 422, *_DATA, 507), query=_KEY, headers=_KEYED, answer_example=_OK,
        note="Succeeds for an absent key too.",
    ),
    Operation(
        "GET", _RESOURCE, "Entities", "Read an entity as a resource", "read", _ANY_JSON,
        (400, 404, 412, *_DATA), headers=(*_CONDITIONS, "If-Modified-Since"), answer_example=_CHAT,
        note=(
            "The document, byte for byte. HEAD is served, too. Anything but control characters may stand in "
            "the key, a '/' escaped as %2F or not."
        ),
    ),
    Operation(
        "PUT", _RESOURCE, "Entities", "Write an entity as a resource", "write", Stored,
        (400, 408, 409, 412, 413, 415, 422, 428, *_DATA, 507),
        headers=(*_CONDITIONS, "Idempotency-Key", "Prefer"),
        body=_ANY_JSON, body_example=_CHAT,
        answer_example={"status": "ok", "version": 2, "etag": '"2-5f0c2a9b"'},
        note=(
            "The body is the document; its content type is application/json, application/*+json or none. "
            "201 with Location when there was none before. With `Prefer: return=minimal` there is no body "
            "(204, or 201), with `return=representation` the document. 428: the schema says "
            "x-require-if-match."
        ),
    ),
    Operation(
        "PATCH", _RESOURCE, "Entities", "Change an entity", "write", _ANY_JSON,
        (400, 404, 408, 409, 412, 413, 415, 422, 428, *_DATA, 507),
        headers=(*_CONDITIONS, "Idempotency-Key", "Prefer"),
        body={"type": "object"}, body_type="application/merge-patch+json",
        body_example={"archived": True}, answer_example={**_CHAT, "archived": True},
        note=(
            "By a JSON Merge Patch (RFC 7396, application/merge-patch+json) or a JSON Patch (RFC 6902, "
            "application/json-patch+json, which needs the permission read as well). The answer is the "
            "patched document; 204 without it for who may not read, with `Prefer: return=minimal`, and for "
            "a repeat after which the entity has changed. 409: a JSON Patch that does not fit the document."
        ),
    ),
    Operation(
        "DELETE", _RESOURCE, "Entities", "Delete an entity as a resource", "write", None,
        (400, 404, 409, 412, 422, 428, *_DATA, 507), status=204, headers=(*_CONDITIONS, "Idempotency-Key"),
        note="404 for an absent one, unlike DELETE /entity.",
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
        list[str], _DATA, answer_example=["chat.v1"],
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
    "key": {"type": "string", "minLength": 1, "maxLength": 240, "example": "session_001"},
    "key_id": {"type": "string", "example": "a1b2c3d4e5f6a7b8"},
}  # fmt: skip


def document(version: str, *, public_schemas: bool = False) -> _Json:
    """Build the OpenAPI document. ``public_schemas`` as in the gateway's options."""
    types = [
        Versions,
        Stored,
        Problem,
        Status,
        Session,
        Login,
        Me,
        NewKey,
        CreatedKey,
        KeyInfo,
        Worker,
        Store,
    ]
    types += [LogLevel, Order, RotationStatus]
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
            **({"304": {"description": "The ETag is still current."}} if _is_read(operation) else {}),
            **_OTHER_SUCCESSES.get((operation.method, operation.path), {}),
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
            "content": {operation.body_type: _content(operation.body, operation.body_example)},
        }
        if operation.method == "PATCH":
            patch = {"type": "array", "items": {"type": "object"}}
            described["requestBody"]["content"]["application/json-patch+json"] = _content(patch, None)
    return described


def _operation_id(operation: Operation) -> str:
    words = operation.path.replace("{", "").replace("}", "").replace(".", "/").replace("-", "_").split("/")
    return "_".join([operation.method.lower(), *filter(None, words)])


def _description(operation: Operation) -> str:
    right = {None: "No credentials needed.", "any": "Needs any valid key."}.get(
        operation.permission, f"Needs the permission {operation.permission}."
    )
    return f"{operation.note} {right}".strip()


_OTHER_SUCCESSES: Final = {
    ("PUT", _RESOURCE): {
        "201": {"description": "There was none before; Location leads to it."},
        "204": {"description": "As preferred, without a body."},
    },
    ("PATCH", _RESOURCE): {"204": {"description": "Without the document."}},
}


def _is_read(operation: Operation) -> bool:
    return operation.method == "GET" and operation.path in ("/entity/{schema_id}", _RESOURCE)


def _has_etag(operation: Operation) -> bool:
    return _is_read(operation) or (operation.path == _RESOURCE and operation.method != "DELETE")


def _parameters(operation: Operation) -> list[_Json]:
    parameters: list[_Json] = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in _PARAMETERS.items()
        if f"{{{name}}}" in operation.path
    ]
    for name, description, required in operation.query:
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": required,
                "description": description,
                "schema": {"type": "string", "minLength": 1},
                "example": "session_001",
            }
        )
    parameters.extend(
        {"name": name, "in": "header", "description": _HEADERS[name], "schema": {"type": "string"}}
        for name in operation.headers
    )
    return parameters


def _success(operation: Operation) -> _Json:
    answer: _Json = {"description": HTTPStatus(operation.status).phrase}
    if operation.answer is not None:
        answer["content"] = {"application/json": _content(operation.answer, operation.answer_example)}
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
    412: "A condition does not hold; nothing was changed. ETag tells the current one, if there is an entity.",
    413: "Larger than the limit.",
    415: "The content type is not served here.",
    422: "`idempotency_key_reused`: the Idempotency-Key was used for another request on this entity.",
    428: "The schema wants a condition with every write: send If-Match or If-None-Match.",
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
