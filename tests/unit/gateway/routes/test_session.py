from collections.abc import Callable

import msgspec
import pytest

from deltadatabase.settings.values import parse_networks
from unit.gateway.rest_fakes import ADMIN_KEY, Client

ADMIN_LOGIN = msgspec.json.encode({"key": ADMIN_KEY})


async def test_a_key_opens_a_session(client: Client) -> None:
    form = [("content-type", "application/x-www-form-urlencoded")]
    reply = await client("POST", "/api/login", ADMIN_LOGIN, key=None, headers=form)
    assert reply.status == 200
    session = reply.json()
    assert set(session) == {"token", "client_id", "expires_at", "permissions"}
    assert session["client_id"] == "admin"
    assert session["expires_at"] == "2023-11-14T23:13:20.000Z"
    assert reply.headers["cache-control"] == "no-store"
    me = await client("GET", "/api/me", key=session["token"])
    assert me.json() == {"client_id": "admin", "permissions": ["read", "write", "admin"], "is_admin": True}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (None, 400, "malformed_json"),
        (b"", 400, "malformed_json"),
        (b"{", 400, "malformed_json"),
        (b'{"key": "\xff"}', 400, "malformed_json"),
        (b"{} x", 400, "malformed_json"),
        (b'{"x": ' + b"[" * 30_000, 400, "malformed_json"),
        (b"[]", 400, "wrong_shape"),
        (b'{"key": 1}', 400, "wrong_shape"),
        (b'{"key": ["a"]}', 400, "wrong_shape"),
        (b"{}", 400, "invalid"),
        (b'{"key": ""}', 400, "invalid"),
        (b'{"unknown": 1}', 400, "invalid"),
        (b'{"key": "wrong"}', 401, "unauthenticated"),
        (b'{"key": "\\ud800"}', 400, "malformed_json"),
        (b'{"client_id": "me"}', 401, "unauthenticated"),
        (b'{"key": "' + b"x" * 70_000 + b'"}', 413, "too_large"),
    ],
)
async def test_a_refused_login(client: Client, body: bytes | None, status: int, code: str) -> None:
    reply = await client("POST", "/api/login", body, key=None)
    assert (reply.status, reply.json()["error"]) == (status, code)


async def test_guessing_is_slowed_down_but_a_good_key_is_not(client: Client) -> None:
    for _ in range(20):
        assert (await client("POST", "/api/login", b'{"key": "guess"}', key=None)).status == 401
    reply = await client("POST", "/api/login", b'{"key": "guess"}', key=None)
    assert (reply.status, reply.json()["error"]) == (429, "rate_limited")
    assert int(reply.headers["retry-after"]) >= 1
    assert (await client("POST", "/api/login", ADMIN_LOGIN, key=None)).status == 200
    assert (await client("GET", "/api/me", key="wrong")).status == 401


async def test_dev_mode_needs_a_client_id_only(make_client: Callable[..., Client]) -> None:
    client = make_client(dev_mode=True)
    session = (await client("POST", "/api/login", b'{"client_id": "me"}', key=None)).json()
    assert (session["client_id"], session["permissions"]) == ("me", ["read", "write"])
    assert (await client("POST", "/api/login", b"{}", key=None)).status == 400


async def test_behind_a_trusted_proxy_each_client_is_throttled_alone(
    make_client: Callable[..., Client],
) -> None:
    async def statuses(client: Client, address: str, prefix: str) -> list[int]:
        headers = [("x-forwarded-for", f"1.1.1.1, {address}")]
        bodies = [f'{{"key": "{prefix}{number:04}-wrong"}}'.encode() for number in range(21)]
        return [
            (await client("POST", "/api/login", body, key=None, headers=headers)).status for body in bodies
        ]

    behind = make_client(trusted_proxies=parse_networks("127.0.0.0/8"))
    assert await statuses(behind, "203.0.113.1", "aaaa") == [401] * 20 + [429]
    assert await statuses(behind, "203.0.113.2", "bbbb") == [401] * 20 + [429]
    # Without the flag whoever may write the header cannot escape with it.
    assert await statuses(make_client(), "203.0.113.3", "cccc") == [401] * 20 + [429]
    assert await statuses(make_client(), "203.0.113.4", "dddd") == [429] * 21
