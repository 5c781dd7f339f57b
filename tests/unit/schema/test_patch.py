"""Patches: the examples of RFC 7396 and RFC 6902, what both leave open, and what they may cost."""

from __future__ import annotations

import json

import pytest

from deltadatabase import limits
from deltadatabase.errors import Conflict, DeltaError, Invalid, TooLarge
from deltadatabase.model import PatchKind
from deltadatabase.schema.patch import parse_patch

BYTES_MAX = 1 << 20


def merged(document: bytes, patch: bytes, bytes_max: int = BYTES_MAX) -> bytes:
    return parse_patch(patch, PatchKind.MERGE).apply(document, bytes_max)


def patched(document: bytes, *operations: object, bytes_max: int = BYTES_MAX) -> bytes:
    return parse_patch(json.dumps(operations).encode(), PatchKind.JSON).apply(document, bytes_max)


# RFC 7396, appendix A

MERGES = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]
# Its section 3
TITLE = (
    '{"title":"Goodbye!","author":{"givenName":"John","familyName":"Doe"},"tags":["example","sample"],'
    '"content":"This will be unchanged"}'
)
CHANGES = (
    '{"title":"Hello!","phoneNumber":"+01-123-456-7890","author":{"familyName":null},"tags":["example"]}'
)
TITLED = (
    '{"title":"Hello!","author":{"givenName":"John"},"tags":["example"],"content":"This will be unchanged",'
    '"phoneNumber":"+01-123-456-7890"}'
)


@pytest.mark.parametrize(("document", "patch", "result"), [*MERGES, (TITLE, CHANGES, TITLED)])
def test_the_examples_of_rfc_7396(document: str, patch: str, result: str) -> None:
    assert merged(document.encode(), patch.encode()) == result.encode()


# RFC 6902, appendix A, by its numbers; the error's code where the operation fails.

PATCHES = {
    "A.1": ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    "A.2": (
        {"foo": ["bar", "baz"]},
        [{"op": "add", "path": "/foo/1", "value": "qux"}],
        {"foo": ["bar", "qux", "baz"]},
    ),
    "A.3": ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    "A.4": ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    "A.5": (
        {"baz": "qux", "foo": "bar"},
        [{"op": "replace", "path": "/baz", "value": "boo"}],
        {"baz": "boo", "foo": "bar"},
    ),
    "A.6": (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    "A.7": (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    "A.8": (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    "A.9": ({"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}], "patch_test_failed"),
    "A.10": (
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    "A.11": (
        {"foo": "bar"},
        [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}],
        {"foo": "bar", "baz": "qux"},
    ),
    "A.12": ({"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}], "patch_conflict"),
    "A.14": (
        {"/": 9, "~1": 10},
        [{"op": "test", "path": "/~01", "value": 10}],
        {"/": 9, "~1": 10},
    ),
    "A.15": ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": "10"}], "patch_test_failed"),
    "A.16": (
        {"foo": ["bar"]},
        [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}],
        {"foo": ["bar", ["abc", "def"]]},
    ),
}


@pytest.mark.parametrize("number", PATCHES)
def test_the_examples_of_rfc_6902(number: str) -> None:
    document, operations, result = PATCHES[number]
    text = json.dumps(document).encode()
    if isinstance(result, str):
        with pytest.raises(Conflict) as caught:
            patched(text, *operations)
        assert caught.value.code == result
    else:
        assert json.loads(patched(text, *operations)) == result


def test_example_a_13_names_a_member_twice_and_the_last_one_counts() -> None:
    """The RFC leaves it to the parser of JSON; ours takes the last one everywhere."""
    patch = parse_patch(b'[{"op":"add","path":"/baz","value":"qux","op":"remove"}]', PatchKind.JSON)
    with pytest.raises(Conflict):
        patch.apply(b'{"foo":"bar"}', BYTES_MAX)
    assert patch.apply(b'{"foo":1,"baz":2}', BYTES_MAX) == b'{"foo":1}'


OPERATIONS = [
    ({"a": 1}, {"op": "add", "path": "", "value": [2]}, [2]),
    ({"a": 1}, {"op": "replace", "path": "", "value": 7}, 7),
    ({"a": 1}, {"op": "test", "path": "", "value": {"a": 1}}, {"a": 1}),
    ({"a": 1}, {"op": "copy", "from": "", "path": "/b"}, {"a": 1, "b": {"a": 1}}),
    ({"a": {"b": 1}}, {"op": "move", "from": "/a/b", "path": ""}, 1),
    ({"a": {"b": 1}}, {"op": "move", "from": "/a/b", "path": "/a"}, {"a": 1}),
    ({"a": 1}, {"op": "move", "from": "/a", "path": "/a"}, {"a": 1}),
    ({"a": 1, "b": 2}, {"op": "add", "path": "/a", "value": 3}, {"a": 3, "b": 2}),
    ({"": {"": 1}}, {"op": "replace", "path": "//", "value": 2}, {"": {"": 2}}),
    ([1, 2], {"op": "add", "path": "/2", "value": 3}, [1, 2, 3]),
    ([1, 2], {"op": "add", "path": "/0", "value": 3}, [3, 1, 2]),
    ([1, 2], {"op": "copy", "from": "/0", "path": "/-"}, [1, 2, 1]),
    ({"a/b": 1, "c~d": 2}, {"op": "remove", "path": "/a~1b"}, {"c~d": 2}),
    ({"-": 1}, {"op": "remove", "path": "/-"}, {}),
    ({"01": 1}, {"op": "remove", "path": "/01"}, {}),
]


@pytest.mark.parametrize(("document", "operation", "result"), OPERATIONS)
def test_single_operations(document: object, operation: object, result: object) -> None:
    text = patched(json.dumps(document).encode(), operation)
    assert json.loads(text) == result
    if isinstance(result, dict):
        assert list(json.loads(text)) == list(result)


CONFLICTS = [
    ({"a": 1}, {"op": "remove", "path": "/b"}),
    ({"a": 1}, {"op": "replace", "path": "/b", "value": 1}),
    ({"a": 1}, {"op": "add", "path": "/a/b", "value": 1}),
    ({"a": 1}, {"op": "copy", "from": "/b", "path": "/c"}),
    ({"a": 1}, {"op": "move", "from": "/b", "path": "/c"}),
    ({"a": 1}, {"op": "move", "from": "/b", "path": "/b"}),
    ([1], {"op": "remove", "path": "/1"}),
    ([1], {"op": "remove", "path": "/-"}),
    ([1], {"op": "replace", "path": "/-", "value": 1}),
    ([1], {"op": "add", "path": "/2", "value": 1}),
    ([1], {"op": "add", "path": "/a", "value": 1}),
    ([1], {"op": "add", "path": "/", "value": 1}),
    ([1, 2], {"op": "remove", "path": "/01"}),
    ([1, 2], {"op": "remove", "path": "/-1"}),
    ([1, 2], {"op": "remove", "path": "/+1"}),
    ([1, 2], {"op": "remove", "path": "/1.0"}),
    ([1, 2], {"op": "remove", "path": "/\u0661"}),
    ([1, 2], {"op": "remove", "path": "/" + "9" * 5000}),
    (7, {"op": "add", "path": "/a", "value": 1}),
    ("abc", {"op": "remove", "path": "/0"}),
]


@pytest.mark.parametrize(("document", "operation"), CONFLICTS)
def test_paths_that_do_not_exist_are_conflicts(document: object, operation: object) -> None:
    with pytest.raises(Conflict) as caught:
        patched(json.dumps(document).encode(), {"op": "test", "path": "", "value": document}, operation)
    assert caught.value.code == "patch_conflict"
    assert caught.value.detail.endswith("operation=1")


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b'{"op":"add"}', b"1", b"[1]", b"[[]]", b'[{"path":""}]', b'[{"op":"add","path":"/a"}]',
        b'[{"op":"jump","path":"/a"}]', b'[{"op":1,"path":"/a"}]', b'[{"op":"remove","path":"a"}]',
        b'[{"op":"remove"}]', b'[{"op":"remove","path":null}]', b'[{"op":"remove","path":"/~2"}]',
        b'[{"op":"remove","path":"/~"}]', b'[{"op":"remove","path":""}]', b'[{"op":"copy","path":"/a"}]',
        b'[{"op":"move","path":"/a/b","from":"/a"}]', b'[{"op":"move","path":"/a","from":""}]',
        b'[{"op":"test","path":"/a","value":NaN}]', b'[{"op":"add","path":"/\\ud800","value":1}]',
        b"[" * 200 + b"]" * 200, b"\xef\xbb\xbf[]", b"[] []", b'[{"op":"ADD","path":"/a","value":1}]',
    ],
)  # fmt: skip
def test_what_is_no_json_patch_is_refused_before_it_meets_a_document(text: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        parse_patch(text, PatchKind.JSON)
    assert caught.value.code == "bad_patch"


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"a":NaN}', b"\xff", b"{} {}", b'{"a":' * 200 + b"1" + b"}" * 200]
)
def test_what_is_no_merge_patch_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        parse_patch(text, PatchKind.MERGE)
    assert caught.value.code == "bad_patch"


def test_an_unknown_kind_is_refused() -> None:
    for kind in (0, 3):
        with pytest.raises(Invalid) as caught:
            parse_patch(b"[]", kind)
        assert caught.value.code == "bad_patch"


EXACT = (
    b'{"a": {"x" : 0.10, "big":123456789012345678901234567890, "e":1E5}, "n":-0.0, '
    b'"s":"\\u00fc\\/", "l":[1.0 ,2]}'
)


def test_what_is_not_touched_keeps_its_bytes() -> None:
    for text in (
        merged(EXACT, b'{"new":1.50,"n":null,"l":7}'),
        patched(EXACT, {"op": "remove", "path": "/n"}, {"op": "replace", "path": "/l", "value": 7}),
    ):
        assert b'"a":{"x" : 0.10, "big":123456789012345678901234567890, "e":1E5}' in text
        assert b'"s":"\\u00fc\\/"' in text
        assert b'"l":7' in text and b"-0.0" not in text
    assert merged(EXACT, b'{"a":{"x":null}}').startswith(
        b'{"a":{"big":123456789012345678901234567890,"e":1E5},"n":-0.0'
    )
    assert (
        parse_patch(b'[{"op":"add","path":"/l/0","value":1.500}]', PatchKind.JSON)
        .apply(EXACT, BYTES_MAX)
        .endswith(b'"l":[1.500,1.0,2]}')
    )
    moved = patched(
        EXACT, {"op": "move", "from": "/a/e", "path": "/e"}, {"op": "copy", "from": "/a/x", "path": "/x"}
    )
    assert moved.endswith(b'"l":[1.0 ,2],"e":1E5,"x":0.10}')


@pytest.mark.parametrize(
    ("present", "wanted", "equal"),
    [
        ("1", "1.0", True), ("1e2", "100", True), ("0.1", "0.10", True), ("-0", "0", True),
        ("0.1", "0.10000000000000000001", False), ("9007199254740993", "9007199254740992", False),
        ("9007199254740993.0", "9007199254740993", True), ("1", "true", False), ("[1]", "[true]", False),
        ('{"a":0}', '{"a":false}', False), ("null", "false", False), ('"1"', "1", False),
        ('{"a":1,"b":2}', '{"b":2,"a":1}', True), ("[1,2]", "[2,1]", False), ('"\\u0061"', '"a"', True),
        ('{"a":1}', '{"a":1,"b":1}', False), ("[1]", "[1,1]", False), ("{}", "[]", False),
        ('{"a":{"b":[true,{"c":null}]}}', '{ "a": {"b": [true, {"c": null}]}}', True),
    ],
)  # fmt: skip
def test_values_are_compared_as_json(present: str, wanted: str, equal: bool) -> None:
    patch = parse_patch(b'[{"op":"test","path":"/v","value":' + wanted.encode() + b"}]", PatchKind.JSON)
    document = b'{"v":' + present.encode() + b"}"
    if equal:
        patch.apply(document, BYTES_MAX)
    else:
        with pytest.raises(Conflict) as caught:
            patch.apply(document, BYTES_MAX)
        assert caught.value.code == "patch_test_failed"


def test_a_test_of_what_is_missing_fails() -> None:
    with pytest.raises(Conflict) as caught:
        patched(b"{}", {"op": "test", "path": "/a", "value": None})
    assert caught.value.code == "patch_test_failed"


# Bounds


def refusal(document: bytes, *operations: object, bytes_max: int = BYTES_MAX) -> DeltaError:
    with pytest.raises(DeltaError) as caught:
        patched(document, *operations, bytes_max=bytes_max)
    return caught.value


def test_doubling_by_copies_ends_early() -> None:
    double = [{"op": "copy", "from": "/a", "path": f"/a/{n}"} for n in range(60)]
    assert isinstance(refusal(b'{"a":{"x":"0123456789"}}', *double), TooLarge)


def test_a_document_may_not_grow_beyond_its_limit_but_shrink_from_beyond_it() -> None:
    assert isinstance(
        refusal(b'{"a":1}', {"op": "add", "path": "/b", "value": "x" * 90}, bytes_max=90), TooLarge
    )
    with pytest.raises(TooLarge):
        merged(b'{"a":1}', b'{"b":"' + b"x" * 90 + b'"}', 90)
    assert merged(b'{"a":1,"b":"' + b"x" * 90 + b'"}', b'{"a":null}', 50).startswith(b'{"b":')


def test_many_operations_are_refused() -> None:
    test = {"op": "test", "path": "/a", "value": 1}
    patched(b'{"a":1}', *[test] * limits.PATCH_OPERATIONS_MAX)
    assert isinstance(refusal(b'{"a":1}', *[test] * (limits.PATCH_OPERATIONS_MAX + 1)), TooLarge)


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("op", ["add", "replace"])
def test_depth_is_bounded(op: str) -> None:
    document = b'{"a":{"b":{"c":{"d":1}}}}'
    deepest = nested(limits.JSON_DEPTH_MAX - 4)
    patched(document, {"op": op, "path": "/a/b/c/d", "value": deepest})
    assert refusal(document, {"op": op, "path": "/a/b/c/d", "value": [deepest]}).code == "too_deep"


@pytest.mark.parametrize("op", ["copy", "move"])
def test_depth_cannot_be_reached_in_steps(op: str) -> None:
    half = nested(100)
    document = json.dumps({"a": half, "b": nested(60)}).encode()
    steps = [{"op": op, "from": "/a", "path": "/b" + "/0" * 50}]
    assert refusal(document, *steps).code == "too_deep"


def test_work_is_bounded() -> None:
    """Each operation alone is fine; together they would read gigabytes."""
    document = b'{"a":[' + b"1," * 300_000 + b'1],"b":0}'
    there_and_back = [
        {"op": "move", "from": "/a", "path": "/c"},
        {"op": "add", "path": "/c/-", "value": 1},
        {"op": "move", "from": "/c", "path": "/a"},
        {"op": "add", "path": "/a/-", "value": 1},
    ]
    patched(document, *there_and_back)
    assert refusal(document, *there_and_back * 200).code == "too_complex"
    compare = {"op": "test", "path": "/a", "value": [1.0] * 1000}
    assert (
        refusal(document, *[{"op": "test", "path": "/b", "value": 0}] * 10, compare).code
        == "patch_test_failed"
    )


def test_no_error_quotes_the_document_or_the_patch() -> None:
    secret = "s3cr3t"
    document = json.dumps({secret: {secret: 1}}).encode()
    for operation in (
        {"op": "test", "path": f"/{secret}", "value": secret},
        {"op": "remove", "path": f"/{secret}/x{secret}"},
        {"op": secret, "path": "/a"},
        {"op": "add", "path": secret, "value": 1},
    ):
        assert secret not in refusal(document, operation).detail


@pytest.mark.parametrize("tiny", ["1e-99999999999999999999", "0e-99999999999999999999"])
def test_a_number_too_small_to_be_compared_is_refused(tiny):
    patch = f'[{{"op": "test", "path": "/a", "value": {tiny}}}]'.encode()
    with pytest.raises(Invalid) as caught:
        parse_patch(patch, PatchKind.JSON).apply(b'{"a": 1}', BYTES_MAX)
    assert caught.value.code == "too_complex"
    # What is not compared is copied as it is.
    assert (
        patched(f'{{"a": {tiny}, "b": 1}}'.encode(), {"op": "remove", "path": "/b"})
        == f'{{"a":{tiny}}}'.encode()
    )
