"""Compiling and checking: each draft, privacy, and no way out of the schema's own text."""

from __future__ import annotations

import hashlib
import http.server
import json
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltadatabase import limits
from deltadatabase.errors import Invalid, Issue
from deltadatabase.schema.validator import UNVALIDATED, CompiledSchema, compile_schema

DRAFTS = {
    "http://json-schema.org/draft-04/schema#": 4,
    "http://json-schema.org/draft-06/schema#": 6,
    "http://json-schema.org/draft-07/schema#": 7,
    "http://json-schema.org/draft-07/schema": 7,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    "https://json-schema.org/draft/2020-12/schema": 2020,
    "https://json-schema.org/draft/2020-12/schema#": 2020,
    None: 2020,
}
TEMPLATES = Path(__file__).parents[3] / "shared" / "db" / "templates"


def compiled(schema: object, uri: str | None = None) -> CompiledSchema:
    if uri is not None:
        assert isinstance(schema, dict)
        schema = {"$schema": uri, **schema}
    return compile_schema(json.dumps(schema).encode())


def allows(schema: CompiledSchema, value: object, key: str = "k") -> bool:
    try:
        schema.check(key, json.dumps(value).encode())
    except Invalid as exc:
        assert exc.code == "schema_violation"
        return False
    return True


def issues(schema: object, value: object) -> tuple[Issue, ...]:
    with pytest.raises(Invalid) as caught:
        compiled(schema).check("k", json.dumps(value).encode())
    assert caught.value.code == "schema_violation"
    return caught.value.issues


def refused(text: bytes) -> Invalid:
    with pytest.raises(Invalid) as caught:
        compile_schema(text)
    assert caught.value.code == "invalid_schema"
    return caught.value


@pytest.mark.parametrize("uri", DRAFTS)
def test_format_is_asserted_in_every_draft(uri: str | None) -> None:
    schema = compiled({"properties": {"at": {"format": "date-time"}, "mail": {"format": "email"}}}, uri)
    assert allows(schema, {"at": "2026-11-22T14:00:00Z", "mail": "a@example.org"})
    assert not allows(schema, {"at": "yesterday"})
    assert not allows(schema, {"mail": "nobody"})


@pytest.mark.parametrize(("uri", "draft"), DRAFTS.items())
def test_each_draft_has_its_own_meaning(uri: str | None, draft: int) -> None:
    # `const` came with draft 6, `if` with 7, `dependentRequired` with 2019-09, `prefixItems` with 2020-12.
    assert allows(compiled({"const": 1}, uri), 2) == (draft < 6)
    assert allows(compiled({"if": True, "then": False}, uri), 2) == (draft < 7)
    assert allows(compiled({"dependentRequired": {"a": ["b"]}}, uri), {"a": 1}) == (draft < 2019)
    assert allows(compiled({"prefixItems": [{"type": "string"}]}, uri), [1]) == (draft < 2020)
    # A reference silences what stands beside it up to draft 7.
    beside = {"$ref": "#/definitions/n", "maximum": 3, "definitions": {"n": {"type": "integer"}}}
    assert allows(compiled(beside, uri), 9) == (draft < 2019)
    if draft == 4:
        assert not allows(compiled({"maximum": 3, "exclusiveMaximum": True}, uri), 3)
    else:
        refused(
            json.dumps({"$schema": uri, "exclusiveMaximum": True}).encode()
            if uri
            else b'{"exclusiveMaximum":true}'
        )


def test_the_hash_is_of_the_exact_bytes() -> None:
    text = b'{ "type" : "object" }'
    assert compile_schema(text).hash == hashlib.sha256(text).hexdigest()
    assert UNVALIDATED.hash == ""


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'"x"',
        b'{"type":"whatever"}',
        b'{"minLength":-1}',
        b'{"properties":[]}',
        b'{"pattern":"("}',
        b'{"pattern":"(?=a)b"}',
        b'{"pattern":"(a)\\\\1"}',
        b'{"pattern":"((a{100}){100}){100}"}',
        b'{"$schema":"http://json-schema.org/draft-03/schema#"}',
        b'{"$schema":"https://example.org/mine"}',
        b'{"$schema":7}',
        b'{"allOf":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"title":"' + b"x" * limits.DOCUMENT_BYTES_MAX_DEFAULT + b'"}',
        b'{"maximum":1e999}',
        b'{"title":"\xff"}',
    ],
)
def test_what_is_not_a_schema_is_refused(text: bytes) -> None:
    refused(text)


def test_a_refused_schema_says_where() -> None:
    (issue,) = refused(b'{"properties":{"a":{"type":"whatever"}}}').issues
    assert issue.pointer == "/properties/a/type"


@pytest.mark.parametrize("text", [b"true", b"{}", b" {}\n"])
def test_trivial_schemas_allow_everything(text: bytes) -> None:
    assert allows(compile_schema(text), {"a": [1, None]})


def test_the_false_schema_allows_nothing() -> None:
    assert not allows(compile_schema(b"false"), 1)


class _Counting(http.server.BaseHTTPRequestHandler):
    connections = 0

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Counting) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_nothing_outside_of_the_schema_is_ever_loaded(listener: int, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("{}")
    here = f"http://127.0.0.1:{listener}/s.json"
    for uri in DRAFTS:
        base = {"$schema": uri} if uri else {}
        name = "id" if uri and "draft-04" in uri else "$id"
        for schema in (
            {"$ref": here},
            {"$ref": here + "#/definitions/a"},
            {"$ref": here.replace("http", "https")},
            {"$ref": (tmp_path / "s.json").as_uri()},
            {"$ref": "s.json"},
            {"$ref": "//127.0.0.1/s.json"},
            {"$ref": "urn:example:a"},
            {"properties": {"a": {"items": {"$ref": here}}}},
            {"$ref": "#/x-hidden", "x-hidden": {"not": {"$ref": here}}},
            {name: here.replace("s.json", ""), "$ref": "s.json"},
            {"properties": {"a": {name: here.replace("s.json", ""), "items": {"$ref": "s.json"}}}},
        ):
            refused(json.dumps({**base, **schema}).encode())
    for schema in (
        {"$dynamicRef": here},
        {"$dynamicRef": here + "#a"},
        {"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": here},
        {"$schema": here},
        {"$defs": {"a": {"$id": "x", "$schema": here}}},
    ):
        refused(json.dumps(schema).encode())
    # References that nothing evaluates are not followed either.
    for schema in ({"enum": [{"$ref": here}]}, {"x-note": {"$ref": here}}, {"default": {"$ref": here}}):
        allows(compiled(schema), 1)
    assert _Counting.connections == 0


@pytest.mark.parametrize("uri", DRAFTS)
def test_references_inside_of_the_schema_work(uri: str | None) -> None:
    name = "id" if uri and "draft-04" in uri else "$id"
    whole = {
        name: "https://example.org/whole",
        "properties": {
            "a": {"$ref": "#/definitions/n"},
            "b": {"$ref": "part"},
            "c": {"$ref": "https://example.org/part#/definitions/s"},
            "d": {"$ref": "#/x-odd~1place/0"},
        },
        "definitions": {
            "n": {"type": "integer"},
            "part": {name: "part", "type": "boolean", "definitions": {"s": {"type": "string"}}},
        },
        "x-odd/place": [{"type": "null"}],
    }
    schema = compiled(whole, uri)
    assert allows(schema, {"a": 1, "b": True, "c": "x", "d": None})
    for member in "abcd":
        assert not allows(schema, {member: 1.5})


def test_dynamic_and_recursive_references_work() -> None:
    tree = {
        "$id": "https://example.org/tree",
        "$dynamicAnchor": "node",
        "properties": {"value": {"type": "integer"}, "kids": {"items": {"$dynamicRef": "#node"}}},
    }
    strict = {
        "$id": "https://example.org/strict",
        "$dynamicAnchor": "node",
        "$ref": "tree",
        "unevaluatedProperties": False,
        "$defs": {"tree": tree},
    }
    typo = {"kids": [{"vale": 1}]}
    assert allows(compiled(tree), typo)
    assert not allows(compiled(strict), typo)
    older = {
        "$schema": "https://json-schema.org/draft/2019-09/schema",
        "$recursiveAnchor": True,
        "additionalProperties": {"$recursiveRef": "#"},
        "type": "object",
    }
    assert allows(compiled(older), {"a": {"b": {}}})
    assert not allows(compiled(older), {"a": {"b": 1}})


def test_metadata_is_validated_only_on_request() -> None:
    schema = {"type": "array"}
    assert allows(compiled(schema), {}, key="_index")
    assert not allows(compiled(schema), {}, key="index_")
    assert not allows(compiled({**schema, "x-validate-metadata": True}), {}, key="_index")
    assert allows(compiled({**schema, "x-validate-metadata": "true"}), {}, key="_index")
    for checker in (compiled(schema), UNVALIDATED):
        with pytest.raises(Invalid) as caught:
            checker.check("_index", b"{")
        assert caught.value.code == "malformed_json"


def test_an_issue_names_place_keyword_and_what_the_schema_says() -> None:
    assert issues({"properties": {"a/b~": {"items": {"maximum": 3}}}}, {"a/b~": [1, 4]}) == (
        Issue("/a~1b~0/1", "maximum", "the number is above limit=3"),
    )
    assert issues({"required": ["name"]}, {}) == (
        Issue("", "required", "a required member is missing name=name"),
    )
    assert (
        issues({"type": ["string", "null"]}, 1)[0].detail == "the value's type is none of types=null,string"
    )
    assert issues({"pattern": "^x{2}$"}, "y")[0].detail == "the string does not match pattern=^x{2}$"
    assert len(issues({"pattern": "^x" * 200}, "y")[0].detail) < 250


@pytest.mark.parametrize(
    ("schema", "value", "keyword"),
    [
        ({"additionalProperties": False}, {"secret": 1}, "additionalProperties"),
        ({"properties": {"a": True}, "additionalProperties": False}, {"secret": 1}, "additionalProperties"),
        ({"unevaluatedProperties": False}, {"secret": 1}, "unevaluatedProperties"),
        ({"propertyNames": {"maxLength": 2}}, {"secret": 1}, "propertyNames"),
        ({"propertyNames": False}, {"secret": 1}, "propertyNames"),
        ({"dependentRequired": {"secret": ["b"]}}, {"secret": 1}, "dependentRequired"),
        ({"enum": ["a"]}, "secret", "enum"),
        ({"const": "a"}, "secret", "const"),
        ({"format": "uuid"}, "secret", "format"),
        ({"not": {"type": "string"}}, "secret", "not"),
        ({"anyOf": [{"type": "null"}]}, "secret", "anyOf"),
        ({"properties": {"additionalProperties": False}}, {"additionalProperties": 1}, "falseSchema"),
    ],
)
def test_no_detail_quotes_the_document(schema: object, value: object, keyword: str) -> None:
    (issue,) = issues(schema, value)
    assert issue.keyword == keyword
    assert "secret" not in issue.detail


def test_old_dependencies_are_named_as_written() -> None:
    schema = compiled({"dependencies": {"secret": ["b"]}}, "http://json-schema.org/draft-07/schema#")
    with pytest.raises(Invalid) as caught:
        schema.check("k", b'{"secret":1}')
    assert caught.value.issues[0].keyword == "dependencies"
    assert "secret" not in caught.value.issues[0].detail


def test_issues_are_bounded_and_different() -> None:
    assert len(issues({"items": {"type": "string"}}, [1] * 100)) == limits.ISSUES_MAX
    twice = {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {"type": "string"}}}
    assert len(issues(twice, 1)) == 1


def test_a_large_document_still_gets_its_first_issue() -> None:
    value = [1] * 200_000
    value[150_000] = -1
    (issue,) = issues({"items": {"type": "integer", "minimum": 0}}, value)
    assert issue.pointer == "/150000"


def test_an_unexplained_refusal_says_so() -> None:
    (issue,) = issues({"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, [1] * 200_000)
    assert issue == Issue("", "", issue.detail)
    assert "too many" in issue.detail


def test_a_backtracking_trap_runs_in_linear_time() -> None:
    for schema in ({"pattern": "^(a+)+$"}, {"pattern": "^(a|a)*$"}, {"pattern": "(x+x+)+y"}):
        checker = compiled(schema)
        began = time.process_time()
        assert not allows(checker, "a" * 100_000 + "!x")
        assert time.process_time() - began < 1
    names = compiled({"patternProperties": {"^(a+)+$": True}, "additionalProperties": False})
    began = time.process_time()
    assert not allows(names, {"a" * 100_000 + "!": 1})
    assert time.process_time() - began < 1


def test_numbers_beyond_a_machine_word_are_judged() -> None:
    assert allows(compiled({"type": "integer", "minimum": 2**80}), 2**80)
    assert not allows(compiled({"maximum": 2**80}), 2**80 + 1)
    assert not allows(compiled({"maximum": 10**300}), 10**301)
    assert allows(compiled({"minimum": 0}), -0.0)


def test_our_own_templates_do_what_their_titles_say() -> None:
    good = {
        "chat.v1": {"chat_id": "c", "messages": [{"role": "user", "content": "hello"}]},
        "user.v1": {
            "name": "Ada",
            "email": "ada@example.org",
            "address": {"city": "London", "country": "GB"},
        },
        "invoice.v1": {
            "number": "2026-000001",
            "issued_on": "2026-11-22",
            "currency": "EUR",
            "lines": [{"text": "work", "quantity": 0.5, "unit_price": 9900}],
        },
        "sensor-reading.v1": {
            "sensor": "5c3f7f6e-6f0a-4c55-9a86-3f8f9d1d7e11",
            "at": "2026-11-22T14:00:00Z",
            "value": 21.5,
            "unit": "celsius",
            "battery": 80,
        },
    }
    schemas = {path.stem: compile_schema(path.read_bytes()) for path in TEMPLATES.glob("*.json")}
    assert set(good) <= set(schemas)
    for name, value in good.items():
        assert allows(schemas[name], value), name
        assert not allows(schemas[name], {}), name
    assert not allows(schemas["chat.v1"], {"chat_id": "c", "messages": [{"role": "user"}]})
    assert not allows(schemas["user.v1"], {"name": "Ada", "email": "ada"})
    assert not allows(schemas["invoice.v1"], {**good["invoice.v1"], "issued_on": "22.11.2026"})
    reading = {name: value for name, value in good["sensor-reading.v1"].items() if name != "unit"}
    assert not allows(schemas["sensor-reading.v1"], reading)


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"const": "x" * 900_000}},
        {"items": {"enum": [f"value {number}" for number in range(20_000)]}},
        {"items": {"not": {"const": "q", "description": "y" * 900_000}}},
        {"items": {"type": "string"}, "properties": {}, "description": "y" * 900_000},
    ],
)
def test_explaining_a_refusal_costs_little_memory_whatever_the_keyword(schema: dict[str, object]) -> None:
    """Each failure copies the keyword's value: a large one times a long array was gigabytes."""
    compiled = compile_schema(json.dumps(schema).encode())
    document = b'["q"' + b',"q"' * 40_000 + b",1]"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Invalid):
        compiled.check("k", document)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_a_text_of_any_size_is_refused_before_it_is_read() -> None:
    with pytest.raises(Invalid, match="too large"):
        compile_schema(b"[" * 50_000_000)


@pytest.mark.parametrize("value", [b"1", b'"true"', b"null", b"{}"])
def test_conditions_are_demanded_or_not(value: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        compile_schema(b'{"x-require-if-match":%s}' % value)
    assert caught.value.code == "invalid_schema"


@pytest.mark.parametrize(
    ("schema", "demanded", "of_metadata"),
    [
        (b'{"x-require-if-match":true}', True, False),
        (b'{"x-require-if-match":true,"x-validate-metadata":true}', True, True),
        (b'{"$schema":"http://json-schema.org/draft-04/schema#","x-require-if-match":true}', True, False),
        (b'{"properties":{"x-require-if-match":true}}', False, False),
        (b"true", False, False),
    ],
)
def test_a_schema_may_demand_conditions(schema: bytes, demanded: bool, of_metadata: bool) -> None:
    compiled = compile_schema(schema)
    assert compiled.demands_conditions("key") is demanded
    assert compiled.demands_conditions("_key") is of_metadata
    assert not UNVALIDATED.demands_conditions("key")
