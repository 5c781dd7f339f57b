"""``GET /entities/{schema_id}``, and counts, through the whole application."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.errors import Corrupt, Invalid, Unavailable
from deltadatabase.gateway.counting import counted
from deltadatabase.gateway.listing import name_of, token_of, wanted_of
from deltadatabase.limits import LISTED_DOCUMENTS_BYTES_MAX, LISTING_ROUNDS_MAX
from deltadatabase.storage.paths import escape_key
from unit.gateway.rest_fakes import Client, FakeDatabase

KEYS = ("a", "a-b", "a.b", "a/b", ".x", "é ü", "user:42", "zz")


def fill(database: FakeDatabase, *keys: str, document: bytes = b'{"n": 1}') -> None:
    for key in keys:
        database.documents["s", key] = (3, document)


def order_of(keys: tuple[str, ...]) -> list[str]:
    return sorted(keys, key=lambda key: escape_key(key) + ".json.enc")


async def test_a_page_says_key_size_and_time(client: Client, database: FakeDatabase) -> None:
    fill(database, "a", "b")
    reply = await client("GET", "/entities/s")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == {
        "items": [{"key": key, "size": 108, "updated_at": "2023-11-14T22:13:20.000Z"} for key in ("a", "b")],
        "next": None,
    }
    assert "link" not in reply.headers
    assert (await client("GET", "/entities/nobody")).json() == {"items": [], "next": None}


@pytest.mark.parametrize("limit", [1, 3, 8, 1000])
async def test_links_lead_through_the_whole_list(client: Client, database: FakeDatabase, limit: int) -> None:
    fill(database, *KEYS)
    target, keys = f"/entities/s?limit={limit}", []
    while True:
        reply = await client("GET", target)
        keys += [item["key"] for item in reply.json()["items"]]
        if reply.json()["next"] is None:
            break
        assert reply.headers["link"].endswith('>; rel="next"')
        target = reply.headers["link"][1:].partition(">")[0]
        assert quote(reply.json()["next"]) in target
    assert keys == order_of(KEYS)


async def test_a_prefix_is_kept_by_links(client: Client, database: FakeDatabase) -> None:
    fill(database, *KEYS, "é a", "é b")
    target, keys = f"/entities/s?limit=1&include=meta&prefix={quote('é ')}", []
    while target:
        reply = await client("GET", target)
        keys += [item["key"] for item in reply.json()["items"]]
        assert all("etag" in item for item in reply.json()["items"])
        target = reply.headers.get("link", "")[1:].partition(">")[0]
    assert keys == order_of(("é a", "é b", "é ü"))


async def test_more_is_included_on_request(client: Client, database: FakeDatabase) -> None:
    fill(database, "a", document=b'{"as": "it was  sent"}')
    (meta,) = (await client("GET", "/entities/s?include=meta")).json()["items"]
    assert (meta["version"], meta["etag"]) == (3, '"3-aa"')
    assert "document" not in meta
    reply = await client("GET", "/entities/s?include=document")
    assert b'"document":{"as": "it was  sent"}' in reply.body
    (item,) = reply.json()["items"]
    assert (item["version"], item["etag"]) == (3, '"3-aa"')


async def test_what_was_deleted_meanwhile_is_left_out(client: Client, database: FakeDatabase) -> None:
    fill(database, "a", "b", "c")
    listed = database.list

    async def then_delete(schema_id: str, **options: object) -> object:
        page = await listed(schema_id, **options)  # type: ignore[arg-type]
        database.documents.pop(("s", "b"), None)
        return page

    database.list = then_delete  # type: ignore[method-assign, assignment]
    try:
        reply = await client("GET", "/entities/s?include=document")
    finally:
        del database.list  # type: ignore[method-assign]
    assert [item["key"] for item in reply.json()["items"]] == ["a", "c"]


async def test_documents_on_a_page_are_bounded(client: Client, database: FakeDatabase) -> None:
    large = b'"' + b"x" * (LISTED_DOCUMENTS_BYTES_MAX // 3) + b'"'
    fill(database, *"abcdef", document=large)
    target, sizes = "/entities/s?include=document", []
    while target:
        reply = await client("GET", target)
        sizes.append(len(reply.json()["items"]))
        assert len(reply.body) < LISTED_DOCUMENTS_BYTES_MAX + 10_000
        target = reply.headers.get("link", "")[1:].partition(">")[0]
    assert sizes == [2, 2, 2]
    fill(database, "a", document=b'"' + b"x" * 2 * LISTED_DOCUMENTS_BYTES_MAX + b'"')
    assert len((await client("GET", "/entities/s?include=document")).json()["items"]) == 1


async def test_a_page_is_filled_from_short_ones_a_few_times(client: Client, database: FakeDatabase) -> None:
    fill(database, *map(str, range(10, 40)))
    database.page_max = 3
    reply = await client("GET", "/entities/s?limit=7")
    assert len(reply.json()["items"]) == 7
    database.pages = 0
    reply = await client("GET", "/entities/s")
    assert len(reply.json()["items"]) == 3 * LISTING_ROUNDS_MAX
    assert database.pages == LISTING_ROUNDS_MAX
    assert reply.json()["next"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "bad_query"),
        ("limit=1001", "bad_query"),
        ("limit=-1", "bad_query"),
        ("limit=", "bad_query"),
        ("limit=1e2", "bad_query"),
        ("limit=%D9%A1", "bad_query"),
        ("limit=" + "9" * 5000, "bad_query"),
        ("limit=1&limit=2", "bad_query"),
        ("include=all", "bad_query"),
        ("prefx=a", "bad_query"),
        ("key=a", "bad_query"),
        ("include=meta&include=meta", "bad_query"),
        ("prefix=" + "x" * 241, "bad_query"),
        ("prefix=%ff", "bad_query"),
        ("prefix=%00", "bad_query"),
        ("after=x", "bad_token"),
        ("after=%00", "bad_query"),
        ("after=" + "A" * 9000, "bad_token"),
        ("after=" + token_of("s", "p", "a"), "bad_token"),
        ("after=" + token_of("t", "", "a"), "bad_token"),
        ("after=" + token_of("s", "", "a=41"), "bad_token"),
        ("after=" + token_of("s", "", ".."), "bad_token"),
        ("after=" + token_of("s", "", "a") + "=", "bad_token"),
    ],
)
async def test_bad_parameters_are_refused(client: Client, query: str, code: str) -> None:
    reply = await client("GET", f"/entities/s?{query}")
    assert (reply.status, reply.json()["error"]) == (400, code)


@given(
    st.one_of(
        st.text(max_size=40), st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
    )
)
def test_no_token_does_more_than_be_refused(token: str) -> None:
    wanted = wanted_of("s", b"")
    with pytest.raises(Invalid) as caught:
        name_of(wanted, token)
    assert caught.value.code == "bad_token"


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_a_token_leads_back_to_its_name(key: str) -> None:
    wanted = wanted_of("s", b"prefix=a")
    name = escape_key(key)
    assert name_of(wanted, token_of("s", "a", name)) == name


async def test_who_may_not_read_the_schema_gets_no_list(client: Client, database: FakeDatabase) -> None:
    fill(database, "a")
    assert (await client("GET", "/entities/s", key=None)).status == 401
    made = await client("POST", "/api/keys", b'{"name":"w","permissions":["write"]}')
    assert (await client("GET", "/entities/s", key=made.json()["secret"])).status == 403
    body = json.dumps({"name": "r", "permissions": ["read"], "schemas": ["s*"]}).encode()
    reader = (await client("POST", "/api/keys", body)).json()["secret"]
    assert (await client("GET", "/entities/s", key=reader)).status == 200
    assert (await client("GET", "/entities/t", key=reader)).status == 403


async def test_other_paths_and_methods(client: Client, database: FakeDatabase) -> None:
    fill(database, "a")
    for method in ("PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        reply = await client(method, "/entities/s")
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert (await client("GET", "/entities/")).status == 404
    assert (await client("GET", "/entities/..")).status == 400
    head = await client("HEAD", "/entities/s")
    assert (head.status, head.body) == (200, b"")


async def test_failures_are_told(client: Client, database: FakeDatabase) -> None:
    fill(database, "a")
    database.failure = Unavailable("no worker has joined", code="no_worker")
    reply = await client("GET", "/entities/s")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    database.failure = None

    async def damaged(*_: object, **__: object) -> None:
        raise Corrupt("the stored entity fails its integrity check")

    database.get = damaged  # type: ignore[method-assign, assignment]
    try:
        reply = await client("GET", "/entities/s?include=document")
    finally:
        del database.get  # type: ignore[method-assign]
    assert (reply.status, reply.json()["error"]) == (500, "integrity")


async def test_schemas_are_counted_on_request(client: Client, database: FakeDatabase) -> None:
    fill(database, *map(str, range(5)))
    database.documents["t", "a"] = (1, b"1")
    database.schemas["t"] = database.schemas["u"] = b"{}"
    database.page_max = 2
    assert (await client("GET", "/api/schemas")).json() == ["s", "t", "u"]
    assert (await client("GET", "/api/schemas?counts=false")).json() == ["s", "t", "u"]
    assert (await client("GET", "/api/schemas?counts=true")).json() == [
        {"schema_id": "s", "entities": 5, "complete": True, "schema": False},
        {"schema_id": "t", "entities": 1, "complete": True, "schema": True},
        {"schema_id": "u", "entities": 0, "complete": True, "schema": True},
    ]
    reply = await client("GET", "/api/schemas?counts=yes")
    assert (reply.status, reply.json()["error"]) == (400, "bad_query")


async def test_counting_ends_in_time_and_says_so(database: FakeDatabase) -> None:
    fill(database, *map(str, range(50)))
    database.page_max = 1
    (count,) = await counted(database, ["s"], [], time_s=0)
    assert not count.complete
    assert count.entities < 50
