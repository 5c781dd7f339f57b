import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltadatabase import limits
from deltadatabase.errors import Invalid, UnsupportedMediaType, VersionMismatch
from deltadatabase.gateway.conditions import (
    ANY,
    Conditions,
    check_document_type,
    check_read,
    conditions_of,
    idempotency_key,
    patch_kind,
    preference,
    write_conditions_of,
)
from deltadatabase.model import PatchKind, Result

TAG = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters='"\x7f'), max_size=9)
unhurried = settings(deadline=None)
READ = Result(version=3, etag='"3-aa"', updated_ms=1_700_000_000_999, document=b"1")


@pytest.mark.parametrize(
    ("value", "wanted", "unwanted"),
    [
        (b"*", ANY, ANY),
        (b" * ", ANY, ANY),
        (b'"a"', ('"a"',), ('"a"',)),
        (b'"a", W/"b"', ('"a"',), ('"a"', '"b"')),
        (b'W/"b"', (), ('"b"',)),
        (b',, "a" ,\t"b",', ('"a"', '"b"'), ('"a"', '"b"')),
        (b'"*"', ('"*"',), ('"*"',)),
        (b'""', ('""',), ('""',)),
        (b'"a,b"', ('"a,b"',), ('"a,b"',)),
        (b'"\xfc"', ('"ü"',), ('"ü"',)),
    ],
)
def test_lists_of_etags(value, wanted, unwanted):
    assert conditions_of({b"if-match": value}) == Conditions(if_match=wanted)
    assert conditions_of({b"if-none-match": value}) == Conditions(if_none_match=unwanted)


@pytest.mark.parametrize(
    "value",
    [
        b"", b" ", b",", b"a", b'"a', b'a"', b'"a" "b"', b'"a"b', b'*, "a"', b'"a", *', b"**", b"W/",
        b'w/"a"', b"W/*", b'W/ "a"', b'"a b"', b'"\x7f"', b'"a"; "b"', b"'a'",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", [b"if-match", b"if-none-match"])
def test_what_is_no_list_of_etags_is_refused(name, value):
    with pytest.raises(Invalid) as caught:
        conditions_of({name: value})
    assert caught.value.code == "bad_header"


def test_etags_are_counted():
    most = b", ".join([b'"a"'] * limits.CONDITION_TAGS_MAX)
    conditions_of({b"if-match": most})
    with pytest.raises(Invalid, match="more than 100"):
        conditions_of({b"if-match": most + b',W/"b"'})


@unhurried
@given(st.lists(st.tuples(st.booleans(), TAG), min_size=1, max_size=20), st.sampled_from([",", ", ", " ,\t"]))
def test_every_list_of_tags_is_read(tags, between):
    value = between.join(f'{"W/" * weak}"{tag}"' for weak, tag in tags).encode("latin-1")
    assert conditions_of({b"if-none-match": value}).if_none_match == tuple(f'"{tag}"' for _, tag in tags)
    assert conditions_of({b"if-match": value}).if_match == tuple(f'"{tag}"' for weak, tag in tags if not weak)


@unhurried
@given(st.binary(max_size=60))
def test_no_bytes_are_read_as_more_than_they_say(value):
    try:
        tags = conditions_of({b"if-match": value}).if_match
    except Invalid:
        return
    assert tags is not None
    if tags != ANY:
        assert all(tag.encode("latin-1") in value for tag in tags)


@pytest.mark.parametrize(
    ("conditions", "etag", "holds"),
    [
        (Conditions(), "", True),
        (Conditions(if_match=ANY), "", False),
        (Conditions(if_match=ANY), '"1"', True),
        (Conditions(if_match=()), '"1"', False),
        (Conditions(if_match=('"1"', '"2"')), '"2"', True),
        (Conditions(if_match=('"1"',)), '"2"', False),
        (Conditions(if_none_match=ANY), "", True),
        (Conditions(if_none_match=ANY), '"1"', False),
        (Conditions(if_none_match=('"1"',)), '"1"', False),
        (Conditions(if_none_match=('"1"',)), '"2"', True),
        (Conditions(if_match=ANY, if_none_match=('"1"',)), '"1"', False),
    ],
)
def test_conditions_hold(conditions, etag, holds):
    assert conditions.hold(etag) is holds


def test_a_date_cannot_protect_a_write():
    date = b"Tue, 14 Nov 2023 22:13:20 GMT"
    with pytest.raises(Invalid, match="If-Match"):
        write_conditions_of({b"if-unmodified-since": date})
    assert write_conditions_of({b"if-unmodified-since": date, b"if-match": b"*"}).if_match == ANY


@pytest.mark.parametrize(
    ("value", "not_modified"),
    [
        (b"Tue, 14 Nov 2023 22:13:20 GMT", True),
        (b"Tuesday, 14-Nov-23 22:13:20 GMT", True),
        (b"Tue Nov 14 22:13:20 2023", True),
        (b"Wed, 15 Nov 2023 22:13:20 GMT", True),
        (b"Tue, 14 Nov 2023 22:13:19 GMT", False),
        (b"", False),
        (b"yesterday", False),
        (b"Tue, 99 Nov 2023 22:13:20 GMT", False),
        (b"Tue, 14 Nov 99999 22:13:20 GMT", False),
        (b"Tue, \xff", False),
        (b"1700000000", False),
    ],
)
def test_if_modified_since(value, not_modified):
    result = check_read({b"if-modified-since": value}, Conditions(), READ)
    assert result.not_modified is not_modified
    assert result.document == (b"" if not_modified else b"1")
    # An ETag is the better condition, and stands alone.
    assert check_read({b"if-modified-since": value}, Conditions(if_none_match=('"2"',)), READ) == READ


def test_reads_with_if_match_and_if_unmodified_since():
    old = {b"if-unmodified-since": b"Tue, 14 Nov 2023 22:13:19 GMT"}
    with pytest.raises(VersionMismatch) as caught:
        check_read(old, Conditions(), READ)
    assert caught.value.etag == '"3-aa"'
    assert check_read(old, Conditions(if_match=('"3-aa"',)), READ) == READ
    with pytest.raises(VersionMismatch):
        check_read({}, Conditions(if_match=('"2-aa"',)), READ)


@pytest.mark.parametrize(
    "value",
    [
        None, b"application/json", b"APPLICATION/JSON", b"application/json; charset=utf-8",
        b'application/json;charset="UTF-8"', b"application/ld+json", b"application/json;profile=x",
    ],
)  # fmt: skip
def test_content_types_of_a_document(value):
    check_document_type({} if value is None else {b"content-type": value})


@pytest.mark.parametrize(
    "value",
    [
        b"", b"text/plain", b"application/x-www-form-urlencoded", b"application/xml", b"json",
        b"application/", b"application/json; charset=latin1", b"application/merge-patch+json",
        b"application/json-patch+json",
        b"text/json", b"application/json, text/plain", b"application/json charset=utf-8", b"text/x+json",
        b"application/json\x00",
    ],
)  # fmt: skip
def test_other_content_types_are_refused(value):
    with pytest.raises(UnsupportedMediaType):
        check_document_type({b"content-type": value})


def test_content_types_of_a_patch():
    assert patch_kind({b"content-type": b"application/merge-patch+json"}) is PatchKind.MERGE
    assert patch_kind({b"content-type": b"Application/JSON-Patch+json ; charset=UTF-8"}) is PatchKind.JSON
    for fields in ({}, {b"content-type": b"application/json"}, {b"content-type": b""}):
        with pytest.raises(UnsupportedMediaType):
            patch_kind(fields)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"return=minimal", "minimal"),
        (b'wait=1, return="representation" ; foo', "representation"),
        (b"return=else", ""),
        (b"respond-async", ""),
        (b"", ""),
    ],
)
def test_preferences(value, wanted):
    assert preference({b"prefer": value}) == wanted


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"abc", b"abc"),
        (b'"abc"', b"abc"),
        (b'"a\\"\\\\b"', b'a"\\b'),
        (b"8e03978e-40d5-43dd-bc93-6894a57f9324", b"8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (b"k" * 255, b"k" * 255),
        (b'"' + b"k" * 255 + b'"', b"k" * 255),
    ],
)
def test_idempotency_keys(value, key):
    assert idempotency_key({b"idempotency-key": value}) == key


@pytest.mark.parametrize(
    "value",
    [
        b"", b'""', b'"', b'"a', b'a"', b"a b", b'"a b"', b"a, b", b"a,b", b'"a"; x=1', b'"a\\b"', b"\xff",
        b"k" * 256, b'"' + b"k" * 256 + b'"', b"a\tb", b'"a", "b"',
    ],
)  # fmt: skip
def test_what_is_no_idempotency_key_is_refused(value):
    with pytest.raises(Invalid) as caught:
        idempotency_key({b"idempotency-key": value})
    assert caught.value.code == "bad_header"
