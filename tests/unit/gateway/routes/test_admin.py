import msgspec
import pytest

from unit.gateway.rest_fakes import Client


async def test_workers(client: Client) -> None:
    assert (await client("GET", "/admin/workers")).json() == [
        {
            "worker_id": "proc-1",
            "status": "Available",
            "key_id": "0011223344556677",
            "last_seen": "2023-11-14T22:13:20.000Z",
            "tags": {"grpc_addr": "127.0.0.1:50052"},
        }
    ]


async def test_a_guarantee_holds_only_where_every_worker_found_it(client: Client) -> None:
    store = (await client("GET", "/admin/store")).json()
    assert store["guarantees"] == {"create_once": True, "stale_etag": False}
    assert store["workers"]["proc-1"]["templates"] == 2
    assert store["workers"]["proc-2"]["checks"][1]["passed"] is False


async def test_check_values_of_keys_are_not_told(client: Client) -> None:
    reply = await client("GET", "/admin/store")
    assert reply.json()["workers"]["proc-1"]["database"]["key_ids"] == ["0011223344556677"]
    assert b"c0ffee" not in reply.body


@pytest.mark.parametrize("target", ["/admin/workers", "/admin/store"])
async def test_only_an_admin_is_told(client: Client, target: str) -> None:
    body = msgspec.json.encode({"name": "n", "permissions": ["read", "write"]})
    key = (await client("POST", "/api/keys", body)).json()["secret"]
    assert (await client("GET", target, key=key)).status == 403
