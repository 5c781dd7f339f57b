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
