"""Which requests are events of the audit log, and what such an event says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deltadatabase.auth.accounts import Accounts
from deltadatabase.clock import system_random
from deltadatabase.errors import Corrupt, Invalid, NotFound, OutcomeUnknown, PartlyApplied, Unavailable
from deltadatabase.gateway.app import GatewayOptions, create_app
from deltadatabase.gateway.auditing import telling
from deltadatabase.telemetry.audit import Audit, Outcome
from unit.gateway.rest_fakes import ADMIN_KEY, Client, CountingRandom, FakeDatabase, TestClock

Events = Callable[[], list[dict[str, Any]]]
MINE = [("x-request-id", "r-1")]
COMMON = {"time": "2023-11-14T22:13:20.000Z", "request_id": "r-1", "address": "127.0.0.1"}
ADMIN = {"principal": "admin", "key_id": "admin"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, FakeDatabase, Path, TestClock]]:
    folder = tmp_path_factory.mktemp("audit")
    clock, database, path = TestClock(), FakeDatabase(), folder / "audit.jsonl"
    with closing(
        Accounts(
            folder / "accounts",
            clock=clock,
            random=system_random,
            admin_key=ADMIN_KEY,
            client_ttl_s=60.0,
            dev_mode=False,
        )
    ) as accounts:
        audit = Audit(clock, path)
        options = GatewayOptions(version="1", body_bytes_max=1000)
        app = create_app(
            database,
            database,
            database,
            database,
            database.rotation,
            accounts,
            options,
            clock=clock,
            random=CountingRandom(),
            audit=audit,
        )
        yield Client(app), database, path, clock
        audit.close()


@pytest.fixture
def client(parts: tuple[Client, FakeDatabase, Path, TestClock]) -> Client:
    return parts[0]


@pytest.fixture
def database(parts: tuple[Client, FakeDatabase, Path, TestClock]) -> FakeDatabase:
    parts[1].reset()
    return parts[1]


@pytest.fixture
def events(parts: tuple[Client, FakeDatabase, Path, TestClock], database: FakeDatabase) -> Events:
    """The events since the test began, or since the last call."""
    _, _, path, clock = parts
    clock.forget_failed_logins()
    seen = len(path.read_text().splitlines())

    def news() -> list[dict[str, Any]]:
        nonlocal seen
        lines = path.read_text().splitlines()[seen:]
        seen += len(lines)
        return [event for event in map(json.loads, lines) if "suppressed" not in event]

    return news


async def new_key(client: Client, **body: object) -> dict[str, Any]:
    reply = await client("POST", "/api/keys", msgspec.json.encode(body), headers=MINE)
    assert reply.status == 201
    created: dict[str, Any] = reply.json()
    return created


async def test_a_served_request_is_no_event(client: Client, events: Events) -> None:
    assert (await client("PUT", "/entity/chat", b'{"a": 1}')).status == 200
    for method, target in (
        ("GET", "/entity/chat?key=a"),
        ("GET", "/entity/chat?key=absent"),
        ("DELETE", "/entity/chat?key=a"),
        ("GET", "/api/me"),
        ("GET", "/api/keys"),
        ("GET", "/health"),
        ("GET", "/absent"),
        ("PUT", "/health"),
    ):
        await client(method, target)
    await client("PUT", "/entity/chat", b"{")
    assert events() == []


async def test_logins(client: Client, events: Events) -> None:
    key = await new_key(client, name="ci", permissions=["read"])
    events()
    for secret in (ADMIN_KEY, key["secret"], "wrong-key"):
        body = msgspec.json.encode({"key": secret})
        await client("POST", "/api/login", body, key=None, headers=MINE)
    ok = COMMON | {"action": "login", "outcome": "ok"}
    refused = {"outcome": "refused", "method": "POST", "route": "/api/login", "status": 401}
    assert events() == [
        ok | ADMIN,
        ok | {"principal": "ci", "key_id": key["id"]},
        COMMON | {"action": "login", "code": "unauthenticated"} | refused,
    ]


async def test_a_throttled_login(
    client: Client, parts: tuple[Client, FakeDatabase, Path, TestClock], events: Events
) -> None:
    clock = parts[3]
    await client("GET", "/api/me", key="wrong-key")
    clock.pass_s(50.0)
    for _ in range(20):
        await client("POST", "/api/login", b'{"key": "wrong-key"}', key=None)
    assert [event["status"] for event in events()] == [401] * 21
    # The log's minute is over by now, and that of the throttle is not.
    clock.pass_s(11.0)
    assert (await client("POST", "/api/login", b'{"key": "wrong-key"}', key=None)).status == 429
    (event,) = events()
    assert (event["action"], event["status"], event["code"]) == ("login", 429, "rate_limited")


async def test_a_flood_of_refusals_is_counted(
    client: Client, parts: tuple[Client, FakeDatabase, Path, TestClock], events: Events
) -> None:
    for _ in range(500):
        assert (await client("GET", "/entity/chat?key=a", key="wrong-key")).status == 401
    assert len(events()) == 20
    parts[3].pass_s(60.0)
    await client("GET", "/entity/chat?key=a", key="wrong-key")
    said = [json.loads(line) for line in parts[2].read_text().splitlines()][-2]
    assert (said["action"], said["suppressed"], said["address"]) == ("request_refused", 480, "127.0.0.1")


@pytest.mark.parametrize(
    ("method", "target", "place"),
    [
        ("GET", "/entity/chat?key=secret-name", {"route": "/entity", "schema_id": "chat"}),
        ("PUT", "/entity/chat", {"route": "/entity", "schema_id": "chat"}),
        ("GET", "/entity/..%2f?key=a", {"route": "/entity"}),
        ("PUT", "/schema/chat", {"route": "/schema", "schema_id": "chat"}),
        ("POST", "/schemas/chat", {"route": "/schemas", "schema_id": "chat"}),
        ("GET", "/api/me", {"route": "/api/me"}),
        ("GET", "/api/keys", {"route": "/api/keys"}),
        ("DELETE", "/api/keys/secret-name", {"route": "/api/keys"}),
        ("GET", "/admin/workers", {"route": "/admin/workers"}),
    ],
)
async def test_a_request_without_valid_credentials(
    client: Client, events: Events, method: str, target: str, place: dict[str, str]
) -> None:
    reply = await client(method, target, key="secret-token", headers=MINE)
    assert reply.status == 401
    refused = {"action": "request_refused", "outcome": "refused", "status": 401, "code": "unauthenticated"}
    assert events() == [COMMON | refused | {"method": method} | place]


async def test_a_request_without_the_right_names_its_key(client: Client, events: Events) -> None:
    key = await new_key(client, name="ci", permissions=["read"], schemas=["chat.*"])
    events()
    refused = COMMON | {"action": "request_refused", "outcome": "refused", "status": 403, "code": "denied"}
    who = {"principal": "ci", "key_id": key["id"]}
    for method, target, place in (
        ("PUT", "/entity/chat.a", {"route": "/entity", "schema_id": "chat.a"}),
        ("GET", "/entity/other?key=a", {"route": "/entity", "schema_id": "other"}),
        ("GET", "/api/keys", {"route": "/api/keys"}),
    ):
        assert (await client(method, target, key=key["secret"], headers=MINE)).status == 403
        assert events() == [refused | who | {"method": method} | place]


async def test_a_request_beyond_the_keys_rate_names_its_key(client: Client, events: Events) -> None:
    key = await new_key(client, name="slow", permissions=["read"], rate_per_s=1)
    events()
    assert (await client("GET", "/api/me", key=key["secret"])).status == 200
    reply = await client("GET", "/entity/chat?key=a", key=key["secret"], headers=MINE)
    assert (reply.status, reply.json()["error"], reply.headers["retry-after"]) == (429, "rate_limited", "1")
    (event,) = events()
    assert (event["action"], event["status"], event["key_id"]) == ("request_refused", 429, key["id"])


async def test_a_keys_life(client: Client, events: Events) -> None:
    more = {"permissions": ["write", "read"], "expires_in": "24h", "schemas": ["a.*"], "rate_per_s": 5}
    key = await new_key(client, name="ci", **more)
    assert (await client("DELETE", f"/api/keys/{key['id']}", headers=MINE)).status == 200
    assert events() == [
        COMMON
        | ADMIN
        | {
            "action": "key_created",
            "outcome": "ok",
            "subject": key["id"],
            "subject_name": "ci",
            "permissions": ["read", "write"],
            "schemas": ["a.*"],
            "rate_per_s": 5,
            "expires_at": "2023-11-15T22:13:20.000Z",
        },
        COMMON | ADMIN | {"action": "key_deleted", "outcome": "ok", "subject": key["id"]},
    ]


async def test_a_schemas_life(client: Client, events: Events) -> None:
    for method, target in (("PUT", "/schema/chat"), ("POST", "/schemas/chat"), ("DELETE", "/schema/chat")):
        assert (await client(method, target, b'{"title": "private"}', headers=MINE)).status == 200
    ok = COMMON | ADMIN | {"outcome": "ok", "schema_id": "chat"}
    assert events() == [ok | {"action": action} for action in ("schema_put", "schema_put", "schema_deleted")]


async def test_a_rotation(client: Client, events: Events) -> None:
    await client("POST", "/admin/rotation", b'{"dry_run": true}')
    await client("GET", "/admin/rotation")
    assert events() == []
    for method, action in (("POST", "rotation_started"), ("DELETE", "rotation_paused")):
        assert (await client(method, "/admin/rotation", headers=MINE)).status in (200, 202)
        assert events() == [COMMON | ADMIN | {"action": action, "outcome": "ok"}]


async def test_a_log_level(client: Client, events: Events) -> None:
    assert (await client("PUT", "/admin/log-level", b'{"level": "info"}', headers=MINE)).status == 200
    (event,) = events()
    event.pop("former", None)
    assert event == COMMON | ADMIN | {"action": "log_level_changed", "outcome": "ok", "log_level": "info"}


async def test_a_change_that_failed_is_no_event(client: Client, events: Events) -> None:
    await client("PUT", "/schema/chat", b"{")
    await client("DELETE", "/schema/absent")
    await client("DELETE", "/api/keys/absent")
    await client("POST", "/api/keys", b"{}")
    assert events() == []


@pytest.mark.parametrize(
    "failure",
    [
        Corrupt("the stored entity fails its integrity check"),
        PartlyApplied("in part", outcomes={"a": "integrity"}, cause=Corrupt("the stored entity fails")),
    ],
)
async def test_an_integrity_failure_names_the_schema_and_no_entity(
    client: Client, database: FakeDatabase, events: Events, failure: Exception
) -> None:
    database.failure = failure
    assert (await client("PUT", "/entity/chat", b'{"secret-name": 1}', headers=MINE)).status == 500
    (event,) = events()
    assert event == COMMON | ADMIN | {
        "action": "integrity_failure",
        "outcome": "failed",
        "method": "PUT",
        "route": "/entity",
        "schema_id": "chat",
        "status": 500,
        "code": failure.code,  # type: ignore[attr-defined]
    }


@pytest.mark.parametrize("failure", [Unavailable("down"), NotFound("no"), Invalid("no"), ValueError("x")])
async def test_other_failures_are_no_events(
    client: Client, database: FakeDatabase, events: Events, failure: Exception
) -> None:
    database.failure = failure
    await client("GET", "/entity/chat?key=a")
    assert events() == []


async def test_no_secret_gets_in(
    client: Client, parts: tuple[Client, FakeDatabase, Path, TestClock], events: Events
) -> None:
    key = await new_key(client, name="ci", permissions=["read"])
    login = msgspec.json.encode({"key": key["secret"]})
    token = (await client("POST", "/api/login", login, key=None)).json()["token"]
    await client("PUT", "/schema/chat", b"{}", key=token)
    await client("GET", f"/api/keys/{key['secret']}", key="bad-secret-token")
    await client("POST", "/api/login", b'{"key": "bad-secret-token"}', key=None)
    assert len(events()) >= 4
    text = parts[2].read_text()
    for secret in (key["secret"], token, "bad-secret-token", ADMIN_KEY):
        assert secret not in text


@pytest.mark.parametrize("failure", [OutcomeUnknown("it may have been"), KeyError("a mistake of ours")])
async def test_a_change_that_may_have_been_made_is_an_event(
    client: Client, database: FakeDatabase, events: Events, failure: Exception
) -> None:
    database.failure = failure
    for method, action in (("PUT", "schema_put"), ("DELETE", "schema_deleted")):
        await client(method, "/schema/chat", b"{}" if method == "PUT" else None, headers=MINE)
        what = {"action": action, "outcome": "unknown", "schema_id": "chat"}
        assert events() == [COMMON | ADMIN | what]


async def test_a_change_that_was_cut_off_is_told_of() -> None:
    told: list[Outcome] = []

    async def change() -> None:
        with telling(told.append):
            await asyncio.sleep(60)

    task = asyncio.create_task(change())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == [Outcome.UNKNOWN]
