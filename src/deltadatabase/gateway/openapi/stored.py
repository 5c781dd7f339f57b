"""Stored schemas in the API's description: each a component, with paths of its own that refer to it. Pure."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any, Final

from deltadatabase.errors import Invalid
from deltadatabase.gateway.openapi.operation import JSON
from deltadatabase.schema.embedding import embed

_COMPONENT: Final = "#/components/schemas/{name}"
_ENTITY: Final = "/entity/{schema_id}"
_RESOURCE: Final = "/entities/{schema_id}/{key}"
_SCHEMA_ID: Final = "{schema_id}"

Json = dict[str, Any]


def with_stored(api: Json, schemas: Mapping[str, bytes], *, left_out: int) -> Json:
    """Add stored schemas to a description; ``api`` itself stays as it is.

    Args:
        api: of ``openapi.document``.
        schemas: texts by schema id. What is no schema is left out, and counted.
        left_out: how many more there are that were not given.
    """
    components = dict(api["components"]["schemas"])
    paths = dict(api["paths"])
    for schema_id, text in schemas.items():
        name = _free_name(schema_id, {*api["components"]["schemas"]}, schemas)
        try:
            components[name] = embed(text, _COMPONENT.format(name=name))
        except Invalid:
            left_out += 1
            continue
        shape = {"$ref": _COMPONENT.format(name=name)}
        for template in (_RESOURCE, _ENTITY):
            if template in api["paths"]:
                path = template.replace(_SCHEMA_ID, schema_id)
                paths[path] = _typed(api["paths"][template], schema_id, template, shape)
    info = dict(api["info"])
    if left_out:
        info["description"] += f" {left_out} of the stored schemas are not described here."
        info["x-schemas-left-out"] = left_out
    return api | {
        "info": info,
        "paths": paths,
        "components": api["components"] | {"schemas": components},
    }


def _free_name(schema_id: str, ours: Collection[str], schemas: Mapping[str, bytes]) -> str:
    """The schema id itself, a component's name by its alphabet, unless we have a shape of that name."""
    name = schema_id
    while name in ours or (name != schema_id and name in schemas):
        name += "_"
    return name


def _typed(operations: Json, schema_id: str, template: str, shape: Json) -> Json:
    """Operations of a path template for one schema id, with its documents' shape in them."""
    typed: Json = copy.deepcopy(operations)
    for method, operation in typed.items():
        operation["operationId"] += f"__{schema_id}"
        operation["tags"] = [schema_id]
        operation["parameters"] = [
            parameter for parameter in operation.get("parameters", ()) if parameter["name"] != "schema_id"
        ]
        if method == "get":
            _put_shape(operation["responses"]["200"], shape)
        elif method == "put" and template == _RESOURCE:
            _put_shape(operation["requestBody"], shape)
        elif method == "put":
            # Keys that begin with "_" are not validated.
            by_key = {"type": "object", "minProperties": 1, "patternProperties": {"^[^_]": shape}}
            _put_shape(operation["requestBody"], by_key)
    return typed


def _put_shape(holder: Json, shape: Json) -> None:
    content = holder["content"][JSON]
    content["schema"] = shape
    # It was made for another schema.
    content.pop("example", None)
