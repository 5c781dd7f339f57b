"""What a schema allows stays the same inside of another document."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import msgspec
import pytest

from deltadatabase.errors import Invalid
from deltadatabase.schema.embedding import embed
from deltadatabase.schema.validator import compile_schema

ALL = {4, 6, 7, 2019, 2020}
DRAFTS = {
    4: "http://json-schema.org/draft-04/schema#",
    6: "http://json-schema.org/draft-06/schema#",
    7: "http://json-schema.org/draft-07/schema#",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema",
}
AT = "#/components/schemas/S"
VALUES: list[Any] = [
    *(None, True, 0, 1, 2, 3, 4, 2.5, "", "a", "abc", [], {}, [1], ["a"], ["a", "b"], [1, "a"], ["a", 1, 1]),
    *({"a": 1}, {"a": "a"}, {"b": 1}, {"a": 1, "b": 2}, {"a": {"a": {"a": 1}}}, {"a": [1, 2]}, {"c": None}),
    *({"a": {"b": {"a": 3}}}, {"children": [{"children": []}]}, {"children": [{"children": 1}]}, {"": 1}),
    *({"a/b": 1}, {"a/b": "x"}, {"a~b": "x"}, [[["a"]]], [{"a": 1}], {"a": {"c": 5}}, {"x": 1, "y": {}}),
]
TREE = {"properties": {"children": {"items": {"$ref": "#"}, "type": "array"}}}
CASES: list[tuple[set[int], Any]] = [
    (ALL, {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}),
    (ALL, TREE),
    (ALL, {"definitions": {"n": {"type": "integer"}}, "items": {"$ref": "#/definitions/n"}}),
    ({6, 7, 2019, 2020}, {"properties": {"a": False}, "additionalProperties": {"not": {"type": "null"}}}),
    (
        ALL,
        {
            "definitions": {"a/b": {"type": "string"}, "a~b": {"type": "integer"}, "a b": {"enum": [1, "a"]}},
            "properties": {
                "a/b": {"$ref": "#/definitions/a~1b"},
                "a~b": {"$ref": "#/definitions/a~0b"},
                "a": {"$ref": "#/definitions/a%20b"},
            },
        },
    ),
    # What is referred to stands inline, in an unknown keyword, in a list, or is the place of a reference.
    (ALL, {"properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}}}),
    (ALL, {"x-parts": {"p": {"type": "string"}}, "items": {"$ref": "#/x-parts/p"}}),
    (ALL, {"anyOf": [{"type": "string"}, {"items": {"$ref": "#/anyOf/0"}, "type": "array"}]}),
    (
        ALL,
        {
            "definitions": {"a": {"$ref": "#/definitions/b"}, "b": {"type": "integer"}},
            "additionalProperties": {"$ref": "#/definitions/a"},
        },
    ),
    # Names of its own.
    ({6, 7, 2019, 2020}, {"$id": "http://x.example/root.json", **TREE}),
    (
        {6, 7, 2019, 2020},
        {
            "$id": "http://x.example/root.json",
            "definitions": {"n": {"$id": "part.json", "type": "integer"}},
            "properties": {"a": {"$ref": "part.json"}, "b": {"$ref": "http://x.example/part.json#"}},
        },
    ),
    ({4}, {"id": "http://x.example/root.json", "definitions": {"n": {"id": "#n", "type": "integer"}},
           "items": {"$ref": "#n"}}),
    ({2019, 2020}, {"$defs": {"n": {"$anchor": "n", "type": "integer"}}, "items": {"$ref": "#n"}}),
    # A reference beside others.
    (ALL, {"definitions": {"n": {"type": "integer"}},
                             "properties": {"a": {"$ref": "#/definitions/n", "minimum": 2}}}),
    ({2019, 2020}, {"$defs": {"n": {"type": "object"}}, "$ref": "#/$defs/n", "allOf": [{"required": ["a"]}],
                    "unevaluatedProperties": False, "properties": {"a": True}}),
    # Words that changed.
    ({4}, {"minimum": 2, "exclusiveMinimum": True, "maximum": 4, "exclusiveMaximum": True}),
    ({4}, {"minimum": 2, "exclusiveMinimum": False}),
    ({6, 7, 2019, 2020}, {"exclusiveMinimum": 2, "exclusiveMaximum": 4}),
    ({4, 6, 7, 2019}, {"items": [{"type": "string"}], "additionalItems": {"type": "integer"}}),
    ({4, 6, 7, 2019}, {"items": [{"type": "string"}], "additionalItems": False}),
    ({4, 6, 7, 2019}, {"items": [{"type": "string"}]}),
    ({4, 6, 7, 2019}, {"items": {"type": "string"}, "additionalItems": False}),
    ({2020}, {"prefixItems": [{"type": "string"}], "items": False}),
    ({4, 6, 7}, {"dependencies": {"a": ["b"], "b": {"required": ["c"]}}}),
    ({2019, 2020}, {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"b": {"required": ["c"]}}}),
    # Words that the draft does not know.
    ({4}, {"const": 1, "contains": {"type": "string"}, "propertyNames": 5, "examples": "no list"}),
    ({4, 6}, {"if": {"type": "string"}, "then": 7, "else": []}),
    ({4, 6, 7}, {"dependentRequired": 7, "unevaluatedProperties": False, "prefixItems": [False]}),
    ({4, 6, 7}, {"$anchor": 7, "$defs": 7, "minContains": "x", "deprecated": 1}),
    (ALL, {"discriminator": 7, "xml": "no", "x-own": {"$ref": "#/nowhere"}}),
    # Data that look like a reference, and what only 2019-09 and later choose.
    (ALL, {"default": {"$ref": "#/nowhere"}, "type": "object"}),
    ({2019}, {"$recursiveAnchor": True, "properties": {"a": {"$recursiveRef": "#"}}, "type": "object"}),
    ({2020}, {"$dynamicAnchor": "n", "properties": {"a": {"$dynamicRef": "#n"}}, "type": "object"}),
    (ALL, {"format": "date", "title": "T", "description": "D"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("draft", "schema"), [(draft, schema) for drafts, schema in CASES for draft in sorted(drafts)]
)
def test_it_allows_the_same_documents(draft: int, schema: dict[str, Any]) -> None:
    text = msgspec.json.encode({"$schema": DRAFTS[draft], **schema})
    original, within = compile_schema(text), embed(text, AT)
    around = {"$ref": AT, "components": {"schemas": {"S": within}}}
    assert jsonschema_rs.meta.is_valid({"$schema": DRAFTS[2020], **within})
    validator = jsonschema_rs.Draft202012Validator(around, validate_formats=True)
    for value in VALUES:
        try:
            original.check("k", msgspec.json.encode(value))
            allowed = True
        except Invalid:
            allowed = False
        assert validator.is_valid(value) == allowed, value


@pytest.mark.parametrize("draft", [6, 7, 2019, 2020])
def test_nothing_leads_out_of_its_component(draft: int) -> None:
    schema = {
        "$schema": DRAFTS[draft],
        "$id": "http://x.example/",
        "definitions": {"Pos.1": {"$id": "http://y.example/", "default": {"$ref": "x"}}, "Pos,1": {}},
        "items": {"anyOf": [{"$ref": "http://y.example/"}, {"$ref": "#/definitions/Pos,1"}]},
    }
    within = embed(msgspec.json.encode(schema), AT)
    assert within == {
        "items": {"anyOf": [{"$ref": AT + "/$defs/Pos.1"}, {"$ref": AT + "/$defs/Pos_1"}]},
        "$defs": {"Pos.1": {}, "Pos_1": {}},
    }


def test_booleans_are_objects_there() -> None:
    assert embed(b"true", AT) == {}
    assert embed(b"false", AT) == {"not": {}}


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b'{"type": 3}', b'{"$ref": "http://x/"}', b'{"$schema": "x"}', b'{"$schema": 7}']
)
def test_what_is_no_schema_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid):
        embed(text, AT)
