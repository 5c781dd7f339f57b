import json
from collections.abc import Callable
from typing import Any

import pytest

from deltadatabase.errors import Invalid
from deltadatabase.gateway.asgi import Answer, ASGIApp, Message, Receive, Scope, Send
from deltadatabase.gateway.edge import Edge, Exchange, exchange_of
from unit.gateway.rest_fakes import Client, CountingRandom, FakeDatabase, TestClock


async def framework(scope: Scope, receive: Receive, send: Send) -> None:
    exchange = exchange_of(scope)
    if scope["path"] == "/raise":
        raise KeyError("secret document content")
    body = await exchange.read_body(5) if scope["path"] == "/read" else b""
    told = {"method": scope["method"], "path": scope["path"], "body": body.decode()}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


async def entity(exchange: Exchange) -> Answer:
    if exchange.head.path == "/entity/bad":
        raise Invalid("no")
    return Answer(200, [], exchange.head.path.encode(), ", store;dur=1.5")


def edge(app: ASGIApp = framework, **options: Any) -> Client:
    return Client(
        Edge(
            app,
            entity,
            entity_prefix="/entity/",
            clock=TestClock(),
            random=CountingRandom(),
            local_only=options.get("local_only", False),
            body_timeout_s=1.0,
        )
    )


async def test_entities_skip_the_framework() -> None:
    reply = await edge()("GET", "/entity/%C3%A9")
    assert reply.body.decode() == "/entity/é"
    assert reply.headers["content-length"] == "10"
    assert reply.headers["server-timing"] == "total;dur=0.000, store;dur=1.5"


async def test_the_framework_sees_the_decoded_path() -> None:
    assert (await edge()("GET", "/%C3%A9")).json()["path"] == "/é"


async def test_each_answer_is_named() -> None:
    client = edge()
    assert (await client("GET", "/x")).headers["x-request-id"] == "0000000000000001"
    assert (await client("GET", "/entity/bad")).json()["request_id"] == "0000000000000002"
    mine = [("x-request-id", "mine")]
    assert (await client("GET", "/x", headers=mine)).headers["x-request-id"] == "mine"
    assert (await client("GET", "/raise", headers=mine)).json()["request_id"] == "mine"
    assert (await client("GET", "/%00", headers=mine)).json()["request_id"] == "mine"


async def test_nothing_is_guessed_from_content() -> None:
    for path in ("/x", "/entity/x", "/entity/bad"):
        assert (await edge()("GET", path)).headers["x-content-type-options"] == "nosniff"


async def test_head_is_get_without_the_body() -> None:
    reply = await edge()("HEAD", "/x")
    assert (reply.status, reply.body) == (200, b"")
    got = await edge()("HEAD", "/entity/x")
    assert (got.body, got.headers["content-length"]) == (b"", "9")


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"])
async def test_the_framework_never_meets_a_method_that_no_route_serves(method: str) -> None:
    assert (await edge()(method, "/x")).json()["method"] == "refused"


@pytest.mark.parametrize("path", [b"/%ff", b"/a%00", b"/%4", b"/entity/%ff"])
async def test_a_path_that_is_not_text_is_400_and_ends_the_connection(path: bytes) -> None:
    reply = await edge()("GET", path)
    assert (reply.status, reply.json()["error"]) == (400, "bad_path")
    assert reply.headers["connection"] == "close"


async def test_large_headers_are_431() -> None:
    reply = await edge()("GET", "/x", headers=[("x", "y" * 20_000)])
    assert (reply.status, reply.json()["error"]) == (431, "headers_too_large")


async def test_two_framings_are_400_and_end_the_connection() -> None:
    reply = await edge()("PUT", "/read", b"abc", headers=[("transfer-encoding", "chunked")])
    assert (reply.status, reply.json()["error"]) == (400, "bad_framing")
    assert reply.headers["connection"] == "close"


async def test_an_unexpected_failure_is_500_without_its_text() -> None:
    reply = await edge()("GET", "/raise")
    assert (reply.status, reply.json()["error"]) == (500, "internal")
    assert b"secret" not in reply.body


async def test_a_read_body_leaves_the_connection_usable() -> None:
    reply = await edge()("PUT", "/read", [b"ab", b"c"])
    assert reply.json()["body"] == "abc"
    assert "connection" not in reply.headers


@pytest.mark.parametrize("path", ["/read", "/x", "/entity/bad", "/entity/x"])
async def test_an_unread_body_is_dropped_before_the_answer(path: str) -> None:
    received = 0
    app = edge().app

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        async def counted() -> Message:
            nonlocal received
            received += 1
            return await receive()

        await app(scope, counted, send)

    reply = await Client(counting)("PUT", path, [b"abc", b"def", b"ghi"])
    assert received == 3
    assert reply.status == {"/read": 413, "/x": 200, "/entity/bad": 400, "/entity/x": 200}[path]
    assert "connection" not in reply.headers


async def test_an_endless_body_ends_the_connection() -> None:
    reply = await edge()("PUT", "/read", [bytes(1 << 20)] * 10)
    assert reply.status == 413
    assert reply.headers["connection"] == "close"


async def test_in_dev_mode_foreign_pages_get_403() -> None:
    client = edge(local_only=True)
    assert (await client("GET", "/x")).status == 200
    foreign = [("origin", "https://evil.example")]
    assert (await client("GET", "/x", headers=foreign)).json()["error"] == "foreign_origin"
    assert (await client("GET", "/entity/x", headers=foreign)).status == 403


async def test_other_protocols_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def never() -> Message:
        raise AssertionError

    async def drop(message: Message) -> None:
        raise AssertionError

    await edge(app).app({"type": "lifespan"}, never, drop)
    assert seen == ["lifespan"]


async def test_the_whole_application_hides_what_fails_inside(
    make_client: Callable[..., Client], database: FakeDatabase
) -> None:
    database.failure = RuntimeError("secret document content")
    client = make_client()
    for path in ("/entity/chat?key=a", "/schema/chat", "/admin/workers", "/api/schemas"):
        reply = await client("GET", path)
        assert (reply.status, reply.json()["error"]) == (500, "internal")
        assert b"secret" not in reply.body
