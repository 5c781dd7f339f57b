"""The OpenAPI 3.1 document, made of the table of operations."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import msgspec

from deltadatabase.errors import Issue
from deltadatabase.gateway.openapi.access import ACCESS
from deltadatabase.gateway.openapi.changes import CHANGES
from deltadatabase.gateway.openapi.entities import ENTITIES
from deltadatabase.gateway.openapi.operating import OPERATING
from deltadatabase.gateway.openapi.operation import PROBLEM, Body, Operation
from deltadatabase.gateway.openapi.parameters import ANSWER_HEADERS, parameters_of
from deltadatabase.gateway.openapi.resources import RESOURCES
from deltadatabase.gateway.openapi.schemas import SCHEMAS
from deltadatabase.gateway.openapi.transfers import TRANSFERS
from deltadatabase.gateway.problem import TYPE_PREFIX

_Json = dict[str, Any]
_REF: Final = "#/components/schemas/{name}"

OPERATIONS: Final = (*ENTITIES, *RESOURCES, *TRANSFERS, *CHANGES, *SCHEMAS, *ACCESS, *OPERATING)
"""Every operation, in the order of the documentation."""


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


def document(version: str, *, public_schemas: bool = False) -> _Json:
    """Build the OpenAPI document. ``public_schemas`` as in the gateway's options."""
    _, components = msgspec.json.schema_components([Problem, *_shapes()], ref_template=_REF)
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


def _shapes() -> list[Any]:
    """Every type that a body of some operation has."""
    shapes: list[Any] = []
    for row in OPERATIONS:
        for shape in (row.body, row.answer, *(form.shape for form in (*row.bodies, *row.answers))):
            shapes += shape if isinstance(shape, tuple) else [shape]
    return [shape for shape in shapes if shape is not None and not isinstance(shape, dict)]


def _for_readers(docstring: str) -> str:
    """The first paragraph of a docstring, as prose: the rest is for who reads the code."""
    return " ".join(docstring.split("\n\n", 1)[0].replace("``", "`").split())


_PUBLIC_SCHEMAS: Final = frozenset({("GET", "/schema/{schema_id}"), ("GET", "/admin/schemas")})


def _operation(operation: Operation) -> _Json:
    statuses = {*operation.errors, 431, 500}
    if operation.permission is not None:
        statuses |= {401, 403, 429} if operation.permission != "any" else {401, 429}
    described: _Json = {
        "operationId": operation_id(operation),
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": _description(operation),
        "responses": {
            **{str(status): _success(operation, status) for status in (operation.status, *operation.also)},
            **{
                str(status): _problem(status, with_body=operation.method != "HEAD")
                for status in sorted(statuses)
            },
        },
    }
    if operation.permission is None:
        described["security"] = []
    if parameters := parameters_of(operation):
        described["parameters"] = parameters
    if operation.body is not None:
        body = Body(operation.body, operation.body_example, operation.body_type)
        described["requestBody"] = {
            "required": operation.body_required,
            "content": _content((body, *operation.bodies)),
        }
    return described


def operation_id(operation: Operation) -> str:
    """Name an operation by its method and path."""
    words = operation.path.replace("{", "").replace("}", "").replace(".", "/").replace("-", "_").split("/")
    return "_".join([operation.method.lower(), *filter(None, words)])


def _description(operation: Operation) -> str:
    right = {None: "No credentials needed.", "any": "Needs any valid key."}.get(
        operation.permission, f"Needs the permission {operation.permission}."
    )
    return f"{operation.note} {right}".strip()


def _success(operation: Operation, status: int) -> _Json:
    phrase = "The ETag is still current." if status == 304 else HTTPStatus(status).phrase
    answer: _Json = {"description": phrase}
    if operation.answer is not None and status not in (204, 304):
        body = Body(operation.answer, operation.answer_example, operation.answer_type)
        answer["content"] = _content((body, *operation.answers))
    if operation.answer_headers:
        answer["headers"] = {name: ANSWER_HEADERS[name] for name in operation.answer_headers}
    return answer


def _content(bodies: tuple[Body, ...]) -> _Json:
    return {body.media_type: _media(body.shape, body.example) for body in bodies}


def _media(shape: Any, example: Any) -> _Json:
    content: _Json = {"schema": _schema(shape)}
    if example is not None:
        content["example"] = example
    return content


def _schema(shape: Any) -> _Json:
    if isinstance(shape, tuple):
        return {"anyOf": [_schema(one) for one in shape]}
    if isinstance(shape, dict):
        return shape
    (schema,), _ = msgspec.json.schema_components([shape], ref_template=_REF)
    return schema


_MEANING: Final = {
    400: "Malformed, or refused by the schema; `errors` then says where and why. Nothing was stored.",
    401: "No valid credentials.",
    403: "The credentials lack this right.",
    404: "It does not exist.",
    408: "The request did not arrive in time.",
    409: "It contradicts the present state, such as a stored template that is no valid JSON Schema.",
    410: "What it asks to go on from is kept no longer: begin anew.",
    412: "A condition does not hold; nothing was changed. ETag tells the current one, if there is an entity.",
    413: "Larger than the limit.",
    415: "The body's content type is not served here.",
    422: "`idempotency_key_reused`: the Idempotency-Key was used for another request on this entity.",
    428: "The schema wants a condition with every write: send If-Match or If-None-Match to /entities.",
    429: "Too many failed logins, or more requests than the key may make; see Retry-After.",
    431: "The headers are larger than the limit.",
    500: "`integrity`: the stored object is damaged or was tampered with.",
    503: "Not served now, and certainly nothing was changed; see Retry-After.",
    504: "`outcome_unknown`: the write may have been applied; read before you try again.",
    507: "The store is full or read-only; nothing was changed.",
}
"""What a client may conclude from each status."""


def _problem(status: int, *, with_body: bool) -> _Json:
    if not with_body:
        return {"description": _MEANING[status]}
    answer: _Json = {
        "description": _MEANING[status],
        "content": {PROBLEM: {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
    if status == 404:
        answer["content"][PROBLEM]["example"] = {
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
