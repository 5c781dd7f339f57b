"""Properties of the JSON check: it takes JSON, refuses all else as ``Invalid``, and splits without loss."""

from __future__ import annotations

import json
from itertools import accumulate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deltadatabase import limits
from deltadatabase.errors import Invalid, TooLarge
from deltadatabase.schema.document import check_document, split_documents
from deltadatabase.schema.validator import UNVALIDATED, compile_schema

# Examples go up to megabytes, and other tests may share the machine.
unhurried = settings(deadline=None)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)
SPACE = st.text(" \t\r\n", max_size=3)
# Bytes that look enough like JSON to get past the first character.
PIECES = st.lists(
    st.sampled_from(rb'[ ] { } " \ \" \ud800 \u0000 , : 1 - e999 null NaN a "k":'.split())
    | st.sampled_from([b" ", b"\xff", b"\xed\xa0\x80", b"\x00", b"\xef\xbb\xbf", b"[" * 130]),
    max_size=40,
).map(b"".join)


@unhurried
@given(VALUES, st.booleans(), SPACE)
def test_every_json_value_passes_and_decodes(value: object, ascii_only: bool, space: str) -> None:
    text = space + json.dumps(value, ensure_ascii=ascii_only) + space
    assert check_document(text.encode()) == json.loads(text)


@unhurried
@given(st.binary() | PIECES | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'["' + b"[" * 1000 + b'"]')
def test_any_bytes_pass_or_are_malformed(text: bytes) -> None:
    try:
        value = check_document(text)
    except Invalid as exc:
        assert exc.code == "malformed_json"
    else:
        assert value == json.loads(text)


@unhurried
@given(st.binary() | PIECES | PIECES.map(lambda pieces: b'{"k":' + pieces + b"}"))
@example(b'{"k":' + b"[" * 100_000)
def test_any_body_is_split_or_refused(body: bytes) -> None:
    try:
        documents = split_documents(body)
    except Invalid as exc:
        assert exc.code in {"malformed_json", "not_an_object", "no_documents"}
    else:
        assert documents
        for document in documents.values():
            try:
                check_document(document)
            except Invalid as exc:
                assert exc.code == "malformed_json"


@unhurried
@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, min_size=1), SPACE)
def test_a_split_gives_back_the_exact_bytes(documents: dict[str, object], space: str) -> None:
    texts = {key: json.dumps(value, indent=1) for key, value in documents.items()}
    members = (f"{space}{json.dumps(key)}{space}:{space}{text}{space}" for key, text in texts.items())
    body = "{" + ",".join(members) + "}"
    assert split_documents(body.encode()) == {key: text.encode() for key, text in texts.items()}


@unhurried
@given(st.text("[]{}", min_size=1, max_size=400))
@example('[{"":' * 65 + "1" + "}]" * 65)
def test_depth_is_counted_as_a_plain_count_does(brackets: str) -> None:
    deepest = max(accumulate({"[": 1, "{": 1, "]": -1, "}": -1}.get(character, 0) for character in brackets))
    try:
        check_document(brackets.encode())
    except Invalid as exc:
        assert ("too deeply" in exc.detail) == (deepest > limits.JSON_DEPTH_MAX)


@unhurried
@given(
    st.integers(120, 140) | st.integers(1, 300),
    st.sampled_from([("[", "]"), ('{"a":', "}"), ('["\\"[[",', "]")]),
)
def test_the_depth_limit_is_exact(depth: int, bracket: tuple[str, str]) -> None:
    text = (bracket[0] * depth + "1" + bracket[1] * depth).encode()
    if depth <= limits.JSON_DEPTH_MAX:
        check_document(text)
        assert split_documents(b'{"k":' + text + b"}") == {"k": text}
    else:
        with pytest.raises(Invalid, match="nested too deeply"):
            check_document(text)
        with pytest.raises(Invalid, match="nested too deeply"):
            split_documents(b'{"k":' + text + b"}")


def test_too_many_documents_are_refused() -> None:
    body = json.dumps({str(i): i for i in range(limits.BATCH_DOCUMENTS_MAX + 1)}).encode()
    with pytest.raises(TooLarge):
        split_documents(body)


MARK = "zqxMARKzqx"
MARKED = st.recursive(
    st.sampled_from([MARK, f"{MARK}@example.org", 7, -3.5, True, None]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([MARK, MARK + "2", "a", "b", "c"]), inner, max_size=4)
    ),
    max_leaves=12,
)
STRICT = [
    {"type": "integer"},
    {"additionalProperties": False},
    {"propertyNames": {"maxLength": 2}},
    {"propertyNames": False},
    {"dependentRequired": {MARK[:3]: ["x"]}, "required": ["d"]},
    {"unevaluatedProperties": False, "unevaluatedItems": False},
    {
        "properties": {"a": False, "b": {"enum": [1]}, "c": {"const": 1}},
        "patternProperties": {"^zqx": {"type": "null"}},
    },
    {
        "items": {"format": "email", "pattern": "^x", "maxLength": 1, "maximum": -9},
        "uniqueItems": True,
        "maxItems": 1,
    },
    {"anyOf": [{"type": "null"}, {"required": ["x"]}]},
    {"oneOf": [True, True]},
    {"not": {}},
    {"contains": {"const": 1}, "minContains": 2, "type": "array"},
    {"if": True, "then": {"minProperties": 9, "minItems": 9, "minLength": 99}},
    {"$defs": {"n": {"type": "object", "additionalProperties": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"},
]


@unhurried
@given(st.sampled_from(STRICT), MARKED)
def test_no_issue_quotes_the_document(schema: dict[str, object], value: object) -> None:
    compiled = compile_schema(json.dumps(schema).encode())
    try:
        compiled.check("k", json.dumps(value).encode())
    except Invalid as exc:
        assert exc.code == "schema_violation"
        assert exc.issues
        assert len(exc.issues) <= limits.ISSUES_MAX
        assert MARK not in exc.detail
        assert not any(MARK in issue.detail or MARK in issue.keyword for issue in exc.issues)


@unhurried
@given(st.integers(-(10**4000), 10**4000) | st.floats(allow_nan=False, allow_infinity=False) | VALUES)
@example(-0.0)
@example(2**63)
@example(2**64)
@example(10**400)
@example(10**4200)
def test_no_value_breaks_the_validator(value: object) -> None:
    schema = {
        "minimum": 0,
        "multipleOf": 0.1,
        "enum": [1, 2.5, "x", 10**400],
        "uniqueItems": True,
        "format": "uri",
    }
    document = json.dumps([value, value]).encode()
    UNVALIDATED.check("k", document)
    for text in (schema, {"items": schema}, {"items": {"multipleOf": 3, "maximum": 10**300}}):
        try:
            compile_schema(json.dumps(text).encode()).check("k", document)
        except Invalid as exc:
            assert exc.code == "schema_violation"
