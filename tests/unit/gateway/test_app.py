from collections.abc import Callable

import pytest

from deltadatabase import errors
from deltadatabase.gateway.openapi import OPERATIONS
from unit.gateway.rest_fakes import Client, FakeDatabase

MEMBERS = {"type", "title", "status", "detail", "error", "request_id"}
TARGETS = sorted(
    {
        (op.method, op.path.format(schema_id="chat", key="k", key_id="x") + ("?key=a" if op.query else ""))
        for op in OPERATIONS
        if op.method != "HEAD"  # Its answers have no body; see below.
    }
)
GUARDED = [
    (op.method, op.path.format(schema_id="chat", key="k", key_id="x") + ("?key=a" if op.query else ""))
    for op in OPERATIONS
    if op.permission is not None and op.method != "HEAD"
]


def assert_problem(status: int, headers: dict[str, str], document: dict[str, object]) -> None:
    assert headers["content-type"] == "application/problem+json"
    assert set(document) >= MEMBERS
    assert set(document) <= MEMBERS | {"errors", "outcomes", "checks"}
    assert document["status"] == status
    assert document["request_id"] == headers["x-request-id"]


@pytest.mark.parametrize(("method", "target"), GUARDED)
async def test_every_guarded_route_wants_credentials(client: Client, method: str, target: str) -> None:
    reply = await client(method, target, key=None)
    assert reply.status == 401
    assert_problem(401, reply.headers, reply.json())
    assert "Bearer" in reply.headers["www-authenticate"]
    assert "Authorization" in reply.json()["detail"]


async def test_a_refused_head_has_its_status_alone(client: Client) -> None:
    reply = await client("HEAD", "/entities/chat/k", key=None)
    assert (reply.status, reply.body) == (401, b"")
    reply = await client("HEAD", "/entities/chat/absent")
    assert (reply.status, reply.body) == (404, b"")


@pytest.mark.parametrize(("method", "target"), GUARDED)
async def test_every_guarded_route_is_open_in_dev_mode(
    make_client: Callable[..., Client], method: str, target: str
) -> None:
    client = make_client(dev_mode=True)
    for key in (None, "unknown"):
        reply = await client(method, target, b"{}" if method in ("PUT", "POST") else None, key=key)
        assert reply.status not in (401, 403)


@pytest.mark.parametrize(("method", "target"), TARGETS)
async def test_every_route_refuses_foreign_pages_in_dev_mode(
    make_client: Callable[..., Client], method: str, target: str
) -> None:
    reply = await make_client(dev_mode=True)(method, target, headers=[("origin", "http://evil.example")])
    assert reply.status == 403
    assert_problem(403, reply.headers, reply.json())


@pytest.mark.parametrize(("method", "target"), TARGETS)
async def test_every_failing_route_answers_with_a_problem(
    client: Client, database: FakeDatabase, method: str, target: str
) -> None:
    database.failure = errors.Unavailable("the store is down", code="store_down")
    bodies: list[bytes | None] = [None] if method in ("GET", "DELETE") else [None, b"\xff", b"[1", b'{"k":1}']
    for body in bodies:
        reply = await client(method, target, body)
        assert reply.status < 500 or reply.status == 503
        if reply.status >= 400:
            assert_problem(reply.status, reply.headers, reply.json())
        if reply.status == 503:
            assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize(("method", "target"), TARGETS)
@pytest.mark.parametrize("refused", ["OPTIONS", "TRACE", "PATCH", "BREW"])
async def test_every_route_refuses_other_methods(
    client: Client, method: str, target: str, refused: str
) -> None:
    if (refused, target) in TARGETS:
        return
    reply = await client(refused, target, key=None)
    assert reply.status == 405
    assert_problem(405, reply.headers, reply.json())
    allowed = reply.headers["allow"].split(", ")
    assert method in allowed
    assert refused not in allowed
    assert ("GET" in allowed) == ("HEAD" in allowed)


@pytest.mark.parametrize(
    "target", ["/nope", "/api", "/api/keys/a/b", "/schema", "/schema/", "/schemas/a/b", "//x", "/docs/x", "*"]
)
async def test_unknown_routes_are_404(client: Client, target: str) -> None:
    reply = await client("GET", target)
    assert reply.status == 404
    assert_problem(404, reply.headers, reply.json())
    assert reply.json()["error"] == "no_route"


async def test_a_host_that_cannot_be_one_is_400(client: Client) -> None:
    app, scope_host = client.app, b"a b\x7f"

    async def with_host(scope, receive, send):  # type: ignore[no-untyped-def]
        scope["headers"] = [(b"host", scope_host)]
        await app(scope, receive, send)

    reply = await Client(with_host)("GET", "/health")
    assert reply.status == 400
    assert_problem(400, reply.headers, reply.json())


async def test_nothing_of_an_answer_is_kept_by_caches(client: Client) -> None:
    for target in ("/api/me", "/api/keys", "/admin/workers", "/nope"):
        assert (await client("GET", target)).headers["cache-control"] == "no-store"
