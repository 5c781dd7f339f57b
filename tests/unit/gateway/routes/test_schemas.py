import hashlib
from collections.abc import Callable

import msgspec
import pytest

from unit.gateway.rest_fakes import Client, FakeDatabase

SCHEMA = b'{ "type": "object" }'
VERSION = hashlib.sha256(SCHEMA).hexdigest()


@pytest.mark.parametrize(("method", "path"), [("PUT", "/schema/chat.v1"), ("POST", "/schemas/chat.v1")])
async def test_a_schema_comes_back_byte_for_byte(client: Client, method: str, path: str) -> None:
    form = [("content-type", "application/x-www-form-urlencoded")]
    reply = await client(method, path, SCHEMA, headers=form)
    told = {"status": "ok", "schema_id": "chat.v1", "version": VERSION, "enforced": True}
    assert (reply.status, reply.json()) == (200, told)
    read = await client("GET", "/schema/chat.v1")
    assert (read.status, read.body, read.headers["content-type"]) == (200, SCHEMA, "application/json")


async def test_a_schema_ends(client: Client) -> None:
    await client("PUT", "/schema/chat.v1", SCHEMA)
    reply = await client("DELETE", "/schema/chat.v1")
    assert (reply.status, reply.json()) == (200, {"status": "ok"})
    assert (await client("DELETE", "/schema/chat.v1")).status == 404
    assert (await client("GET", "/schema/chat.v1")).status == 404


async def test_lists(client: Client) -> None:
    await client("PUT", "/schema/chat.v1", SCHEMA)
    await client("PUT", "/entity/loose", b'{"k":1}')
    assert (await client("GET", "/admin/schemas")).json() == ["chat.v1"]
    assert (await client("GET", "/api/schemas")).json() == ["chat.v1", "loose"]


async def test_a_limited_key_sees_only_its_own(client: Client) -> None:
    body = msgspec.json.encode({"name": "n", "permissions": ["read", "write"], "schemas": ["chat.*"]})
    key = (await client("POST", "/api/keys", body)).json()["secret"]
    for schema_id in ("chat.v1", "users"):
        await client("PUT", f"/schema/{schema_id}", SCHEMA)
    assert (await client("GET", "/admin/schemas", key=key)).json() == ["chat.v1"]
    assert (await client("GET", "/api/schemas", key=key)).json() == ["chat.v1"]
    assert (await client("GET", "/schema/users", key=key)).status == 403
    assert (await client("PUT", "/schema/users", SCHEMA, key=key)).status == 403
    assert (await client("PUT", "/schema/chat.v2", SCHEMA, key=key)).status == 200


@pytest.mark.parametrize("schema_id", ["_a", "a..b", "a%20b", "%C3%A9", "a" * 101])
async def test_a_schema_id_that_is_none_is_400_before_the_body_is_looked_at(
    client: Client, schema_id: str
) -> None:
    for method, path in (("PUT", "schema"), ("POST", "schemas"), ("GET", "schema"), ("DELETE", "schema")):
        body = b"nonsense" if method in ("PUT", "POST") else None
        reply = await client(method, f"/{path}/{schema_id}", body)
        assert (reply.status, reply.json()["error"]) == (400, "invalid_schema_id")


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"{", 400), (b"\xff", 400), (b'"' + b"x" * 1000 + b'"', 413)]
)
async def test_a_refused_body(client: Client, database: FakeDatabase, body: bytes, status: int) -> None:
    assert (await client("PUT", "/schema/chat", body)).status == status
    assert database.schemas == {}


async def test_public_schemas_open_two_routes_and_no_more(make_client: Callable[..., Client]) -> None:
    client = make_client(public_schemas=True)
    await client("PUT", "/schema/chat", SCHEMA)
    assert (await client("GET", "/schema/chat", key=None)).body == SCHEMA
    assert (await client("GET", "/admin/schemas", key=None)).json() == ["chat"]
    assert (await client("GET", "/schema/a..b", key=None)).status == 400
    assert (await client("GET", "/api/schemas", key=None)).status == 401
    assert (await client("PUT", "/schema/chat", SCHEMA, key=None)).status == 401
    assert (await client("DELETE", "/schema/chat", key=None)).status == 401


async def test_a_schema_is_sent_once_to_who_knows_its_version(client: Client) -> None:
    await client("PUT", "/schema/chat", SCHEMA)
    read = await client("GET", "/schema/chat")
    assert (read.headers["etag"], read.headers["cache-control"]) == (f'"{VERSION}"', "no-cache")
    for known in (f'"{VERSION}"', f'"old", W/"{VERSION}"', "*"):
        again = await client("GET", "/schema/chat", headers=[("if-none-match", known)])
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", f'"{VERSION}"')
    for other in ('"old"', "", VERSION):
        assert (await client("GET", "/schema/chat", headers=[("if-none-match", other)])).status == 200
    assert (await client("GET", "/schema/absent", headers=[("if-none-match", "*")])).status == 404


@pytest.mark.parametrize(("method", "path"), [("PUT", "/schema/chat"), ("POST", "/schemas/chat")])
async def test_a_dry_run_stores_nothing(
    client: Client, database: FakeDatabase, method: str, path: str
) -> None:
    reply = await client(method, path + "?dry_run=true", SCHEMA)
    assert (reply.status, reply.json()) == (
        200,
        {"status": "ok", "schema_id": "chat", "version": VERSION, "enforced": False, "dry_run": True},
    )
    assert database.schemas == {}
    assert (await client(method, path + "?dry_run=false&scan=false", SCHEMA)).json()["enforced"] is True
    assert database.schemas == {"chat": SCHEMA}


async def test_a_dry_run_refuses_what_a_put_refuses(client: Client, database: FakeDatabase) -> None:
    for body in (b"", b"{", b'{"type": 3}', b'{"$ref": "http://elsewhere/"}', b"[]", b"\xff"):
        reply = await client("PUT", "/schema/chat?dry_run=true", body)
        assert (reply.status, reply.json()["error"]) == (400, "invalid_schema")
    assert (await client("PUT", "/schema/chat?dry_run=true", b" " * 1001)).status == 413
    assert database.schemas == {}


@pytest.mark.parametrize(
    "query",
    [
        *("dry_run", "dry_run=", "dry_run=1", "dry_run=True", "dry-run=true", "dryrun=true", "x=y"),
        *("dry_run=true&dry_run=true", "scan=true", "dry_run=false&scan=true", "dry_run=true&scan=yes"),
        *("dry_run=%", "dry_run=%ff", "=true", "dry_run=true&schema_id=x"),
    ],
)
async def test_a_misspelt_wish_changes_nothing(client: Client, database: FakeDatabase, query: str) -> None:
    reply = await client("PUT", "/schema/chat?" + query, SCHEMA)
    assert (reply.status, reply.json()["error"]) == (400, "bad_query")
    assert database.schemas == {}


async def test_a_dry_run_needs_the_right_to_write(client: Client, database: FakeDatabase) -> None:
    reader, writer = [
        (await client("POST", "/api/keys", msgspec.json.encode({"name": "n", "permissions": [right]}))).json()
        for right in ("read", "write")
    ]
    assert (await client("PUT", "/schema/chat?dry_run=true", SCHEMA, key=reader["secret"])).status == 403
    assert (await client("PUT", "/schema/chat?dry_run=true", SCHEMA, key=writer["secret"])).status == 200
    scan = "/schema/chat?dry_run=true&scan=true"
    assert (await client("PUT", scan, SCHEMA, key=writer["secret"])).status == 403
    assert (await client("PUT", scan, SCHEMA, key=None)).status == 401
    assert (await client("PUT", scan, b'{"type": 3}')).json()["error"] == "invalid_schema"


async def test_a_scan_lists_what_the_schema_would_refuse(client: Client, database: FakeDatabase) -> None:
    database.documents = {
        ("chat", "good"): (3, b"{}"),
        ("chat", "b/d \u00e9"): (7, b"[1]"),
        ("chat", "_meta"): (1, b"1"),
        ("other", "bad"): (1, b"1"),
    }
    reply = await client("PUT", "/schema/chat?dry_run=true&scan=true", SCHEMA)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/x-ndjson")
    assert reply.headers["cache-control"] == "no-store"
    refused, done = map(msgspec.json.decode, reply.body.splitlines())
    assert (refused["key"], refused["version"]) == ("b/d \u00e9", 7)
    assert [error["keyword"] for error in refused["errors"]] == ["type"]
    assert done == {"done": True, "checked": 3, "refused": 1, "unreadable": 0}
    assert database.schemas == {}
