from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from deltadatabase import errors
from deltadatabase.gateway.resources import names_of, path_of
from unit.gateway.rest_fakes import NOW_MS, Client, FakeDatabase

DOCUMENT = b' {"b": 1,  "a":"\xc3\xa9"}\n'
MERGE = ("content-type", "application/merge-patch+json")
PATCH = ("content-type", "application/json-patch+json")
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"


async def secret(client: Client, **body: Any) -> str:
    created = await client("POST", "/api/keys", msgspec.json.encode({"name": "n", **body}))
    made: str = created.json()["secret"]
    return made


async def test_a_document_comes_back_byte_for_byte(client: Client) -> None:
    stored = await client("PUT", "/entities/chat.v1/k", DOCUMENT)
    assert (stored.status, stored.json()) == (201, {"status": "ok", "version": 1, "etag": '"1-aa"'})
    assert stored.headers["location"] == "/entities/chat.v1/k"
    reply = await client("GET", "/entities/chat.v1/k")
    assert (reply.status, reply.body) == (200, DOCUMENT)
    for headers in (stored.headers, reply.headers):
        assert headers["etag"] == '"1-aa"'
        assert headers["last-modified"] == DATE
        assert headers["cache-control"] == "no-cache"
        assert headers["content-type"] == "application/json"
    again = await client(
        "PUT", "/entities/chat.v1/k", [b'"next', b'"'], headers=[("content-type", "application/json")]
    )
    assert (again.status, again.json()) == (200, {"status": "ok", "version": 2, "etag": '"2-aa"'})
    assert "location" not in again.headers
    assert (await client("GET", "/entity/chat.v1?key=k")).body == b'"next"'


async def test_head_tells_what_get_would(client: Client) -> None:
    await client("PUT", "/entities/chat/k", b"[1, 2]")
    reply = await client("HEAD", "/entities/chat/k")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "6")
    assert reply.headers["etag"] == '"1-aa"'
    assert (await client("HEAD", "/entities/chat/absent")).status == 404


async def test_delete(client: Client) -> None:
    await client("PUT", "/entities/chat/k", b"1")
    reply = await client("DELETE", "/entities/chat/k")
    assert (reply.status, reply.body) == (204, b"")
    assert not {"content-length", "content-type", "etag"} & set(reply.headers)
    for method in ("GET", "DELETE"):
        reply = await client(method, "/entities/chat/k")
        assert (reply.status, reply.json()["error"] in ("not_found", "entity_not_found")) == (404, True)


KEYS = (
    "user:42", "a/b", "/", "a//b", "..", ".", "../x", "a\\b", "ключ", "😀", "50%", "a+b", "a&b=c", "#", "?",
    " ", "a%2Fb",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
async def test_keys_of_every_kind(client: Client, database: FakeDatabase, key: str) -> None:
    stored = await client("PUT", "/entities/chat/" + quote(key, safe=""), b"1")
    assert stored.status == 201
    assert ("chat", key) in database.documents
    assert (await client("GET", stored.headers["location"])).body == b"1"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (b"/entities/s/k", ("s", "k")),
        (b"/entities/s/a/b", ("s", "a/b")),
        (b"/entities/s/a%2Fb", ("s", "a/b")),
        (b"/entities/s/a%252Fb", ("s", "a%2Fb")),
        (b"/entities/s/a/", ("s", "a/")),
        (b"/entities/s//", ("s", "/")),
        (b"/entities/s/../x", ("s", "../x")),
        (b"/%65ntities/s/k", ("s", "k")),
        (b"/entities/a%2Fb/k", ("a/b", "k")),
        (b"/entities/s", ("s", "")),
        (b"/entities/s/", ("s", "")),
        (b"/entities//k", ("", "k")),
        (b"/entities/", ("", "")),
        (b"/entities%2Fs%2Fk", ("", "")),
        (b"*", ("", "")),
    ],
)
def test_names_of_paths(path: bytes, names: tuple[str, str]) -> None:
    assert names_of(path) == names


@pytest.mark.parametrize("key", KEYS)
def test_a_path_leads_back_to_its_key(key: str) -> None:
    path = path_of("s", key)
    assert names_of(path.encode()) == ("s", key)
    assert "/../" not in path + "/" and "/./" not in path + "/"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/entities/_a/k", 400, "invalid_schema_id"),
        ("/entities/a%2Fb/k", 400, "invalid_schema_id"),
        ("/entities/a..b/k", 400, "invalid_schema_id"),
        ("/entities/s/%0a", 400, "invalid_key"),
        ("/entities/s/%00", 400, "bad_path"),
        ("/entities/s/%ff", 400, "bad_path"),
        ("/entities/s/%zz", 400, "bad_path"),
        ("/entities/s/" + "a" * 241, 400, "invalid_key"),
        ("/entities/s/k?if-match=*", 400, "bad_query"),
        ("/entities//k", 404, "no_route"),
        ("/entities%2Fs%2Fk", 404, "no_route"),
    ],
)
async def test_paths_that_name_no_entity(client: Client, path: str, status: int, code: str) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        reply = await client(method, path, b"nonsense" if method in ("PUT", "PATCH") else None)
        assert (reply.status, reply.json()["error"]) == (status, code)


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "TRACE", "put", "X"])
async def test_other_methods_are_405(client: Client, method: str) -> None:
    reply = await client(method, "/entities/chat/k", key=None)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, PUT, PATCH, DELETE")


# -- conditions


async def test_reads_with_conditions(client: Client) -> None:
    await client("PUT", "/entities/chat/k", b"1")
    later, earlier = (
        DATE.replace("2023", "2033").replace("Tue", "Mon"),
        DATE.replace("14", "13").replace("Tue", "Mon"),
    )
    for name, value, status in (
        ("if-none-match", '"1-aa"', 304),
        ("if-none-match", 'W/"1-aa"', 304),
        ("if-none-match", '"0", "1-aa"', 304),
        ("if-none-match", "*", 304),
        ("if-none-match", '"2-aa"', 200),
        ("if-modified-since", DATE, 304),
        ("if-modified-since", later, 304),
        ("if-modified-since", earlier, 200),
        ("if-modified-since", "nonsense", 200),
        ("if-match", '"1-aa"', 200),
        ("if-match", "*", 200),
        ("if-match", '"2-aa"', 412),
        ("if-match", 'W/"1-aa"', 412),
        ("if-unmodified-since", DATE, 200),
        ("if-unmodified-since", earlier, 412),
    ):
        for method in ("GET", "HEAD"):
            reply = await client(method, "/entities/chat/k", headers=[(name, value)])
            assert (reply.status, reply.headers["etag"]) == (status, '"1-aa"'), (name, value)
            if status == 304:
                assert reply.body == b"" and reply.headers["last-modified"] == DATE
                assert "content-length" not in reply.headers
        assert (await client("GET", "/entities/chat/absent", headers=[(name, value)])).status == 404
    both = [("if-none-match", '"2-aa"'), ("if-modified-since", DATE)]
    assert (await client("GET", "/entities/chat/k", headers=both)).status == 200


async def test_writes_with_conditions(client: Client, database: FakeDatabase) -> None:
    for headers, status in (
        ([("if-match", "*")], 412),
        ([("if-none-match", "*")], 201),
        ([("if-none-match", "*")], 412),
        ([("if-match", '"1-aa"')], 200),
        ([("if-match", '"1-aa"')], 412),
        ([("if-match", 'W/"2-aa"')], 412),
        ([("if-match", '"1-aa"'), ("if-match", '"2-aa"')], 200),
        ([("if-none-match", 'W/"3-aa"')], 412),
        ([("if-none-match", '"2-aa"')], 200),
    ):
        reply = await client("PUT", "/entities/chat/k", b"{}", headers=headers)
        assert reply.status == status, headers
        if status == 412 and ("chat", "k") in database.documents:
            version, _ = database.documents["chat", "k"]
            assert reply.headers["etag"] == f'"{version}-aa"'
    assert (
        await client("PATCH", "/entities/chat/k", b"{}", headers=[MERGE, ("if-match", '"1"')])
    ).status == 412
    assert (await client("DELETE", "/entities/chat/k", headers=[("if-match", '"1"')])).status == 412
    assert (await client("DELETE", "/entities/chat/k", headers=[("if-match", '"4-aa"')])).status == 204


async def test_conditions_on_what_is_absent(client: Client) -> None:
    for method, headers in (("PATCH", [MERGE]), ("DELETE", [])):
        for value in ("*", '"1-aa"'):
            reply = await client(method, "/entities/chat/k", b"{}", headers=[*headers, ("if-match", value)])
            assert (reply.status, reply.json()["error"]) == (404, "entity_not_found")


@pytest.mark.parametrize("name", ["if-match", "if-none-match"])
async def test_a_malformed_condition_is_refused_before_anything_is_written(
    client: Client, database: FakeDatabase, name: str
) -> None:
    for value in ("", "1-aa", '"1-aa', '*, "a"', ", ".join(['"a"'] * 101)):
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            headers = [(name, value), *([MERGE] if method == "PATCH" else [])]
            body = None if method in ("GET", "DELETE") else b"{}"
            reply = await client(method, "/entities/chat/k", body, headers=headers)
            assert (reply.status, reply.json()["error"]) == (400, "bad_header")
    reply = await client("PUT", "/entities/chat/k", b"1", headers=[("if-unmodified-since", DATE)])
    assert (reply.status, reply.json()["error"]) == (400, "bad_header")
    assert database.documents == {}


# -- bodies


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", MERGE[1], PATCH[1]]
)
async def test_other_content_types_are_415(client: Client, database: FakeDatabase, content_type: str) -> None:
    reply = await client("PUT", "/entities/chat/k", b"1", headers=[("content-type", content_type)])
    assert (reply.status, reply.json()["error"]) == (415, "unsupported_media_type")
    assert database.documents == {}


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain"])
async def test_a_patch_of_another_type_is_415_and_says_which(
    client: Client, content_type: str | None
) -> None:
    headers = [] if content_type is None else [("content-type", content_type)]
    reply = await client("PATCH", "/entities/chat/k", b"{}", headers=headers)
    assert (reply.status, reply.json()["error"]) == (415, "unsupported_media_type")
    assert reply.headers["accept-patch"] == "application/merge-patch+json, application/json-patch+json"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (None, 400, "malformed_json"),
        (b"", 400, "malformed_json"),
        (b"{", 400, "malformed_json"),
        (b"1 2", 400, "malformed_json"),
        (b'"' + b"x" * 1000 + b'"', 413, "too_large"),
    ],
)
async def test_a_body_that_is_no_document_writes_nothing(
    client: Client, database: FakeDatabase, body: bytes | None, status: int, code: str
) -> None:
    reply = await client("PUT", "/entities/chat/k", body)
    assert (reply.status, reply.json()["error"]) == (status, code)
    assert database.documents == {}


async def test_patches(client: Client) -> None:
    await client("PUT", "/entities/chat/k", b'{"a": 1, "b": 2}')
    merged = await client("PATCH", "/entities/chat/k", b'{"a": null, "c": 3}', headers=[MERGE])
    assert (merged.status, merged.json()) == (200, {"b": 2, "c": 3})
    assert merged.headers["etag"] == '"2-aa"' and merged.headers["last-modified"] == DATE
    added = b'[{"op": "test", "path": "/c", "value": 3}, {"op": "add", "path": "/d", "value": 4}]'
    reply = await client("PATCH", "/entities/chat/k", added, headers=[PATCH])
    assert (reply.status, reply.json()) == (200, {"b": 2, "c": 3, "d": 4})
    failed = await client("PATCH", "/entities/chat/k", added.replace(b"3", b"9"), headers=[PATCH])
    assert (failed.status, failed.json()["error"]) == (409, "patch_test_failed")
    absent = await client("PATCH", "/entities/chat/absent", b"{}", headers=[MERGE])
    assert (absent.status, absent.json()["error"]) == (404, "entity_not_found")


async def test_preferences(client: Client) -> None:
    minimal, whole = ("prefer", "return=minimal"), ("prefer", "return=representation")
    created = await client("PUT", "/entities/chat/k", b'{"a":1}', headers=[minimal])
    assert (created.status, created.body, created.headers["location"]) == (201, b"", "/entities/chat/k")
    for method, header in (("PUT", ("content-type", "application/json")), ("PATCH", MERGE)):
        reply = await client(method, "/entities/chat/k", b'{"a":1}', headers=[header, minimal])
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["preference-applied"] == "return=minimal" and reply.headers["etag"]
        reply = await client(method, "/entities/chat/k", b'{"a":1}', headers=[header, whole])
        assert (reply.status, reply.json()) == (200, {"a": 1})
        assert reply.headers["preference-applied"] == "return=representation"


# -- rights


async def test_credentials_come_first(client: Client) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        for key in (None, "wrong"):
            for target in ("/entities/chat/k", "/entities/_bad_/k", "/entities/chat/%0a"):
                reply = await client(method, target, b"x" * 2000 if method == "PUT" else None, key=key)
                assert (reply.status, reply.json()["error"]) == (401, "unauthenticated")


async def test_each_right_is_needed(client: Client) -> None:
    keys = {
        "read": await secret(client, permissions=["read"]),
        "write": await secret(client, permissions=["write"]),
        "both": await secret(client, permissions=["read", "write"], schemas=["chat.*"]),
    }

    async def statuses(key: str, schema_id: str) -> list[int]:
        path, used = f"/entities/{schema_id}/k", keys[key]
        return [
            (await client("PUT", path, b'{"a":1}', key=used)).status,
            (await client("GET", path, key=used)).status,
            (await client("PATCH", path, b"{}", key=used, headers=[MERGE])).status,
            (await client("PATCH", path, b"[]", key=used, headers=[PATCH])).status,
            (await client("DELETE", path, key=used)).status,
        ]

    await client("PUT", "/entities/chat.v1/k", b'{"a":0}')
    assert await statuses("read", "chat.v1") == [403, 200, 403, 403, 403]
    # Patches answer questions about the document, see below.
    assert await statuses("write", "chat.v1") == [200, 403, 403, 403, 204]
    assert await statuses("both", "chat.v1") == [201, 200, 200, 200, 204]
    assert await statuses("both", "users") == [403] * 5


async def test_who_may_only_write_learns_nothing_of_a_document_by_patches(client: Client) -> None:
    """Not even whether a schema of his own refuses it, by which he could ask for every letter."""
    writer = await secret(client, permissions=["write"])
    await client("PUT", "/entities/chat/k", b'{"secret": 1}')
    for type_, patch in ((MERGE, b"{}"), (PATCH, b'[{"op":"test","path":"/secret","value":1}]')):
        for named in ([], [("idempotency-key", "n")]):
            reply = await client("PATCH", "/entities/chat/k", patch, key=writer, headers=[type_, *named])
            assert (reply.status, reply.json()["error"]) == (403, "denied")


# -- idempotency keys


async def test_a_repeat_is_answered_as_the_first_was(client: Client, database: FakeDatabase) -> None:
    named = ("idempotency-key", '"8e03978e"')
    for method, body, headers in (
        ("PUT", b'{"a":1}', [named]),
        ("PATCH", b'{"b":2}', [MERGE, ("idempotency-key", "p")]),
        ("DELETE", None, [("idempotency-key", "d")]),
    ):
        first = await client(method, "/entities/chat/k", body, headers=headers)
        again = await client(method, "/entities/chat/k", body, headers=headers)
        assert "idempotent-replayed" not in first.headers
        assert again.headers.pop("idempotent-replayed") == "true"
        for reply in (first, again):
            for name in ("x-request-id", "server-timing"):
                reply.headers.pop(name)
        assert again == first
    assert [version for version, _ in database.history["chat", "k"]] == [1, 2, 3]


async def test_a_repeated_patch_shows_no_later_document(client: Client) -> None:
    await client("PUT", "/entities/chat/k", b'{"a":1}')
    headers = [MERGE, ("idempotency-key", "p")]
    assert (await client("PATCH", "/entities/chat/k", b'{"b":2}', headers=headers)).status == 200
    await client("PUT", "/entities/chat/k", b'{"later":1}')
    again = await client("PATCH", "/entities/chat/k", b'{"b":2}', headers=headers)
    assert (again.status, again.body, again.headers["etag"]) == (204, b"", '"2-aa"')


async def test_a_lost_answer_is_found_by_the_repeat(client: Client, database: FakeDatabase) -> None:
    for path, method, body in (
        ("/entities/chat/k", "PUT", b"1"),
        ("/entity/chat", "PUT", b'{"k": 2}'),
        ("/entity/chat?key=k", "DELETE", None),
    ):
        headers = [("idempotency-key", method + path)]
        database.lost = errors.OutcomeUnknown("unknown")
        assert (await client(method, path, body, headers=headers)).status == 504
        count = len(database.history["chat", "k"])
        reply = await client(method, path, body, headers=headers)
        assert reply.status in (200, 201) and reply.headers["idempotent-replayed"] == "true"
        assert len(database.history["chat", "k"]) == count


async def test_the_same_key_with_another_body_is_422(client: Client, database: FakeDatabase) -> None:
    headers = [("idempotency-key", "n")]
    await client("PUT", "/entities/chat/k", b"1", headers=headers)
    for method, path, body in (
        ("PUT", "/entities/chat/k", b"2"),
        ("DELETE", "/entities/chat/k", None),
        ("PUT", "/entity/chat", b'{"k": 2}'),
        ("PUT", "/entity/chat", b'{"k": 2, "other": 1}'),
        ("DELETE", "/entity/chat?key=k", None),
    ):
        reply = await client(method, path, body, headers=headers)
        assert (reply.status, reply.json()["error"]) == (422, "idempotency_key_reused")
    assert database.documents == {("chat", "k"): (1, b"1")}
    assert (await client("PUT", "/entities/chat/other", b"2", headers=headers)).status == 201


async def test_callers_do_not_share_keys(client: Client) -> None:
    headers = [("idempotency-key", "n")]
    await client("PUT", "/entities/chat/k", b"1", headers=headers)
    another = await secret(client, permissions=["write"], name="admin")
    reply = await client("PUT", "/entities/chat/k", b"2", headers=headers, key=another)
    assert (reply.status, reply.json()["version"]) == (200, 2)


async def test_the_old_route_repeats_too(client: Client) -> None:
    headers = [("idempotency-key", "n")]
    for body, versions in ((b'{"a": 1}', {"a": 1}), (b'{"a": 1, "b": 2}', {"a": 1, "b": 1})):
        for _ in range(2):
            reply = await client("PUT", "/entity/chat", body, headers=headers)
            assert (reply.status, reply.json()) == (200, {"status": "ok", "versions": versions})
        assert reply.headers["idempotent-replayed"] == "true"
    for _ in range(2):
        reply = await client("DELETE", "/entity/chat?key=a", headers=[("idempotency-key", "d")])
        assert (reply.status, reply.json()) == (200, {"status": "ok"})
    assert reply.headers["idempotent-replayed"] == "true"


async def test_a_malformed_idempotency_key_is_refused(client: Client, database: FakeDatabase) -> None:
    for value in ("", "a b", '"', "k" * 256, "ü"):
        for method, path, body in (
            ("PUT", "/entities/chat/k", b"1"),
            ("DELETE", "/entities/chat/k", None),
            ("PUT", "/entity/chat", b'{"k": 1}'),
            ("DELETE", "/entity/chat?key=k", None),
        ):
            reply = await client(method, path, body, headers=[("idempotency-key", value)])
            assert (reply.status, reply.json()["error"]) == (400, "bad_header")
    assert database.documents == {}


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (errors.Unavailable("no worker", code="no_worker"), 503),
        (errors.OutcomeUnknown("maybe"), 504),
        (errors.StoreFull("full"), 507),
        (errors.Corrupt("damaged"), 500),
        (errors.PreconditionRequired("send a condition"), 428),
        (errors.Unprocessable("reused", code="idempotency_key_reused"), 422),
    ],
)
async def test_failures_below_keep_their_kind(
    client: Client, database: FakeDatabase, failure: errors.DeltaError, status: int
) -> None:
    database.failure = failure
    for method, body, headers in (
        ("GET", None, []),
        ("PUT", b"1", []),
        ("PATCH", b"{}", [MERGE]),
        ("DELETE", None, []),
    ):
        for named in ([], [("idempotency-key", "n")]):
            reply = await client(method, "/entities/chat/k", body, headers=[*headers, *named])
            assert (reply.status, reply.json()["error"]) == (status, failure.code)


def test_the_time_of_these_tests() -> None:
    assert NOW_MS == 1_700_000_000_000
