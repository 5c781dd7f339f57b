from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase import errors
from deltadatabase.errors import Invalid
from deltadatabase.gateway.entity import check_entity_key, entity_key, worker_timing
from deltadatabase.model import Result
from unit.gateway.rest_fakes import Client, FakeDatabase

DOCUMENT = b'{"b": 1,  "a":"\xc3\xa9"}'


async def test_a_document_comes_back_byte_for_byte(client: Client) -> None:
    stored = await client("PUT", "/entity/chat.v1", b'{"k": ' + DOCUMENT + b', "_index": []}')
    assert stored.status == 200
    assert stored.json() == {"status": "ok", "versions": {"k": 1, "_index": 1}}
    reply = await client("GET", "/entity/chat.v1?key=k")
    assert (reply.status, reply.body) == (200, DOCUMENT)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["etag"] == '"1-aa"'
    assert reply.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["server-timing"].endswith(", store;dur=1.250")


async def test_a_current_etag_gives_304(client: Client) -> None:
    await client("PUT", "/entity/chat", b'{"k": 1}')
    for value in ('"1-aa"', 'W/"1-aa"', '"0", "1-aa"', "*"):
        reply = await client("GET", "/entity/chat?key=k", headers=[("if-none-match", value)])
        assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", '"1-aa"')
        assert "content-length" not in reply.headers
    for value in ('"2-aa"', "1-aa", ""):
        assert (await client("GET", "/entity/chat?key=k", headers=[("if-none-match", value)])).status == 200


async def test_head_tells_the_length(client: Client) -> None:
    await client("PUT", "/entity/chat", b'{"k": [1, 2]}')
    reply = await client("HEAD", "/entity/chat?key=k")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "6")


async def test_delete_succeeds_for_an_absent_key_too(client: Client) -> None:
    await client("PUT", "/entity/chat", b'{"k": 1}')
    for _ in range(2):
        reply = await client("DELETE", "/entity/chat?key=k")
        assert (reply.status, reply.json()) == (200, {"status": "ok"})
    assert (await client("GET", "/entity/chat?key=k")).json()["error"] == "not_found"


@pytest.mark.parametrize(
    "key", ["user:42", "a_b", "two words", "ключ", "😀", "50%", "a+b", "a&b=c", "#", "?", "."]
)
async def test_keys_of_every_kind(client: Client, key: str) -> None:
    assert (await client("PUT", "/entity/chat", msgspec.json.encode({key: 1}))).status == 200
    assert (await client("GET", "/entity/chat?" + urlencode({"key": key}))).body == b"1"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "missing_key"),
        ("?", "missing_key"),
        ("?other=1", "missing_key"),
        ("?key=", "invalid_key"),
        ("?key", "invalid_key"),
        ("?key=a&key=a", "repeated_key"),
        ("?key=a%2Fb", "invalid_key"),
        ("?key=a/b", "invalid_key"),
        ("?key=a%5Cb", "invalid_key"),
        ("?key=a..b", "invalid_key"),
        ("?key=%2e%2e", "invalid_key"),
        ("?key=%00", "bad_query"),
        ("?key=%0a", "invalid_key"),
        ("?key=%ff", "bad_query"),
        ("?key=%zz", "bad_query"),
        ("?key=" + "a" * 241, "invalid_key"),
    ],
)
async def test_a_key_that_is_no_key_is_400(client: Client, query: str, code: str) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        reply = await client(method, "/entity/chat" + query)
        assert reply.status == 400
        if method != "HEAD":
            assert reply.json()["error"] == code


async def test_parameters_of_no_meaning_are_ignored(client: Client) -> None:
    await client("PUT", "/entity/chat?trace=1", b'{"k": 1}')
    assert (await client("GET", "/entity/chat?cache=0&key=k&x")).body == b"1"


@pytest.mark.parametrize(
    "schema_id", ["_a", ".a", "a..b", "a%2Fb", "a/b", "a%20b", "%C3%A9", "a" * 101, "a%0a", "a/"]
)
async def test_a_schema_id_that_is_none_is_400_before_the_body_is_looked_at(
    client: Client, schema_id: str
) -> None:
    for method, query, body in (
        ("GET", "?key=a", None),
        ("DELETE", "?key=a", None),
        ("PUT", "", b"nonsense"),
    ):
        reply = await client(method, f"/entity/{schema_id}{query}", body)
        assert (reply.status, reply.json()["error"]) == (400, "invalid_schema_id")


@pytest.mark.parametrize("path", ["/entity", "/entity/", "/entityx/chat"])
async def test_no_schema_id_is_404(client: Client, path: str) -> None:
    assert (await client("GET", path + "?key=a")).status == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b"{}", 400, "no_documents"),
        (b"[]", 400, "not_an_object"),
        (b"null", 400, "not_an_object"),
        (b'{"a": 1} x', 400, "malformed_json"),
        (b'{"a": NaN}', 400, "malformed_json"),
        (b'{"a": "\xff"}', 400, "malformed_json"),
        (b'\xef\xbb\xbf{"a": 1}', 400, "malformed_json"),
        (b'{"a/b": 1}', 400, "invalid_key"),
        (b'{"": 1}', 400, "invalid_key"),
        (b'{"a\\u0000": 1}', 400, "invalid_key"),
        (b'{"\\ud800": 1}', 400, "malformed_json"),
        (b'{"ok": 1, "..": 1}', 400, "invalid_key"),
        (b'{"ok": 1, "a": ' + b"[" * 300 + b"]" * 300 + b"}", 400, "malformed_json"),
        (b'{"a": "' + b"x" * 1000 + b'"}', 413, "too_large"),
    ],
)
async def test_a_body_that_is_no_set_of_documents_writes_nothing(
    client: Client, database: FakeDatabase, body: bytes, status: int, code: str
) -> None:
    reply = await client("PUT", "/entity/chat", body)
    assert (reply.status, reply.json()["error"]) == (status, code)
    assert database.documents == {}


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "nonsense", None]
)
async def test_any_content_type_will_do(client: Client, content_type: str | None) -> None:
    headers = [] if content_type is None else [("content-type", content_type)]
    assert (await client("PUT", "/entity/chat", [b'{"k"', b": 1}"], headers=headers)).status == 200


@pytest.mark.parametrize("method", ["POST", "PATCH", "OPTIONS", "TRACE", "put", "X"])
async def test_other_methods_are_405(client: Client, method: str) -> None:
    reply = await client(method, "/entity/chat?key=a", key=None)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, PUT, DELETE")


@pytest.mark.parametrize("target", ["/entity/chat?key=a", "/entity/_bad_", "/entity/chat"])
async def test_credentials_come_first(client: Client, target: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        for key in (None, "wrong"):
            reply = await client(method, target, b"x" * 2000 if method == "PUT" else None, key=key)
            assert (reply.status, reply.json()["error"]) == (401, "unauthenticated")


async def test_each_right_is_needed(client: Client) -> None:
    async def key(**body: Any) -> str:
        created = await client("POST", "/api/keys", msgspec.json.encode({"name": "n", **body}))
        secret: str = created.json()["secret"]
        return secret

    reader = await key(permissions=["read"])
    writer = await key(permissions=["write"])
    chats = await key(permissions=["read", "write"], schemas=["chat.*"])

    async def statuses(key: str, schema_id: str) -> list[int]:
        target = f"/entity/{schema_id}"
        return [
            (await client("PUT", target, b'{"k":1}', key=key)).status,
            (await client("GET", target + "?key=k", key=key)).status,
            (await client("DELETE", target + "?key=k", key=key)).status,
        ]

    await client("PUT", "/entity/chat.v1", b'{"k":1}')
    assert await statuses(reader, "chat.v1") == [403, 200, 403]
    assert await statuses(writer, "chat.v1") == [200, 403, 200]
    assert await statuses(chats, "chat.v1") == [200, 200, 200]
    assert await statuses(chats, "users") == [403, 403, 403]


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (errors.Unavailable("no worker", code="no_worker"), 503),
        (errors.Overloaded("full"), 503),
        (errors.OutcomeUnknown("maybe"), 504),
        (errors.StoreFull("full"), 507),
        (errors.Corrupt("damaged"), 500),
    ],
)
async def test_failures_below_keep_their_kind(
    client: Client, database: FakeDatabase, failure: errors.DeltaError, status: int
) -> None:
    database.failure = failure
    for method, query, body in (("GET", "?key=a", None), ("DELETE", "?key=a", None), ("PUT", "", b'{"a":1}')):
        reply = await client(method, "/entity/chat" + query, body)
        assert (reply.status, reply.json()["error"]) == (status, failure.code)
        assert ("retry-after" in reply.headers) == (status == 503)


async def test_the_request_id_goes_down_with_the_request(client: Client, database: FakeDatabase) -> None:
    await client("PUT", "/entity/chat", b'{"k":1}')
    await client("GET", "/entity/chat?key=k", headers=[("x-request-id", "mine")])
    assert database.request_ids == ["mine"]


@given(st.text(max_size=20))
def test_no_key_that_is_served_could_be_a_path(key: str) -> None:
    try:
        assert check_entity_key(key) == key
    except Invalid as error:
        assert error.code == "invalid_key"
    else:
        assert not {"/", "\\", "\0"} & set(key)
        assert ".." not in key


def test_a_plus_is_a_space_as_in_forms() -> None:
    assert entity_key(b"key=a+b%2B") == "a b+"


def test_timing_names_only_what_took_time() -> None:
    assert worker_timing(Result()) == ()
    result = Result(queue_us=1, validate_us=20, seal_us=300, store_us=4000)
    assert worker_timing(result) == (("queue", 1), ("validate", 20), ("seal", 300), ("store", 4000))
