from __future__ import annotations

import msgspec
import pytest

from unit.gateway.rest_fakes import Client

PATH = "/admin/log-level"


async def test_a_level_is_one_of_four(client: Client) -> None:
    for level in ("debug", "info", "warning", "error"):
        reply = await client("PUT", PATH, msgspec.json.encode({"level": level}))
        assert (reply.status, reply.json()) == (200, {"level": level})
    reply = await client("PUT", PATH, b'{"level": "hummingbird"}')
    assert (reply.status, reply.json()["error"]) == (400, "bad_log_level")
    assert b"hummingbird" not in reply.body
    assert (await client("PUT", PATH, b"{}")).status == 400


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_only_an_admin_may(client: Client, method: str) -> None:
    body = msgspec.json.encode({"name": "n", "permissions": ["read", "write"]})
    key = (await client("POST", "/api/keys", body)).json()["secret"]
    assert (await client(method, PATH, b'{"level": "debug"}', key=key)).status == 403
    assert (await client(method, PATH, b'{"level": "debug"}', key="")).status == 401
