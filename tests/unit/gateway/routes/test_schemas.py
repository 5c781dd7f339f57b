from collections.abc import Callable

import msgspec
import pytest

from unit.gateway.rest_fakes import Client, FakeDatabase

SCHEMA = b'{ "type": "object" }'


@pytest.mark.parametrize(("method", "path"), [("PUT", "/schema/chat.v1"), ("POST", "/schemas/chat.v1")])
async def test_a_schema_comes_back_byte_for_byte(client: Client, method: str, path: str) -> None:
    form = [("content-type", "application/x-www-form-urlencoded")]
    reply = await client(method, path, SCHEMA, headers=form)
    assert (reply.status, reply.json()) == (200, {"status": "ok"})
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
