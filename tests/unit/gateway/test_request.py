from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.errors import Denied, Invalid, TooLarge
from deltadatabase.gateway.request import (
    Head,
    check_local,
    choice,
    decode_path,
    etags,
    examine,
    is_loopback,
    number,
    parameters,
    query_values,
    request_id_of,
    switch,
)

Fields = list[tuple[bytes, bytes]]


def head_of(*headers: tuple[bytes, bytes], path: bytes = b"/x", query: bytes = b"") -> Head:
    return examine({"method": "PUT", "raw_path": path, "query_string": query, "headers": list(headers)})


@given(st.text().filter(lambda text: "\0" not in text))
def test_any_quoted_text_comes_back(text: str) -> None:
    assert decode_path(quote(text).encode()) == text
    query = f"a=1&key={quote_plus(text)}&key2=x"
    assert query_values(query.encode(), "key") == [text]


@pytest.mark.parametrize(
    "raw", [b"/%ff", b"/%c3%28", b"/%ed%a0%80", b"/a%00b", b"/%", b"/%4", b"/%zz", b"/\xff"]
)
def test_a_path_that_is_not_text_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        decode_path(raw)
    assert caught.value.code == "bad_path"


@pytest.mark.parametrize("query", [b"key=%ff", b"key=%00", b"key=%zz", b"%ff=1&key=a", b"other=%ff"])
def test_a_query_that_is_not_text_is_refused(query: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        query_values(query, "key")
    assert caught.value.code == "bad_query"


def test_query_values_come_in_order_and_names_are_decoded() -> None:
    assert query_values(b"key=a&x=y&k%65y=b+c&key", "key") == ["a", "b c", ""]
    assert query_values(b"", "key") == []


def test_only_known_parameters_are_taken() -> None:
    given = parameters(b"c%61t=a+b&dog=%2B&", "cat", "dog")
    assert given == {"cat": "a b", "dog": "+"}
    assert choice(given, "cat", ("a b",), "x") == "a b"
    assert choice(given, "cow", ("a b",), "x") == "x"
    assert [number({"n": "7"}, name, 1, 0, 9) for name in ("n", "m")] == [7, 1]
    assert [switch({"n": "true", "m": "false"}, name) for name in "nmx"] == [True, False, False]


@pytest.mark.parametrize("query", [b"cats=1", b"cat=1&c%61t=1", b"=1", b"cat=%ff", b"CAT=1"])
def test_other_parameters_are_refused_without_a_word_of_them(query: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        parameters(query, "cat")
    assert caught.value.code == "bad_query"
    assert "cats" not in caught.value.detail


def test_a_body_is_announced_by_length_or_by_chunks() -> None:
    assert not head_of().has_body
    assert not head_of((b"content-length", b"0")).has_body
    declared = head_of((b"content-length", b"12"))
    assert (declared.has_body, declared.content_length) == (True, 12)
    chunked = head_of((b"transfer-encoding", b"chunked"))
    assert (chunked.has_body, chunked.content_length) == (True, None)


@pytest.mark.parametrize("length", [b"-1", b"+1", b"1.5", b"", b"1, 1", b"\xb2", b"9" * 30])
def test_a_length_that_is_not_a_number_is_refused(length: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        head_of((b"content-length", length))
    assert caught.value.code == "bad_framing"


def test_two_framings_of_one_body_are_refused() -> None:
    with pytest.raises(Invalid) as caught:
        head_of((b"content-length", b"3"), (b"transfer-encoding", b"chunked"))
    assert caught.value.code == "bad_framing"


@pytest.mark.parametrize("name", [b"host", b"authorization", b"content-length", b"origin"])
def test_a_header_that_decides_something_stands_only_once(name: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        head_of((name, b"1"), (name, b"2"))
    assert caught.value.code == "bad_header"


def test_other_repeated_headers_are_joined() -> None:
    assert head_of((b"if-none-match", b'"a"'), (b"if-none-match", b'"b"')).fields == {
        b"if-none-match": b'"a", "b"'
    }


def test_large_headers_are_refused() -> None:
    assert head_of((b"x", b"y" * 15_000)).path == "/x"
    for oversized in (
        {"headers": ((b"x", b"y" * 17_000),)},
        {"headers": ((b"x", b"y" * 100),) * 200},
        {"headers": (), "query": b"q" * 17_000},
        {"headers": (), "path": b"/" + b"p" * 17_000},
    ):
        with pytest.raises(TooLarge) as caught:
            head_of(*oversized.pop("headers"), **oversized)
        assert caught.value.code == "headers_too_large"


def test_the_request_id_of_the_client_is_kept_when_sane() -> None:
    def of(value: bytes) -> str:
        return request_id_of([(b"host", b"x"), (b"x-request-id", value)], lambda: "made")

    assert of(b"abc-1") == "abc-1"
    assert of(b"a" * 128) == "a" * 128
    for bad in (b"", b"a" * 129, b"a b", b"a\tb", b"\xff", b"a\r\nset-cookie: x"):
        assert of(bad) == "made"
    assert request_id_of([], lambda: "made") == "made"


def test_etags_are_listed_without_their_weakness() -> None:
    assert etags(None) is None
    assert etags(b'"1-a"') == ('"1-a"',)
    assert etags(b'W/"1-a" , "2,b","c"') == ('"1-a"', '"2,b"', '"c"')
    assert etags(b" * ") == ("*",)
    assert etags(b"nonsense") is None


@pytest.mark.parametrize(
    "authority",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.8.9.1",
        "[::1]",
        "[::1]:8080",
    ],
)
def test_loopback_names(authority: str) -> None:
    assert is_loopback(authority)


@pytest.mark.parametrize(
    "authority",
    [
        "",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.nip.io",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "[::ffff:8.8.8.8]",
        "a@localhost",
        "localhost:80:80",
        "localhost\0",
    ],
)
def test_other_names_are_foreign(authority: str) -> None:
    assert not is_loopback(authority)


@pytest.mark.parametrize("origin", [b"http://localhost:3000", b"http://127.0.0.1:8080", b"https://[::1]"])
def test_local_pages_may_ask(origin: bytes) -> None:
    check_local({b"host": b"localhost:8080"})
    check_local({b"host": b"localhost:8080", b"origin": origin})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {b"host": b"rebound.example.com"},
        {b"host": b"localhost", b"origin": b"http://evil.example"},
        {b"host": b"localhost", b"origin": b"null"},
        {b"host": b"localhost", b"origin": b""},
        {b"host": b"localhost", b"origin": b"http://[bad"},
        {b"host": b"localhost", b"origin": b"http://localhost@evil.example"},
    ],
)
def test_foreign_pages_may_not(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(Denied):
        check_local(fields)
