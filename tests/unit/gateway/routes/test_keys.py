import json

import msgspec
import pytest

from unit.gateway.rest_fakes import Client


async def create(client: Client, **body: object) -> dict[str, object]:
    reply = await client("POST", "/api/keys", msgspec.json.encode(body))
    assert reply.status == 201
    created: dict[str, object] = reply.json()
    return created


async def test_a_key_lives_from_its_creation_to_its_deletion(client: Client) -> None:
    created = await create(
        client, name="ci", permissions=["write", "read"], expires_in="7d", schemas=["chat.*"]
    )
    assert created["permissions"] == ["read", "write"]
    assert created["expires_at"] == "2023-11-21T22:13:20.000Z"
    secret = str(created["secret"])
    assert secret.startswith("dk_")
    assert (await client("GET", "/api/me", key=secret)).json() == {
        "client_id": "ci",
        "permissions": ["read", "write"],
        "is_admin": False,
    }
    (listed,) = (await client("GET", "/api/keys")).json()
    assert "secret" not in listed
    assert (listed["id"], listed["enabled"], listed["schemas"]) == (created["id"], True, ["chat.*"])
    assert (await client("DELETE", f"/api/keys/{created['id']}")).json() == {"status": "ok"}
    assert (await client("GET", "/api/me", key=secret)).status == 401
    assert (await client("DELETE", f"/api/keys/{created['id']}")).status == 404


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a", "permissions": ["read"], "schema": ["chat.*"]},  # misspelt: would limit nothing
        {},
        {"name": "", "permissions": ["read"]},
        {"name": "a"},
        {"name": "a", "permissions": []},
        {"name": "a", "permissions": ["root"]},
        {"name": "a", "permissions": "read"},
        {"name": 1, "permissions": ["read"]},
        {"name": "a", "permissions": ["read"], "expires_in": "0s"},
        {"name": "a", "permissions": ["read"], "expires_in": "-1h"},
        {"name": "a", "permissions": ["read"], "expires_in": 7},
        {"name": "a", "permissions": ["read"], "schemas": "chat"},
    ],
)
async def test_a_key_that_makes_no_sense_is_400(client: Client, body: dict[str, object]) -> None:
    assert (await client("POST", "/api/keys", msgspec.json.encode(body))).status == 400
    assert (await client("GET", "/api/keys")).json() == []


async def test_keys_are_an_admins_affair(client: Client) -> None:
    created = await create(client, name="ci", permissions=["read", "write"])
    secret = str(created["secret"])
    for method, target in (("GET", "/api/keys"), ("POST", "/api/keys"), ("DELETE", "/api/keys/x")):
        assert (await client(method, target, key=secret)).status == 403


async def test_a_keys_rate_and_last_use_are_shown(client: Client) -> None:
    created = await create(client, name="slow", permissions=["read"], rate_per_s=2)
    assert created["rate_per_s"] == 2
    (listed,) = (await client("GET", "/api/keys")).json()
    assert (listed["rate_per_s"], listed["last_used_at"]) == (2, None)
    statuses = [(await client("GET", "/api/me", key=str(created["secret"]))).status for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
    (listed,) = (await client("GET", "/api/keys")).json()
    assert listed["last_used_at"] == "2023-11-14T22:13:20.000Z"


@pytest.mark.parametrize("rate", [0, -1, 100_001, 1.5, "5", True, 10**30])
async def test_a_rate_that_makes_no_sense_is_400(client: Client, rate: object) -> None:
    body = {"name": "a", "permissions": ["read"], "rate_per_s": rate}
    assert (await client("POST", "/api/keys", json.dumps(body).encode())).status == 400
    assert (await client("GET", "/api/keys")).json() == []


async def test_no_key_but_an_admins_gives_rights(client: Client) -> None:
    for permissions, schemas in ((["read"], None), (["read", "write"], None), (["write"], ["chat.*"])):
        created = await create(client, name="ci", permissions=permissions, schemas=schemas)
        login = json.dumps({"key": created["secret"]}).encode()
        session = (await client("POST", "/api/login", login, key=None)).json()
        assert session["permissions"] == permissions
        for token in (created["secret"], session["token"]):
            made = await client(
                "POST", "/api/keys", b'{"name": "x", "permissions": ["admin"]}', key=str(token)
            )
            assert made.status == 403
            assert (await client("DELETE", f"/api/keys/{created['id']}", key=str(token))).status == 403
            assert (await client("GET", "/admin/workers", key=str(token))).status == 403


async def test_a_limited_key_cannot_be_an_admin(client: Client) -> None:
    body = b'{"name": "x", "permissions": ["admin"], "schemas": ["chat.*"]}'
    assert (await client("POST", "/api/keys", body)).status == 400


async def test_a_session_of_a_limited_key_reaches_no_further(client: Client) -> None:
    created = await create(client, name="ci", permissions=["read", "write"], schemas=["chat.*"])
    login = json.dumps({"key": created["secret"]}).encode()
    token = (await client("POST", "/api/login", login, key=None)).json()["token"]
    for schema_id in ("chat.a", "other"):
        assert (await client("PUT", f"/schema/{schema_id}", b"{}")).status == 200
    for method, target in (
        ("PUT", "/entity/{}"),
        ("GET", "/entity/{}?key=a"),
        ("DELETE", "/entity/{}?key=a"),
        ("PUT", "/schema/{}"),
        ("POST", "/schemas/{}"),
        ("GET", "/schema/{}"),
        ("DELETE", "/schema/{}"),
    ):
        body = b'{"a": {}}' if method in ("PUT", "POST") else None
        allowed = await client(method, target.format("chat.a"), body, key=token)
        assert allowed.status < 300, (method, target)
        assert (await client(method, target.format("other"), body, key=token)).status == 403, (method, target)
        if target == "/schema/{}" and method == "DELETE":
            assert (await client("GET", "/admin/schemas", key=token)).json() == []
    assert (await client("GET", "/api/schemas", key=token)).json() == []


async def test_a_session_token_opens_no_session(client: Client) -> None:
    created = await create(client, name="ci", permissions=["read"])
    login = json.dumps({"key": created["secret"]}).encode()
    token = (await client("POST", "/api/login", login, key=None)).json()["token"]
    again = json.dumps({"key": token}).encode()
    assert (await client("POST", "/api/login", again, key=None)).status == 401
