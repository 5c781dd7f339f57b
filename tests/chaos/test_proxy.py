"""Each fault of the proxy does to a request what it says, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from support.programs import free_port

from chaos.proxy import Proxy, read_message
from chaos.schedule import NETWORK

REQUEST = b"PUT /b/k HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nhello"
REPLY = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 4\r\n\r\ndone'

CHUNKS = b"2\r\nhi\r\n1;x=y\r\n!\r\n0\r\nTrailer: 1\r\n\r\n"


class Server:
    """Remembers requests and answers each with the same reply."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.got: list[bytes] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                while (request := await read_message(reader)) is not None:
                    self.got.append(request.raw)
                    writer.write(self.reply)
        finally:
            writer.close()

    async def close(self) -> None:
        tasks = [task for task in self._tasks if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # Closed connections are let go of in the loop's next turn.


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes, size: int) -> bytes:
        """Send a request and read a reply of this size, or whatever comes before the end."""
        self.writer.write(request)
        async with asyncio.timeout(20.0):
            try:
                return await self.reader.readexactly(size)
            except asyncio.IncompleteReadError as exc:
                return exc.partial
            except ConnectionError:
                return b""

    async def ended(self) -> bool:
        async with asyncio.timeout(20.0):
            return await self.reader.read() == b""


@contextlib.asynccontextmanager
async def standing(reply: bytes = REPLY) -> AsyncIterator[tuple[Server, Proxy, Client]]:
    behind = Server(reply)
    server = await asyncio.start_server(behind.serve, "127.0.0.1", 0)
    try:
        async with Proxy(server.sockets[0].getsockname()[1], seed=1).running() as proxy:
            client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
            yield behind, proxy, client
            client.writer.close()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()
    finally:
        server.close()
        await behind.close()


async def test_without_a_fault_requests_pass_on_one_connection():
    async with standing() as (server, proxy, client):
        for _ in range(3):
            assert await client.ask(REQUEST, len(REPLY)) == REPLY
        assert (server.got, server.connections) == ([REQUEST] * 3, 1)
        assert not proxy.hits


@pytest.mark.parametrize(
    ("request_bytes", "reply"),
    [
        (
            b"GET /b HTTP/1.1\r\nHost: here\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
        ),
        (b"HEAD /b/k HTTP/1.1\r\nHost: here\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n"),
        (b"GET /b/k HTTP/1.1\r\nHost: here\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
        (
            b"PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
        ),
    ],
)
async def test_messages_of_every_form_pass_unchanged(request_bytes, reply):
    async with standing(reply) as (server, _, client):
        for count in (1, 2):
            assert await client.ask(request_bytes, len(reply)) == reply
            assert server.got == [request_bytes] * count


@pytest.mark.parametrize(
    ("fault", "forwarded", "status", "ends"),
    [
        ("drop-before", 0, b"", True),
        ("drop-after", 1, b"", True),
        ("refuse-before", 0, b"503", False),
        ("refuse-after", 1, b"503", False),
        ("late", 1, b"", True),
        ("twice", 2, b"200", False),
        ("delay", 1, b"200", False),
    ],
)
async def test_a_fault_does_what_it_says(fault, forwarded, status, ends):
    async with standing() as (server, proxy, client):
        proxy.begin(fault, 1.0)
        head = await client.ask(REQUEST, 12)
        assert head[9:] == status
        if fault == "late":
            assert server.got == []
        if ends:
            assert await client.ended()
        async with asyncio.timeout(20.0):
            while len(server.got) < forwarded:
                await asyncio.sleep(0.01)
        assert server.got == [REQUEST] * forwarded
        assert proxy.hits == {fault: 1}


async def test_a_truncated_reply_breaks_off_after_the_server_had_the_request():
    async with standing() as (server, proxy, client):
        proxy.begin("truncate", 1.0)
        got = await client.ask(REQUEST, len(REPLY))
        assert 0 < len(got) < len(REPLY) and REPLY.startswith(got)
        assert server.got == [REQUEST]


async def test_a_fault_hits_its_share_and_ends():
    async with standing() as (server, proxy, client):
        proxy.begin("refuse-before", 0.5)
        heads = []
        for _ in range(60):
            heads.append(await client.ask(REQUEST, 12))
            rest = REPLY if heads[-1].endswith(b"200") else b""
            await client.reader.readexactly(len(rest) - 12) if rest else await skip_refusal(client)
        refused = sum(head.endswith(b"503") for head in heads)
        assert 15 < refused < 45
        assert (len(server.got), proxy.hits["refuse-before"]) == (60 - refused, refused)
        proxy.end()
        assert await client.ask(REQUEST, len(REPLY)) == REPLY


async def skip_refusal(client: Client) -> None:
    """Read the rest of a refusal whose first 12 bytes were read."""
    head = await client.reader.readuntil(b"\r\n\r\n")
    length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    await client.reader.readexactly(length)


async def test_a_server_that_is_down_breaks_the_connection():
    async with Proxy(free_port()).running() as proxy:
        client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        assert await client.ask(REQUEST, len(REPLY)) == b""
        client.writer.close()


def test_every_network_fault_is_tested():
    told = "drop-before drop-after refuse-before refuse-after late twice delay truncate"
    assert set(told.split()) == set(NETWORK)
