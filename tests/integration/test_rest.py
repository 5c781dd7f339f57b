"""The REST side on real sockets: what frameworks and servers see only as raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from unit.gateway.rest_fakes import ADMIN_KEY, FakeDatabase

from deltadatabase.auth.accounts import Accounts
from deltadatabase.clock import SystemClock, system_random
from deltadatabase.crypto.certificates import Pem
from deltadatabase.errors import StartupError
from deltadatabase.gateway.app import GatewayOptions, create_app
from deltadatabase.gateway.asgi import ASGIApp, Receive, Scope, Send
from deltadatabase.gateway.server import RestServer

HOST = f"Host: localhost\r\nAuthorization: Bearer {ADMIN_KEY}\r\n".encode()
LIMIT_BYTES = 100_000

Exchange = Callable[..., Awaitable[bytes]]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ASGIApp]:
    database = FakeDatabase()
    accounts = Accounts(
        tmp_path / "accounts",
        clock=SystemClock(),
        random=system_random,
        admin_key=ADMIN_KEY,
        client_ttl_s=3600.0,
        dev_mode=False,
    )
    options = GatewayOptions(version="1", body_bytes_max=LIMIT_BYTES, body_timeout_s=0.3)
    yield create_app(
        database,
        database,
        database,
        database,
        database.rotation,
        accounts,
        options,
        clock=SystemClock(),
        random=system_random,
    )
    accounts.close()


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, tls: Pem | None = None) -> AsyncIterator[RestServer]:
    server = RestServer(app, "127.0.0.1", 0, tls=tls, header_timeout_s=0.6)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(5.0)


@pytest.fixture
async def server(app: ASGIApp) -> AsyncIterator[RestServer]:
    async with serving(app) as server:
        yield server


@pytest.fixture
def talk(server: RestServer) -> Exchange:
    """Sends raw bytes; returns all that comes back until the server closes, soon when idle."""

    async def talk(*parts: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        received = b""
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            while chunk := await asyncio.wait_for(reader.read(65_536), 10.0):
                received += chunk
            received += b"<closed>"
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return received

    return talk


async def test_documents_go_in_and_come_out(talk: Exchange) -> None:
    body = b'{"a b":{"x": 1}}'
    put = b"PUT /entity/chat HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    get = b"GET /entity/chat?key=a+b HTTP/1.1\r\n" + HOST + b"\r\n"
    head = b"HEAD /entity/chat?key=a%20b HTTP/1.1\r\n" + HOST + b"\r\n"
    unchanged = b'GET /entity/chat?key=a+b HTTP/1.1\r\nIf-None-Match: "1-aa"\r\n' + HOST + b"\r\n"
    # All on one connection: a wrong length of any answer would spoil the next.
    answers = (await talk(put, get, head, unchanged, get)).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"200", b"200", b"304", b"200"]
    assert [b'{"x": 1}' in answer for answer in answers] == [False, True, False, False, True]
    assert b"content-length: 8\r\n" in answers[2].lower()


@pytest.mark.parametrize("path", [b"/%ff", b"/schema/%c3%28", b"/a%00b", b"/entity/%ff?key=a", b"/%zz"])
async def test_a_path_that_is_not_text_is_a_problem(talk: Exchange, path: bytes) -> None:
    answer = await talk(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert b'"error":"bad_path"' in answer


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
    ],
)
async def test_two_framings_cannot_hide_a_second_request(talk: Exchange, framing: bytes) -> None:
    # hyper goes by the chunks, drops the length and closes (RFC 9112, section 6.3): the edge
    # never sees both.
    hidden = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = await talk(b"PUT /entity/chat HTTP/1.1\r\n" + HOST + framing + b"\r\n0\r\n\r\n" + hidden)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: x\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_broken_framing_is_400_and_ends_the_connection(talk: Exchange, framing: bytes) -> None:
    answer = await talk(b"PUT /entity/chat HTTP/1.1\r\n" + HOST + framing + b"\r\nabcd")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 50\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]
)
async def test_a_body_that_stalls_is_408_and_ends_the_connection(talk: Exchange, rest: bytes) -> None:
    answer = await talk(b"PUT /entity/chat HTTP/1.1\r\n" + HOST + rest)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"error":"request_timeout"' in answer
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHo", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"]
)
async def test_a_connection_that_sends_no_whole_head_is_closed(talk: Exchange, sent: bytes) -> None:
    assert (await talk(sent)).endswith(b"<closed>")


@pytest.mark.parametrize("size_bytes", [LIMIT_BYTES + 1, 6 << 20])
@pytest.mark.parametrize("authorized", [True, False])
async def test_a_client_that_sends_too_much_still_gets_its_answer(
    talk: Exchange, size_bytes: int, authorized: bool
) -> None:
    head = HOST if authorized else b"Host: localhost\r\n"
    answer = await talk(
        b"PUT /entity/chat HTTP/1.1\r\n" + head + b"Content-Length: %d\r\n\r\n" % size_bytes,
        bytes(size_bytes),
    )
    assert answer.startswith(b"HTTP/1.1 413 " if authorized else b"HTTP/1.1 401 ")
    assert b"application/problem+json" in answer
    assert b"connection: close" not in answer, "its connection can be used again"


async def test_chunks_beyond_the_limit_are_413(talk: Exchange) -> None:
    chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
    answer = await talk(
        b"PUT /entity/chat HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
        chunk * 8,
        b"0\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_what_is_refused_anyway_is_not_asked_for(talk: Exchange) -> None:
    expecting = b"Expect: 100-continue\r\nContent-Length: 5000000\r\n\r\n"
    answer = await talk(b"PUT /entity/chat HTTP/1.1\r\n" + HOST + expecting)
    assert answer.startswith(b"HTTP/1.1 413 ")
    welcome = await talk(
        b"PUT /entity/chat HTTP/1.1\r\n" + HOST + expecting.replace(b"5000000", b"7"), b'{"a":1}'
    )
    assert welcome.startswith(b"HTTP/1.1 100 ")
    assert b"HTTP/1.1 200 " in welcome


async def test_large_headers_are_431(talk: Exchange) -> None:
    answer = await talk(b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 20_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"error":"headers_too_large"' in answer
    assert (await talk(b"GET /health HTTP/1.1\r\nX: " + b"y" * 200_000)).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
async def test_unusual_requests_are_served(talk: Exchange, request_bytes: bytes) -> None:
    assert b" 200 OK\r\n" in await talk(request_bytes)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", b"404"),
        (b"OPTIONS /entity/chat HTTP/1.1\r\n" + HOST + b"\r\n", b"405"),
        (b"TRACE /api/me HTTP/1.1\r\n" + HOST + b"\r\n", b"405"),
        (b"G\xffT / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", b"400"),
        (b"GET /health HTTP/9.9\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00", b""),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
        (bytes(100), b""),
    ],
)
async def test_nonsense_does_no_harm(talk: Exchange, request_bytes: bytes, status: bytes) -> None:
    assert (await talk(request_bytes)).removeprefix(b"HTTP/1.1 ").startswith(status)
    assert b" 200 OK" in await talk(b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n")


async def test_an_occupied_port_is_one_clear_error(app: ASGIApp, server: RestServer) -> None:
    with pytest.raises(StartupError) as caught:
        await RestServer(app, "127.0.0.1", server.port).start()
    assert caught.value.code == "port_in_use"
    assert str(server.port) in caught.value.detail


async def test_an_address_that_is_not_ours_is_one_clear_error(app: ASGIApp) -> None:
    with pytest.raises(StartupError) as caught:
        await RestServer(app, "192.0.2.1", 0).start()
    assert caught.value.code == "bad_flag"


async def test_stopping_lets_requests_finish_and_refuses_new_ones() -> None:
    release = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})

    async with serving(slow) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(server.stop(5.0))
        await asyncio.sleep(0.1)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", server.port)
        assert not stopping.done()
        release.set()
        assert (await reader.read()).endswith(b"done")
        await stopping
        writer.close()
        with socket.create_server(("127.0.0.1", server.port)):
            pass


async def test_stopping_has_an_end() -> None:
    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async with serving(stuck) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.1)
        await asyncio.wait_for(server.stop(0.2), 2.0)
        await server.stop(0.2)
        writer.close()
