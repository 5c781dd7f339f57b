from __future__ import annotations

from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.client import calls
from deltadatabase.client.options import checked_url
from deltadatabase.client.requests import conditions, idempotency, segment, version_of, with_query
from deltadatabase.errors import Invalid

HTTP = httpx.Client(base_url="http://h")
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(KEYS)
def test_a_key_is_one_segment_that_nobody_changes_on_the_way(key):
    escaped = segment(key, "key")
    assert unquote(escaped) == key
    assert "/" not in escaped and escaped.isascii() and escaped.strip(".")
    path = calls.entity_path("notes", key)
    assert HTTP.build_request("GET", path).url.raw_path == path.encode()


@pytest.mark.parametrize("name", ["", "\ud800"])
def test_a_name_that_no_path_can_hold_is_refused(name):
    with pytest.raises(Invalid) as caught:
        calls.get("notes", name)
    assert caught.value.code == "bad_name"


def test_queries_leave_out_what_is_not_given():
    assert with_query("/x", after=None, prefix="a&b=ü", limit=3) == "/x?prefix=a%26b%3D%C3%BC&limit=3"
    assert with_query("/x", after=None) == "/x"


def test_conditions_are_lists_of_etags():
    assert conditions('"1-a"', "*") == {"if-match": '"1-a"', "if-none-match": "*"}
    assert conditions(['"1-a"', '"2-b"']) == {"if-match": '"1-a", "2-b"'}


@pytest.mark.parametrize("tag", ["1-a", "", '"a"\r\nx: y', '"a', [], ['"a"', "b"], '"ü"'])
def test_what_is_no_etag_never_becomes_a_header(tag):
    with pytest.raises(Invalid) as caught:
        conditions(tag)
    assert caught.value.code == "bad_etag"


@pytest.mark.parametrize("key", ["", "a" * 254, 'a"b', "a b", "a\n", "ü"])
def test_what_is_no_idempotency_key_never_becomes_a_header(key):
    with pytest.raises(Invalid):
        idempotency(key)


@pytest.mark.parametrize(("etag", "version"), [('"17-0123abcd"', 17), ("", 0), ('"x"', 0)])
def test_the_version_is_in_the_etag(etag, version):
    assert version_of(etag) == version


@pytest.mark.parametrize(
    "url", ["", "db:8080", "ftp://h", "http://", "http://u:hunter2@h", "http://h?x=1", "http://h:99999"]
)
def test_what_is_no_url_of_a_server_is_refused_and_not_repeated(url):
    with pytest.raises(Invalid) as caught:
        checked_url(url)
    assert caught.value.code == "bad_url"
    assert "hunter2" not in str(caught.value)
