from __future__ import annotations

import dataclasses
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.client.documents import decode, encode
from deltadatabase.errors import Invalid

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


class Note(msgspec.Struct):
    text: str
    stars: float | None = None


@dataclasses.dataclass
class Plain:
    weight: float


@given(VALUES)
def test_every_json_value_survives(value):
    assert decode(encode(value), Any) == value
    assert json.loads(encode(value)) == value


def test_types_are_written_and_read():
    note = Note("hello", 4.5)
    assert decode(encode(note), Note) == note
    assert encode(Plain(1.5)) == b'{"weight":1.5}'


def test_bytes_are_json_text_as_it_is():
    assert encode(b' {"a": 0.10}\n') == b' {"a": 0.10}\n'
    assert decode(b' {"a": 0.10}\n', bytes) == b' {"a": 0.10}\n'


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        {"a": [1, float("-inf")], "b": None},
        Note("x", float("nan")),
        Plain(float("inf")),
        "\ud800hunter2",
        object(),
    ],
)
def test_what_json_cannot_say_is_refused_and_not_changed(value):
    with pytest.raises(Invalid) as caught:
        encode(value)
    assert caught.value.code == "not_json"
    assert "hunter2" not in str(caught.value)


def test_a_document_that_holds_itself_is_refused():
    value: list[Any] = []
    value.append(value)
    with pytest.raises(Invalid):
        encode(value)


def test_null_and_numbers_are_fine_together():
    assert encode({"a": None, "b": 1.5}) == b'{"a":null,"b":1.5}'


@pytest.mark.parametrize("text", [b'{"text": 1}', b"{", b"\xff", b"1e400"])
def test_a_document_of_another_type_is_told_and_not_repeated(text):
    with pytest.raises(Invalid) as caught:
        decode(text, Note)
    assert caught.value.code == "unreadable"
