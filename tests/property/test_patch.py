"""Properties of patches: they do what a simple reading of the RFCs does, and nothing to all else."""

from __future__ import annotations

import contextlib
import copy
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from deltadatabase.errors import Conflict, DeltaError, Invalid, TooLarge
from deltadatabase.model import PatchKind
from deltadatabase.schema.document import check_document
from deltadatabase.schema.patch import parse_patch

unhurried = settings(deadline=None)

BYTES_MAX = 1 << 16
NAMES = st.sampled_from(["a", "b", "", "0", "1", "-", "~", "/", "a/b", "~1", "ü"])
LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, 0.5, "", "a", 10**25])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
# Pieces of text that a patch which does not touch them must give back as they are.
SPELLINGS = st.sampled_from(
    [
        "0.10",
        "1E2",
        "-0.0",
        "123456789012345678901234567890",
        '"\\u00fc\\/"',
        "[ 1.0 , {} ]",
        '{ "x" : 1e-7 }',
    ]
)
STEP = NAMES | st.sampled_from(["2", "01", "99"])


def pointer(steps: tuple[str, ...]) -> str:
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def operation(op: str, path: tuple[str, ...], source: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {"op": op, "path": pointer(path), "from": pointer(source), "value": value}


def places(value: Any, here: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The steps to each value in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for name, item in inner for place in places(item, (*here, str(name))))]


@st.composite
def documents_and_operations(draw: st.DrawFn) -> tuple[Any, list[dict[str, Any]]]:
    """Most paths lead to something in the document, or to a place where something may be added."""
    document = draw(VALUES)
    there = st.sampled_from(places(document))
    steps = there | st.builds(lambda place, step: (*place, step), there, STEP)
    ops = st.sampled_from(["add", "remove", "replace", "move", "copy", "test"])
    operations = draw(st.lists(st.builds(operation, ops, steps, there, VALUES), max_size=5))
    for member in operations:
        if member["op"] == "test" and draw(st.booleans()):
            with contextlib.suppress(Refused):
                member["value"] = found(document, steps_of(member["path"]))
    return document, operations


def text_of(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def merge_of_the_rfc(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, word by word."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge_of_the_rfc(target.get(name), value)
    return target


class Refused(Exception):
    pass


def steps_of(text: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def child(value: Any, step: str) -> Any:
    if isinstance(value, dict) and step in value:
        return value[step]
    if isinstance(value, list) and step in map(str, range(len(value))):
        return value[int(step)]
    raise Refused


def found(document: Any, steps: list[str]) -> Any:
    for step in steps:
        document = child(document, step)
    return document


def added(document: Any, steps: list[str], value: Any) -> Any:
    if not steps:
        return value
    parent, last = found(document, steps[:-1]), steps[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list) and last in (*map(str, range(len(parent) + 1)), "-"):
        parent.insert(len(parent) if last == "-" else int(last), value)
    else:
        raise Refused
    return document


def removed(document: Any, steps: list[str]) -> Any:
    if not steps:
        raise Refused
    parent = found(document, steps[:-1])
    child(parent, steps[-1])
    del parent[steps[-1] if isinstance(parent, dict) else int(steps[-1])]
    return document


def patch_of_the_rfc(document: Any, operations: list[dict[str, Any]]) -> Any:
    """RFC 6902, section 4, on decoded values."""
    document = copy.deepcopy(document)
    for member in operations:
        path, source, value = (
            steps_of(member["path"]),
            steps_of(member["from"]),
            copy.deepcopy(member["value"]),
        )
        match member["op"]:
            case "add":
                document = added(document, path, value)
            case "remove":
                document = removed(document, path)
            case "replace":
                found(document, path)
                document = value if not path else replaced(document, path, value)
            case "move":
                value = found(document, source)
                if source == path[: len(source)] and source != path:
                    raise Refused
                if source != path:
                    document = added(removed(document, source), path, value)
            case "copy":
                document = added(document, path, copy.deepcopy(found(document, source)))
            case "test":
                if not same(found(document, path), value):
                    raise Refused
    return document


def replaced(document: Any, steps: list[str], value: Any) -> Any:
    parent = found(document, steps[:-1])
    parent[steps[-1] if isinstance(parent, dict) else int(steps[-1])] = value
    return document


def same(one: Any, other: Any) -> bool:
    """Equality that tells ``true`` from 1."""
    return json.dumps(canonical(one), sort_keys=True) == json.dumps(canonical(other), sort_keys=True)


def canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: canonical(item) for name, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@unhurried
@given(VALUES, VALUES)
def test_a_merge_does_what_the_rfc_says(document: Any, patch: Any) -> None:
    result = parse_patch(text_of(patch), PatchKind.MERGE).apply(text_of(document), BYTES_MAX)
    expected = merge_of_the_rfc(document, patch)
    assert json.loads(result) == expected
    assert same(check_document(result), expected)
    # Twice is once.
    assert json.loads(parse_patch(text_of(patch), PatchKind.MERGE).apply(result, BYTES_MAX)) == expected


@settings(deadline=None, max_examples=250)
@given(documents_and_operations())
@example(([2], [operation("add", ("0",), (), 1)]))
@example(([1, True], [operation("test", ("0",), (), True)]))
@example(({"a": [0]}, [operation("move", ("a", "-"), ("a", "0"), None)]))
def test_a_json_patch_does_what_the_rfc_says(pair: tuple[Any, list[dict[str, Any]]]) -> None:
    document, operations = pair
    try:
        expected = patch_of_the_rfc(document, operations)
    except Refused:
        expected = Refused
    try:
        result = parse_patch(text_of(operations), PatchKind.JSON).apply(text_of(document), BYTES_MAX)
    except (Conflict, Invalid):
        # What no document could take is refused before the first operation is done.
        assert expected is Refused or any(
            member["op"] == "remove" and not member["path"] for member in operations
        )
        return
    assert same(json.loads(result), expected)
    assert list(map(str, members(json.loads(result)))) == list(map(str, members(expected)))


def members(value: Any) -> list[Any]:
    """All names, in their order."""
    if isinstance(value, dict):
        return [part for name, item in value.items() for part in (name, *members(item))]
    if isinstance(value, list):
        return [part for item in value for part in members(item)]
    return []


@unhurried
@given(st.dictionaries(NAMES, SPELLINGS, min_size=1), st.data())
def test_what_is_not_touched_keeps_its_bytes(texts: dict[str, str], data: st.DataObject) -> None:
    document = "{" + ", ".join(f"{json.dumps(name)} : {text}" for name, text in texts.items()) + "}"
    name = data.draw(st.sampled_from(sorted(texts)))
    kept = {other: text for other, text in texts.items() if other != name}
    expected = (
        "{"
        + ",".join(f"{json.dumps(other, ensure_ascii=False)}:{text}" for other, text in kept.items())
        + "}"
    )
    for patch, kind in (
        (text_of({name: None}), PatchKind.MERGE),
        (text_of([{"op": "remove", "path": pointer((name,))}]), PatchKind.JSON),
    ):
        assert parse_patch(patch, kind).apply(document.encode(), BYTES_MAX).decode() == expected


@unhurried
@given(
    st.binary(max_size=200)
    | VALUES.map(text_of)
    | documents_and_operations().map(lambda pair: text_of(pair[1])),
    st.sampled_from(PatchKind),
    VALUES,
)
def test_any_patch_is_applied_or_refused(patch: bytes, kind: PatchKind, document: Any) -> None:
    text = text_of(document)
    try:
        result = parse_patch(patch, kind).apply(text, 200)
    except DeltaError as exc:
        assert isinstance(exc, Invalid | Conflict | TooLarge)
        return
    check_document(result)
    assert len(result) <= max(200, len(text))
