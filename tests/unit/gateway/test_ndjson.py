import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.errors import Invalid, TooLarge
from deltadatabase.gateway.ndjson import Line, LineSplitter, line_bytes_max, parse_line, render_line
from deltadatabase.schema.document import check_document


def split(*chunks: bytes, limit: int = 100) -> list[Line]:
    splitter = LineSplitter(limit)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return [*lines, *splitter.end()]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b"a\nb\n", [(1, b"a"), (2, b"b")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"\n\r\n  \na\n\n", [(4, b"a")]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", [(1, b"a"), (2, b"\xef\xbb\xbfb")]),
        (b"\xef\xbb\xbf\na\n", [(2, b"a")]),
        (b"a\x00b\xff\n", [(1, b"a\x00b\xff")]),
        (b"a\rb\x0bc\xc2\x85d\xe2\x80\xa8e\n", [(1, b"a\rb\x0bc\xc2\x85d\xe2\x80\xa8e")]),
    ],
)
def test_lines_are_those_between_line_feeds(text: bytes, lines: list[tuple[int, bytes]]) -> None:
    assert split(text) == [Line(*line) for line in lines]
    assert split(*(text[at : at + 1] for at in range(len(text)))) == [Line(*line) for line in lines]


def test_a_long_line_is_passed_over_and_not_kept() -> None:
    splitter = LineSplitter(10)
    assert list(splitter.feed(b"ok\n" + b"x" * 8)) == [Line(1, b"ok")]
    for _ in range(1000):
        assert list(splitter.feed(b"x" * 1000)) == []
        assert len(splitter._begun) <= 10
    assert list(splitter.feed(b"\nfine\n")) == [Line(2, None), Line(3, b"fine")]
    assert split(b"x" * 11, limit=10) == [Line(1, None)]
    assert split(b"x" * 10, limit=10) == [Line(1, b"x" * 10)]


@given(st.lists(st.binary(max_size=30), max_size=20), st.integers(1, 20))
def test_pieces_make_no_difference(chunks: list[bytes], limit: int) -> None:
    assert split(*chunks, limit=limit) == split(b"".join(chunks), limit=limit)


def test_a_line_keeps_its_document_byte_for_byte() -> None:
    assert parse_line(b'{"key": "a", "document" : {"x":  1.0, "x": 1e2} }', 100) == (
        "a",
        b'{"x":  1.0, "x": 1e2}',
    )
    assert parse_line(b'{"document":null,"key":"\\u00e9/\\""}', 100) == ('é/"', b"null")


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b"1", b'{"key":"a"}', b'{"document":1}', b'{"key":1,"document":1}',
        b'{"key":"a","document":1',
        b'{"key":"a","document":1}}', b'{"key":"a","document":1}{}', b'{"key":"a","document":}', b"\xff",
        b'{"key":"\xff","document":1}', b'{"key":"a","document":1,"secret name":2}', b"\xef\xbb\xbf{}",
        b'{"key":"a","document":' + b"[" * 100_000, b'{"key":"\\ud800","document":1}',
    ],
)  # fmt: skip
def test_what_is_no_line_is_refused_without_a_word_of_it(line: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        parse_line(line, 1_000_000)
    assert caught.value.code in ("malformed_line", "invalid_key")
    assert "secret" not in caught.value.detail


def test_keys_and_sizes_are_checked() -> None:
    with pytest.raises(Invalid, match="control"):
        parse_line(b'{"key":"a\\u0000","document":1}', 10)
    with pytest.raises(Invalid, match="240"):
        parse_line(b'{"key":"%s","document":1}' % (b"a" * 241), 10)
    with pytest.raises(TooLarge):
        parse_line(b'{"key":"a","document":"123456789"}', 10)
    assert parse_line(b'{"key":"a","document":"12345678"}', 10)[1] == b'"12345678"'


@pytest.mark.parametrize(
    "document",
    [
        b"{}", b'{\n  "a": 1,\r\n  "b": [\r]\n}', b'\n{"a":1}\n', b' {"a":1}', b"\t1\t", b'"\\n\xe2\x80\xa8"',
        b'{"a":1 ,  "a":2}', b"-0.0e10",
    ],
)  # fmt: skip
def test_any_document_goes_out_and_comes_back(document: bytes) -> None:
    line = render_line('é "\\/', document)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line)["document"] == json.loads(document)
    assert parse_line(line[:-1], 1000) == ('é "\\/', document)


def test_who_changes_a_document_need_not_know_of_its_text() -> None:
    line = json.loads(render_line("a", b'{\n"x":1}'))
    assert line == {"key": "a", "document": {"x": 1}, "text": '{\n"x":1}'}
    line["document"]["x"] = 2
    assert parse_line(json.dumps(line).encode(), 100) == ("a", b'{"x": 2}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab\n"\\'), inner, max_size=4),
    max_leaves=10,
)


@given(
    json_values, st.sampled_from([None, 1, "\t"]), st.sampled_from(["", "\n", " ", "\r\n "]), st.booleans()
)
def test_every_document_survives_and_fits(
    value: object, indent: object, around: str, ascii_only: bool
) -> None:
    document = (around + json.dumps(value, indent=indent, ensure_ascii=ascii_only) + around).encode()  # type: ignore[arg-type]
    check_document(document)
    line = render_line("k", document)
    assert parse_line(line.rstrip(b"\n"), len(document)) == ("k", document)
    assert len(line) <= line_bytes_max(len(document))
