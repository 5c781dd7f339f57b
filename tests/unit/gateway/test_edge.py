import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from deltadatabase.errors import Invalid, Unavailable
from deltadatabase.gateway.asgi import (
    Answer,
    ASGIApp,
    Message,
    Receive,
    Scope,
    Send,
    StreamedAnswer,
    Timing,
)
from deltadatabase.gateway.edge import Edge, Exchange, exchange_of, server_timing
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
    return Answer(200, [], exchange.head.path.encode(), (("store", 1500),))


def stream_of(*chunks: bytes | Exception, closed: list[bool] | None = None) -> AsyncIterator[bytes]:
    async def made() -> AsyncIterator[bytes]:
        try:
            for chunk in chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
                await asyncio.sleep(0)
        finally:
            if closed is not None:
                closed.append(True)

    return made()


async def stream(exchange: Exchange) -> StreamedAnswer:
    headers = [(b"content-type", b"application/x-ndjson")]
    if exchange.head.path == "/stream/read":
        return StreamedAnswer(200, headers, stream_of(*[chunk async for chunk in exchange.body_chunks()]))
    if exchange.head.path == "/stream/broken":
        return StreamedAnswer(200, headers, stream_of(b"one", Unavailable("no")))
    return StreamedAnswer(200, headers, stream_of(b"one", b"two"))


def edge(app: ASGIApp = framework, **options: Any) -> Client:
    return Client(
        Edge(
            app,
            options.get("handlers", {"entity": entity, "stream": stream}),
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
    assert reply.headers["server-timing"] == "total;dur=0.000, route;dur=0.000, store;dur=1.500"


@pytest.mark.parametrize(
    ("worker", "header"),
    [
        (None, "total;dur=5.000"),
        ((), "total;dur=5.000, route;dur=5.000"),
        (
            (("seal", 250), ("store", 4000)),
            "total;dur=5.000, route;dur=0.750, seal;dur=0.250, store;dur=4.000",
        ),
        # Two clocks measured it.
        ((("store", 5001),), "total;dur=5.000, route;dur=0.000, store;dur=5.001"),
    ],
)
def test_the_route_has_what_the_workers_steps_leave(worker: Timing | None, header: str) -> None:
    assert server_timing(5.0, worker) == header.encode()


async def test_the_framework_sees_the_decoded_path() -> None:
    assert (await edge()("GET", "/%C3%A9")).json()["path"] == "/é"


async def test_each_answer_is_named() -> None:
    client = edge()
    assert (await client("GET", "/x")).headers["x-request-id"] == "0000000100000001"
    assert (await client("GET", "/entity/bad")).json()["request_id"] == "0000000100000002"
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


async def exchanged(path: str, method: str = "GET", messages: list[Message] | None = None) -> list[Message]:
    """What the edge sends to a client that sends ``messages`` and then stays."""
    sent: list[Message] = []
    coming = list(messages or [])

    async def receive() -> Message:
        if coming:
            return coming.pop(0)
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(dict(message))
        await asyncio.sleep(0)

    headers = [(b"transfer-encoding", b"chunked")] if messages else []
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }
    await edge().app(scope, receive, send)
    return sent


async def test_a_stream_is_sent_piece_by_piece_and_ended() -> None:
    start, *pieces = await exchanged("/stream/two")
    assert start["status"] == 200
    assert (b"content-type", b"application/x-ndjson") in start["headers"]
    assert b"content-length" not in dict(start["headers"])
    assert [piece["body"] for piece in pieces] == [b"one", b"two", b""]
    assert [piece.get("more_body", False) for piece in pieces] == [True, True, False]


async def test_a_stream_that_fails_has_no_proper_end() -> None:
    _, *pieces = await exchanged("/stream/broken")
    assert [piece["body"] for piece in pieces] == [b"one"]
    assert pieces[0]["more_body"] is True


async def test_the_answer_to_head_has_no_stream() -> None:
    _, *pieces = await exchanged("/stream/two", "HEAD")
    assert [piece["body"] for piece in pieces] == [b""]


async def test_a_stream_stops_when_the_client_leaves() -> None:
    closed: list[bool] = []

    async def endless(_: Exchange) -> StreamedAnswer:
        return StreamedAnswer(200, [], stream_of(*[b"x"] * 100_000, closed=closed))

    sent: list[Message] = []

    async def receive() -> Message:
        while len(sent) < 5:
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(dict(message))
        await asyncio.sleep(0)

    client = edge(handlers={"stream": endless})
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/stream/x",
        "raw_path": b"/stream/x",
        "query_string": b"",
        "headers": [],
    }
    await client.app(scope, receive, send)
    assert closed == [True]
    assert len(sent) < 100


async def test_a_stream_stops_when_its_client_takes_nothing() -> None:
    closed: list[bool] = []

    async def patient(_: Exchange) -> StreamedAnswer:
        return StreamedAnswer(200, [], stream_of(b"x", closed=closed), take_s=0.01)

    async def receive() -> Message:
        return await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.get_running_loop().create_future()

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/stream/x",
        "raw_path": b"/stream/x",
        "query_string": b"",
        "headers": [],
    }
    async with asyncio.timeout(10):
        await edge(handlers={"stream": patient}).app(scope, receive, send)
    assert closed == [True]


async def test_a_body_can_be_read_while_it_arrives() -> None:
    body: list[Message] = [
        {"type": "http.request", "body": b"one", "more_body": True},
        {"type": "http.request", "body": b"", "more_body": True},
        {"type": "http.request", "body": b"two", "more_body": False},
    ]
    _, *pieces = await exchanged("/stream/read", "POST", body)
    assert [piece["body"] for piece in pieces] == [b"one", b"two", b""]


async def test_a_body_that_breaks_off_is_refused_while_it_arrives() -> None:
    body: list[Message] = [
        {"type": "http.request", "body": b"one", "more_body": True},
        {"type": "http.disconnect"},
    ]
    start, *_ = await exchanged("/stream/read", "POST", body)
    assert start["status"] == 400
