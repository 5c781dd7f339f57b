"""Adversarial schemas are refused or kept cheap; ordinary ones are not bothered."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from deltadatabase import limits
from deltadatabase.errors import Invalid
from deltadatabase.schema.bounds import measure
from deltadatabase.schema.graph import pattern_states, read_graph
from deltadatabase.schema.validator import compile_schema

# The library holds the interpreter: a worker that is silent for longer loses its membership.
ENOUGH_S = limits.MEMBERSHIP_TIMEOUT_S


def ref(name: object) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def nested(depth: int, leaf: object) -> object:
    for _ in range(depth):
        leaf = {"c": leaf}
    return leaf


def fan_out(levels: int, applicator: str = "allOf") -> dict[str, Any]:
    """Two references on each level: 2**levels subschemas on one value."""
    defs: dict[str, Any] = {f"d{i}": {applicator: [ref(f"d{i + 1}")] * 2} for i in range(levels)}
    return {**ref("d0"), "$defs": {**defs, f"d{levels}": {"type": "integer"}}}


def fan_down(levels: int) -> dict[str, Any]:
    """Two references on each level, one level of the document further down each."""
    defs: dict[str, Any] = {
        f"d{i}": {"properties": {"c": {"allOf": [ref(f"d{i + 1}")] * 2}}} for i in range(levels)
    }
    return {**ref("d0"), "$defs": {**defs, f"d{levels}": {"type": "integer"}}}


def ring(size: int) -> dict[str, Any]:
    """A recursion that passes through many definitions, two ways at each."""
    defs = {
        f"d{i}": {"type": "object", "properties": {"c": {"anyOf": [ref(f"d{(i + 1) % size}")] * 2}}}
        for i in range(size)
    }
    return {**ref("d0"), "$defs": defs}


def all_to_all(size: int, applicator: str = "anyOf") -> dict[str, Any]:
    everyone = [ref(f"d{i}") for i in range(size)]
    definition = {"type": "object", "properties": {"c": {applicator: everyone}}}
    return {**ref("d0"), "$defs": {f"d{i}": json.loads(json.dumps(definition)) for i in range(size)}}


def judge(schema: object, document: object) -> str:
    """Compile and check within the time allowed; give the code of the refusal, if any."""
    text, body = json.dumps(schema).encode(), json.dumps(document).encode()
    began = time.process_time()
    try:
        compiled = compile_schema(text)
        assert time.process_time() - began < ENOUGH_S
        began = time.process_time()
        compiled.check("k", body)
    except Invalid as exc:
        return exc.code
    finally:
        assert time.process_time() - began < ENOUGH_S
    return ""


@pytest.mark.parametrize("applicator", ["allOf", "anyOf", "oneOf"])
def test_fanning_out_on_one_value_is_refused(applicator: str) -> None:
    assert judge(fan_out(30, applicator), 1) == "invalid_schema"
    assert judge(fan_out(8, "allOf"), 1) == ""
    assert judge(fan_out(9, applicator), "x") == "schema_violation"


def test_fanning_out_through_other_keywords_is_refused() -> None:
    def chain(make: Any) -> dict[str, Any]:
        defs = {f"d{i}": make(ref(f"d{i + 1}")) for i in range(30)}
        return {**ref("d0"), "$defs": {**defs, "d30": {}}}

    for make in (
        lambda next_: {"if": next_, "then": next_, "else": next_},
        lambda next_: {"not": next_, "allOf": [next_]},
        lambda next_: {"dependentSchemas": {"a": next_, "b": next_}},
        lambda next_: {**next_, "allOf": [next_]},
        lambda next_: {**next_, "$dynamicRef": next_["$ref"]},
        lambda next_: {"unevaluatedProperties": False, "allOf": [next_]},
    ):
        assert judge(chain(make), {"a": 1, "b": 1}) == "invalid_schema"


def test_unevaluated_keywords_inside_each_other_are_refused() -> None:
    schema: dict[str, Any] = {}
    for i in range(20):
        schema = {"allOf": [schema], "unevaluatedProperties": False, "properties": {f"p{i}": True}}
    assert judge(schema, {"p0": 1}) == "invalid_schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": ""},
        {"allOf": [{"$ref": "#"}]},
        {"not": {"$ref": "#"}},
        {"$dynamicRef": "#"},
        {"anyOf": [{"$ref": "#/anyOf/1"}, {"$ref": "#/anyOf/0"}]},
        {**ref("a"), "$defs": {"a": ref("b"), "b": {"if": ref("a")}}},
    ],
)
def test_a_schema_that_meets_itself_on_one_value_is_refused(schema: object) -> None:
    assert judge(schema, 1) == "invalid_schema"


def test_fanning_out_on_the_way_down_is_stopped() -> None:
    assert judge(fan_down(30), nested(30, 1)) == "too_complex"
    assert judge(fan_down(30), nested(3, {})) == ""
    assert judge(fan_down(6), nested(6, "x")) == "schema_violation"


@pytest.mark.parametrize("leaf", ["x", {}])
def test_exponential_recursion_is_stopped(leaf: object) -> None:
    for schema in (ring(40), all_to_all(30), all_to_all(30, "oneOf"), all_to_all(20, "allOf")):
        assert judge(schema, nested(100, leaf)) in {"", "schema_violation", "too_complex"}
    assert judge(all_to_all(30), nested(100, "x")) == "too_complex"


def test_stopping_is_prompt_beside_much_else() -> None:
    heavy = {"c": nested(90, "x"), "more": [{"a": i} for i in range(50_000)]}
    schema = all_to_all(30)
    schema["$defs"]["d0"]["properties"]["more"] = {"items": {"type": "object"}}
    assert judge(schema, heavy) == "too_complex"


def test_a_meter_changes_no_answer() -> None:
    kinds = ["add", "sub", "mul", "div", "neg", "and", "or", "not", "eq", "lt"]
    expression = {"oneOf": [{"type": "number"}, *(ref(kind) for kind in kinds)]}
    operands = {"left": ref("expr"), "right": ref("expr")}
    defs = {
        kind: {"type": "object", "required": ["op"], "properties": {"op": {"const": kind}, **operands}}
        for kind in kinds
    }
    for uri in ("https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"):
        schema = {"$schema": uri, **ref("expr"), "$defs": {"expr": expression, **defs}}

        def tree(depth: int, leaf: object) -> object:
            if depth == 0:
                return leaf
            return {"op": kinds[depth % 10], "left": tree(depth - 1, 1), "right": tree(depth - 1, leaf)}

        compiled = compile_schema(json.dumps(schema).encode())
        cost = measure(read_graph(schema))
        good, bad = (json.dumps(tree(9, leaf)).encode() for leaf in (2, "x"))
        assert not cost.affordable(good.count(b","), len(good), 10)
        compiled.check("k", good)
        with pytest.raises(Invalid) as caught:
            compiled.check("k", bad)
        assert caught.value.code == "schema_violation"


def test_a_meter_keeps_siblings_silent_in_old_drafts() -> None:
    defs = all_to_all(12)["$defs"]
    defs["d0"] = {**ref("d1"), "type": "null", "maxProperties": 0}
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", **ref("d0"), "$defs": defs}
    document = nested(20, {})
    assert not measure(read_graph(schema)).affordable(20, 200, 20)
    assert judge(schema, document) == ""


def test_large_but_honest_schemas_pass() -> None:
    wide = {"properties": {f"p{i}": {"type": "string", "maxLength": 10} for i in range(5000)}}
    assert judge(wide, {f"p{i}": "x" for i in range(5000)}) == ""
    union = {
        "items": {"oneOf": [{"properties": {"kind": {"const": i}}, "required": ["kind"]} for i in range(40)]}
    }
    assert judge(union, [{"kind": i % 40, "n": i} for i in range(5000)]) == ""
    tree = {"type": "object", "additionalProperties": {"$ref": "#"}}
    assert judge(tree, {str(i): nested(20, {}) for i in range(2000)}) == ""
    assert judge(tree, nested(127, {})) == ""
    codes = {"items": {"enum": [f"{i:03}" for i in range(1000)]}}
    assert judge(codes, ["999"] * 50_000) == ""


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ({"items": {"allOf": [{"minimum": -i} for i in range(500)]}}, [1] * 300_000),
        ({"items": {"anyOf": [{"const": i + 5} for i in range(300)]}}, [1] * 300_000),
        ({"items": {"enum": [i + 0.5 for i in range(1000)]}}, [0.25] * 100_000),
        ({"items": {"allOf": [{"multipleOf": 0.1 + i} for i in range(100)]}}, [1] * 300_000),
        (
            {"patternProperties": {f"^(p|q)*{i}": True for i in range(120)}},
            {f"pq{i}": 1 for i in range(50_000)},
        ),
        ({"pattern": "(?:[a-m][ab]{300}[n-z])|(?:[b-n].{300}[0-9])"}, "ab" * 400_000),
    ],
)
def test_expensive_schemas_limit_their_documents(schema: object, document: object) -> None:
    assert judge(schema, document) == "too_complex"


def test_too_many_failures_are_not_listed() -> None:
    assert judge({"items": {"anyOf": [{"type": "string"}] * 9}}, [1] * 100_000) == "schema_violation"
    names = {f"abababab{i}": 1 for i in range(20_000)}
    assert judge({"propertyNames": {"pattern": "^x"}}, names) == "schema_violation"
    assert judge({"required": [f"r{i}" for i in range(5000)]}, {}) == "schema_violation"


def test_patterns_are_bounded_in_number_and_size() -> None:
    assert (
        judge({"allOf": [{"pattern": rf"[\pL\pN]{{10}}x{i}"} for i in range(128)]}, "a") == "schema_violation"
    )
    assert judge({"allOf": [{"pattern": f"x{i}"} for i in range(129)]}, "a") == "invalid_schema"
    assert judge({"allOf": [{"pattern": "^a"}] * 1000}, "a") == ""
    assert judge({"pattern": "((a{100}){100}){100}"}, "a") == "invalid_schema"
    assert judge({"pattern": "^.{1,400}$"}, "a") == ""


def test_too_many_subschemas_are_refused() -> None:
    assert judge({"properties": {f"p{i}": {} for i in range(10_001)}}, {}) == "invalid_schema"


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"a": {"$id": "https://example.org/x"}, "b": {"$id": "https://example.org/x"}}},
        {"$defs": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}},
        {"$ref": "#/x-odd", "x-odd": {"$id": "https://example.org/x"}},
        {"$ref": "#/x-odd/a/b", "x-odd": {"a": {"$id": "https://example.org/x", "b": {}}}},
        {"$ref": "#nowhere"},
        {"$ref": "#/nowhere"},
        {"$ref": "#/enum/0", "enum": [1]},
        {"$ref": "http://[::"},
        {"$id": "http://[::"},
        {"$defs": {"a": {"$id": "x", "$schema": "http://json-schema.org/draft-07/schema#"}}},
    ],
)
def test_ambiguous_and_dangling_names_are_refused(schema: object) -> None:
    assert judge(schema, 1) == "invalid_schema"


@pytest.mark.parametrize(
    ("pattern", "states"),
    [
        ("^[a-z]{1,500}$", 1),
        ("^[0-9a-f]{8}-[0-9a-f]{4}$", 1),
        ("[0-9a-f]{8}-[0-9a-f]{4}", 13),
        ("(ab{10}){3}", 33),
        (r"\d{4}|x", 5),
        ("^a|[ab]{20}", 21),
        ("^a*[ab]{0,20}", 21),
        ("(((", 1),
        ("{9}x", 1),
    ],
)
def test_the_states_of_a_pattern_are_counted(pattern: str, states: int) -> None:
    assert pattern_states(pattern) == states
