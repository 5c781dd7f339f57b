"""The JSON check, case by case."""

from __future__ import annotations

import pytest

from deltadatabase.errors import Invalid
from deltadatabase.schema.document import check_document, split_documents


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"\xef\xbb\xbf{}", "byte order mark byte=0"),
        (b'{"a":1} x', "byte=8"),
        (b"{}\x00", "byte=2"),
        (b'"\x00"', "byte=1"),
        (b"[NaN]", "byte=1"),
        (b"Infinity", "byte=0"),
        (b"[1,]", "byte=3"),
        (b"01", "byte=1"),
        (b"1e999", "out of range"),
        (b"[-1e999]", "out of range"),
        (b"9" * 5000, "out of range"),
        (b'"ab\xffcd"', "invalid utf-8 byte=3"),
        (b'["ok", "\xed\xa0\x80"]', "invalid utf-8 byte=8"),
        (b'"\xc0\x80"', "invalid utf-8"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\udc00 "', "surrogate"),
        (b'"\\ud800\\u0041"', "surrogate"),
        (b'{"\\ud800":1}', "surrogate"),
        (b'"secret', "too early"),
        (b'{"secret"', "too early"),
        (b"tru", "too early"),
        (b"\xff\xfe1\x00", "byte=0"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_its_place(text: bytes, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_document(text)
    assert caught.value.code == "malformed_json"
    assert said in caught.value.detail
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"-0", 0),
        (b"18446744073709551616", 2**64),
        (b"1e-999", 0.0),
        (b'"\\u0000"', "\x00"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b" [ ] \n", []),
    ],
)
def test_strict_json_is_decoded(text: bytes, value: object) -> None:
    assert check_document(text) == value


def test_brackets_in_strings_do_not_nest() -> None:
    assert check_document(b'["' + b"[{" * 500 + b'"]') == ["[{" * 500]
    assert check_document(b'["\\"' + b"[" * 500 + b'\\\\"]') == ['"' + "[" * 500 + "\\"]


def test_closing_brackets_in_strings_do_not_hide_nesting() -> None:
    with pytest.raises(Invalid, match="nested too deeply"):
        check_document(b'["]",' * 5000 + b"1" + b"]" * 5000)
    with pytest.raises(Invalid, match="nested too deeply"):
        check_document(b'["\\"]",' * 5000 + b"1" + b"]" * 5000)


def test_many_shallow_brackets_are_fine() -> None:
    assert check_document(b"[" + b",".join([b"[{}]"] * 5000) + b"]") == [[{}]] * 5000


def test_a_body_is_split_into_exact_bytes() -> None:
    body = b'{ "a" : {"x": [1,  2]} ,\n"b":"\\u00e9", "a" : 1.0 }'
    assert split_documents(body) == {"a": b"1.0", "b": b'"\\u00e9"'}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "no_documents"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'"a"', "not_an_object"),
        (b"", "malformed_json"),
        (b'{"a":1', "malformed_json"),
        (b'{"a":1}}', "malformed_json"),
        (b'{"\xff":1}', "malformed_json"),
        (b'{"a":[}', "malformed_json"),
    ],
)
def test_a_body_without_documents_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        split_documents(body)
    assert caught.value.code == code


def test_a_member_with_invalid_utf8_is_found_by_its_own_check() -> None:
    document = split_documents(b'{"a":"\xff"}')["a"]
    with pytest.raises(Invalid, match="utf-8 byte=1"):
        check_document(document)
