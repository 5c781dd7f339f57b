"""A key's end is in force before the answer that says so leaves: also for requests under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from unit.gateway.rest_fakes import ADMIN_KEY, FakeDatabase

from deltadatabase.auth.accounts import Accounts
from deltadatabase.clock import SystemClock, system_random
from deltadatabase.gateway.app import GatewayOptions, create_app
from deltadatabase.gateway.server import RestServer

BODIES = {
    "PUT /entity/chat": b'{"a": {"x": 1}}',
    "PUT /schema/chat": b'{"type": "object"}',
    "POST /schemas/chat": b'{"type": "object"}',
    "POST /admin/rotation": b'{"dry_run": false}',
    "PUT /admin/log-level": b'{"level": "info"}',
    "POST /api/keys": b'{"name": "heir", "permissions": ["admin"]}',
}

End = Callable[[Accounts, str], Awaitable[None]]


class MovableClock(SystemClock):
    later_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.later_ms


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@pytest.fixture
async def served(
    tmp_path: Path, clock: MovableClock, database: FakeDatabase
) -> AsyncIterator[tuple[int, Accounts]]:
    with contextlib.closing(
        Accounts(
            tmp_path / "accounts",
            clock=clock,
            random=system_random,
            admin_key=ADMIN_KEY,
            client_ttl_s=3600.0,
            dev_mode=False,
        )
    ) as accounts:
        options = GatewayOptions(version="1", body_timeout_s=5.0)
        app = create_app(
            database,
            database,
            database,
            database,
            database.rotation,
            accounts,
            options,
            clock=clock,
            random=system_random,
        )
        server = RestServer(app, "127.0.0.1", 0)
        await server.start()
        try:
            yield server.port, accounts
        finally:
            await server.stop(5.0)


async def answered_after(
    port: int, route: str, token: str, between: Callable[[], Awaitable[None] | None]
) -> bytes:
    """Send all of a request but its last byte, do something else, send that; return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = BODIES[route]
    head = f"{route} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    try:
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        await writer.drain()
        # The request was authenticated by then, and waits for its body.
        await asyncio.sleep(0.2)
        happening = between()
        if happening is not None:
            await happening
        writer.write(body[-1:])
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10.0)
    finally:
        writer.close()


async def delete_by_rest(port: int, key_id: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"Host: localhost\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\r\n"
    writer.write(f"DELETE /api/keys/{key_id} HTTP/1.1\r\n{head}".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


def nothing_happened(database: FakeDatabase, accounts: Accounts, keys: int) -> bool:
    changed = database.documents or database.schemas or database.rotation.told
    return not changed and len(accounts.list_keys()) == keys


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("by_session", [False, True], ids=["key", "session"])
async def test_a_request_whose_body_comes_after_the_keys_deletion_is_refused(
    served: tuple[int, Accounts], database: FakeDatabase, route: str, by_session: bool
) -> None:
    port, accounts = served
    key = accounts.create_key("ci", ["admin"])
    token = accounts.login(key.secret, None, "").token if by_session else key.secret
    answer = await answered_after(port, route, token, lambda: delete_by_rest(port, key.id))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert nothing_happened(database, accounts, keys=0)


@pytest.mark.parametrize("route", BODIES)
async def test_a_request_whose_body_comes_after_the_keys_expiry_is_refused(
    served: tuple[int, Accounts], database: FakeDatabase, clock: MovableClock, route: str
) -> None:
    port, accounts = served
    key = accounts.create_key("ci", ["admin"], expires_in="1h")

    def pass_an_hour() -> None:
        clock.later_ms += 3_600_000

    answer = await answered_after(port, route, key.secret, pass_an_hour)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert nothing_happened(database, accounts, keys=1)


@pytest.mark.parametrize("route", [route for route in BODIES if "log-level" not in route])
async def test_a_slow_body_alone_is_no_reason(
    served: tuple[int, Accounts], database: FakeDatabase, route: str
) -> None:
    port, accounts = served
    key = accounts.create_key("ci", ["admin"])
    answer = await answered_after(port, route, key.secret, lambda: None)
    assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 201 ", b"HTTP/1.1 202 "))
    assert not nothing_happened(database, accounts, keys=1)
