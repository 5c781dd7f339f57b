"""Object names: injective, parsed back, inside their folder, for every key."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deltadatabase import limits
from deltadatabase.errors import Invalid
from deltadatabase.storage.paths import (
    CLUSTER,
    DATABASE_PATH,
    FILES,
    PRESENCE,
    PROBE,
    QUARANTINE,
    TEMPLATES,
    check_key,
    check_schema_id,
    entity_path,
    escape_key,
    is_leaf_folder,
    meta_path,
    parse_entity_path,
    parse_meta_path,
    parse_presence_path,
    parse_quarantine_path,
    parse_template_path,
    presence_path,
    quarantine_path,
    schema_folder,
    template_path,
    unescape_key,
)

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,12}", fullmatch=True).filter(lambda text: ".." not in text)
# Pieces of which names could be forged are as likely as arbitrary text.
pieces = st.sampled_from(
    [".json.enc", ".meta.json", ".json", "/", "..", ".", "=", "=2E", "=2F", "%2F", "\\", "_", "-", "a", "A"]
)
keys = (
    st.lists(
        st.one_of(pieces, st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=4)),
        min_size=1,
        max_size=6,
    )
    .map("".join)
    .filter(bool)
)
anything = st.text(st.characters(), max_size=30)


@given(ids, keys, ids, keys)
@example("a", "b.json.enc", "a", "b")
@example("a", "b", "a", "b.meta.json")
@example("a_b", "c", "a", "b_c")
@example("a", "=2F", "a", "/")
def test_no_two_objects_share_a_path(schema: str, key: str, other_schema: str, other_key: str) -> None:
    mine = {entity_path(schema, key), meta_path(schema, key)}
    others = {entity_path(other_schema, other_key), meta_path(other_schema, other_key)}
    assert len(mine) == 2
    if (schema, key) == (other_schema, other_key):
        assert mine == others
    else:
        assert not mine & others
    assert not (mine | others) & {template_path(schema), template_path(other_schema), DATABASE_PATH}


@given(ids, keys)
def test_a_path_is_parsed_back_and_stays_in_its_folder(schema: str, key: str) -> None:
    path = entity_path(schema, key)
    assert path.isascii()
    assert re.fullmatch(r"[A-Za-z0-9_.=/-]+", path)
    assert path.startswith(schema_folder(schema))
    parts = PurePosixPath(path).parts
    assert len(parts) == 3
    assert not any(part.startswith(".") for part in parts)
    meta = meta_path(schema, key)
    assert parse_meta_path(path) is None
    assert parse_entity_path(meta) is None
    assert parse_template_path(path) is None
    try:
        check_key(key)
    except Invalid:
        assert parse_entity_path(path) is None
    else:
        assert parse_entity_path(path) == (schema, key)
        assert parse_meta_path(meta) == (schema, key)
        assert len(parts[-1]) <= limits.FILE_NAME_BYTES_MAX


@given(ids)
def test_a_template_path_is_parsed_back(schema: str) -> None:
    path = template_path(schema)
    assert parse_template_path(path) == schema
    assert parse_entity_path(path) is None
    assert PurePosixPath(path).parts == ("templates", f"{schema}.json")


@given(keys)
def test_escaping_is_undone(key: str) -> None:
    assert unescape_key(escape_key(key)) == key


@given(keys, keys)
def test_a_beginning_stays_a_beginning(beginning: str, rest: str) -> None:
    assert escape_key(beginning + rest).startswith(escape_key(beginning))


@given(st.text(st.sampled_from("=0123456789ABCDEFabcdef.-_xyz"), max_size=12))
@example("=41")
@example("=c3=a9")
@example("=C3")
@example(".a")
@example("=00")
@example("")
def test_only_one_spelling_is_read_as_a_key(escaped: str) -> None:
    try:
        key = unescape_key(escaped)
    except Invalid as exc:
        assert exc.code == "invalid_key"
    else:
        assert escape_key(key) == escaped


@given(anything)
def test_whatever_is_listed_is_either_ours_or_none(path: str) -> None:
    for name in (
        path,
        FILES + path,
        TEMPLATES + path,
        f"{FILES}s/{path}.json.enc",
        f"{TEMPLATES}{path}.json",
    ):
        entity = parse_entity_path(name)
        assert entity is None or entity_path(*entity) == name
        template = parse_template_path(name)
        assert template is None or template_path(template) == name


@given(anything)
def test_a_key_is_checked_by_its_stored_size_and_characters(text: str) -> None:
    try:
        encoded = text.encode()
        good = (
            len(text) > 0
            and len(escape_key(text)) <= limits.KEY_ESCAPED_BYTES_MAX
            and not any(byte < 0x20 or byte == 0x7F for byte in encoded)
            and not any(0x80 <= ord(char) <= 0x9F for char in text)
        )
    except UnicodeEncodeError:
        good = False
    try:
        assert check_key(text) == text
        assert good
    except Invalid as exc:
        assert not good
        assert exc.code == "invalid_key"


@pytest.mark.parametrize(
    "key", ["x" * 240, "é" * 40, "a/b", "..", ".", "user:42", "a b", "😀", "a_b", "=", "%"]
)
def test_keys_that_are_accepted(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 241, "é" * 41, "a\0", "\n", "\x7f", "\x85", "\ud800", "a\tb"])
def test_keys_that_are_refused(key: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_key(key)
    assert caught.value.code == "invalid_key"


@pytest.mark.parametrize("text", ["a", "0", "A.b", "chat.v1", "a_b-c", "x" * 100, "a."])
def test_schema_ids_that_are_accepted(text: str) -> None:
    assert check_schema_id(text) == text


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", ".a", "_a", "-a", "a..b", "a/b", "a\\b", "x" * 101, "a\n", "é", "٣", "a b", "a\0", "a%"],
)
def test_schema_ids_that_are_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_schema_id(text)
    assert caught.value.code == "invalid_schema_id"


@pytest.mark.parametrize("prefix", [schema_folder("a"), TEMPLATES, PROBE])
def test_folders_without_folders(prefix: str) -> None:
    assert is_leaf_folder(prefix)


@pytest.mark.parametrize("prefix", ["", FILES, CLUSTER, "files/a/b/", "cluster/x/", "files/a"])
def test_folders_that_may_hold_folders(prefix: str) -> None:
    assert not is_leaf_folder(prefix)


@given(ids, keys)
@example("a", "k" * 240)
def test_a_quarantined_object_keeps_its_name_and_has_room_for_it(schema: str, key: str) -> None:
    if len(escape_key(key)) > limits.KEY_ESCAPED_BYTES_MAX:
        return
    path = quarantine_path(schema, key, "0" * 32)
    assert parse_quarantine_path(path) == (schema, key)
    assert parse_entity_path(path) is None and path.startswith(QUARANTINE)
    assert max(map(len, path.split("/"))) <= limits.FILE_NAME_BYTES_MAX
    assert is_leaf_folder(path.rpartition("/")[0] + "/")
    other = quarantine_path(schema, key, "1" * 32)
    assert other != path and parse_quarantine_path(other) == (schema, key)


@given(anything)
@example("quarantine/a/b.json.enc/")
@example("files/a/b.json.enc")
@example("quarantine/stray")
def test_what_is_not_quarantined_is_not_taken_for_it(path: str) -> None:
    name = parse_quarantine_path(path)
    assert name is None or path.startswith(quarantine_path(*name, ""))


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}", fullmatch=True))
def test_a_mark_names_its_worker(worker_id: str) -> None:
    path = presence_path(worker_id)
    assert parse_presence_path(path) == worker_id and path.startswith(PRESENCE)
    assert len(path) - len(PRESENCE) <= limits.FILE_NAME_BYTES_MAX
    assert is_leaf_folder(PRESENCE) and parse_presence_path("cluster/" + worker_id) is None
