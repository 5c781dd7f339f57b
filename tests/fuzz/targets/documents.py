"""Documents and schemas: what clients and S3 clients send as JSON."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from random import Random

import msgspec

from deltadatabase import limits
from deltadatabase.errors import Conflict, Invalid
from deltadatabase.schema.document import check_document, split_documents
from deltadatabase.schema.registry import SchemaRegistry
from deltadatabase.schema.validator import compile_schema
from fuzz.engine import Target, Wrong
from fuzz.mutate import framed, json_change, json_changed, json_text, sequence_change, unframed
from fuzz.targets.stack import Loop

DOCUMENTS = (
    b'{"first": {"text": "hello"}}', b'{"a": [1, 2.5, -3e7, null, true, "\\u00fc\\ud83d\\ude00"], "b": {}}',
    b'{"a": 1, "a": 2, "_meta": {"x": "\\\\\\""}}', b" [1] ", b"12345678901234567890", b'"\xc3\xbc"',
    b'{"a": {"b": {"c": {"d": [[[[1]]]]}}}}', b"-0.0", b"1e308",
)  # fmt: skip


def check_json(data: bytes) -> None:
    """The document check against a second reader, and the split against the whole."""
    try:
        value = check_document(data)
    except Invalid:
        value = msgspec.UNSET
    if value is not msgspec.UNSET and not _same(value, json.loads(data)):
        raise Wrong("two readers understand a document differently")
    try:
        members = split_documents(data)
    except Invalid:
        if isinstance(value, dict) and 0 < len(value) <= limits.BATCH_DOCUMENTS_MAX:
            raise Wrong("a body was refused that is an object of documents") from None
        return
    if value is msgspec.UNSET:
        return  # One of the members is what is wrong; each is checked before anything is stored.
    whole: dict[str, object] = value  # type: ignore[assignment]
    if {key: _plain(text) for key, text in members.items()} != {key: _spelled(v) for key, v in whole.items()}:
        raise Wrong("the members are not those of the whole")


def _plain(text: bytes) -> str:
    return _spelled(check_document(text))


def _spelled(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        assert isinstance(one, int | float) and isinstance(other, int | float)
        return math.isclose(one, other, rel_tol=1e-12) or one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def documents(_folder: Path) -> Target:
    return Target("documents", check_json, DOCUMENTS, json_changed)


WORDS = (
    "type", "properties", "required", "items", "prefixItems", "additionalProperties", "patternProperties",
    "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref", "$defs", "definitions", "$id", "$anchor",
    "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$schema", "pattern", "format",
    "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "minItems", "maxItems",
    "uniqueItems", "contains", "minContains", "maxContains", "enum", "const", "dependentRequired",
    "dependentSchemas", "dependencies", "propertyNames", "unevaluatedProperties", "unevaluatedItems", "id",
    "contentEncoding", "contentMediaType", "x-validate-metadata", "object", "array", "string", "integer",
    "number", "null", "boolean", "date-time", "email", "uri", "regex", "ipv6", "idn-hostname", "uuid",
    "json-pointer", "^a+$", "(a|b)*c", "\\p{L}+", "[^\\d]{2,5}", "(?=x)", "(a{1000}){1000}", "a", "b", "#",
    "#/$defs/a", "#/properties/a", "#/definitions/b", "#a", "a#", "http://json-schema.org/draft-07/schema#",
    "http://json-schema.org/draft-04/schema#", "https://json-schema.org/draft/2019-09/schema", "base64",
)  # fmt: skip
SCHEMAS = (
    '{"type": "object", "properties": {"a": {"type": "string", "pattern": "^a+$"}}, "required": ["a"]}',
    ('{"$defs": {"a": {"type": ["object", "null"], "properties": {"b": {"$ref": "#/$defs/a"}}}}, '
    '"$ref": "#/$defs/a"}'),
    ('{"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://x/", "definitions": {"b": {}}, '
    '"items": [{"$ref": "#/definitions/b"}], "additionalItems": false}'),
    '{"anyOf": [{"const": 1}, {"enum": ["a", null]}], "not": {"type": "array"}}',
    ('{"type": "array", "prefixItems": [{}], "unevaluatedItems": false, "contains": {"type": "integer"}, '
    '"uniqueItems": true}'),
    ('{"if": {"required": ["a"]}, "then": {"maxProperties": 2}, "else": false, '
    '"propertyNames": {"maxLength": 3}, "dependentRequired": {"a": ["b"]}, '
    '"unevaluatedProperties": {"type": "number", "multipleOf": 0.1}}'),
    '{"format": "date-time", "x-validate-metadata": true}',
    ('{"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveAnchor": true, "items": '
    '{"$recursiveRef": "#"}, "$anchor": "a"}'),
    '{"$dynamicAnchor": "a", "additionalProperties": {"$dynamicRef": "#a"}}',
    '{"contentEncoding": "base64", "contentMediaType": "application/json"}',
    "true", "false", "{}",
)  # fmt: skip
CHECKED = (b'{"a": "aaa", "b": 2}', b'[1, "a", null, {"a": {}}]', b'"2020-01-01T00:00:00Z"', b"{}", b"1")

_schema_changed = json_change(WORDS)


def _pair_changed(random: Random, data: bytes, other: bytes) -> bytes:
    if random.random() < 0.8:
        return _schema_changed(random, data, other)
    return json_text(random, _grown(random, 4))


def _grown(random: Random, depth: int) -> object:
    """A schema that is one for the most part: keywords with values of the right kind."""
    if depth == 0 or random.random() < 0.1:
        return random.choice((True, False, {}, {"type": "string"}, {"$ref": "#/$defs/a"}, {"$ref": "#"}))
    inner = partial(_grown, random, depth - 1)
    makers = {
        "type": lambda: random.choice(("object", "array", "string", ["integer", "null"])),
        "properties": lambda: {random.choice(WORDS): inner() for _ in range(2)},
        "patternProperties": lambda: {random.choice(("^a", "(a|b)*", "[")): inner()},
        "additionalProperties": inner,
        "unevaluatedProperties": inner,
        "unevaluatedItems": inner,
        "propertyNames": inner,
        "items": inner,
        "prefixItems": lambda: [inner(), inner()],
        "contains": inner,
        "allOf": lambda: [inner() for _ in range(random.randrange(1, 4))],
        "anyOf": lambda: [inner() for _ in range(random.randrange(1, 4))],
        "oneOf": lambda: [inner() for _ in range(random.randrange(1, 4))],
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "$defs": lambda: {"a": inner(), "b": inner()},
        "$ref": lambda: random.choice(("#/$defs/a", "#/$defs/b", "#", "#/properties/a", "other.json")),
        "pattern": lambda: random.choice(("^a+$", "(a*)*b", "\\p{Lu}", "a{1,200}", "(")),
        "format": lambda: random.choice(("date", "email", "uri", "regex", "hostname", "nonsense")),
        "enum": lambda: [random.choice(WORDS), 1, None],
        "const": lambda: random.choice((1, 1.0, "a", [], {})),
        "minLength": lambda: random.choice((0, 3, 2**40, -1)),
        "maxItems": lambda: random.choice((0, 3, 1e3, 2**64)),
        "multipleOf": lambda: random.choice((0, 0.1, 3, 1e-300)),
        "uniqueItems": lambda: True,
        "dependentSchemas": lambda: {"a": inner()},
    }
    names = random.sample([*makers], random.randrange(1, 5))
    return {name: makers[name]() for name in names}


def check_schema(data: bytes) -> None:
    """Compile a schema; check documents under it. Each refusal is an ``Invalid``, each in its time."""
    text, *checked = unframed(data) or [b""]
    try:
        schema = compile_schema(text)
    except Invalid:
        return
    for document in checked[:8]:
        for key in ("a", "_a"):
            try:
                schema.check(key, document)
            except Invalid as exc:
                if len(exc.issues) > limits.ISSUES_MAX:
                    raise Wrong("more issues than there may be") from exc


def schema(_folder: Path) -> Target:
    seeds = [framed((text.encode(), *CHECKED)) for text in SCHEMAS]
    return Target("schema", check_schema, seeds, sequence_change(_pair_changed))


def template(_folder: Path) -> Target:
    """A template that another S3 client put into the store."""
    loop = Loop()

    class Source:
        text = b""

        async def template(self, schema_id: str) -> bytes | None:
            return self.text

    source = Source()

    async def check_template(data: bytes) -> None:
        source.text = data
        try:
            compiled = await SchemaRegistry(source).get("notes", 1)
        except Conflict:
            return
        compiled.check("k", b"{}") if compiled.hash == "" else None

    return Target(
        "template",
        lambda data: loop.run(check_template(data)),
        [text.encode() for text in SCHEMAS],
        _pair_changed,
        loop.close,
    )
