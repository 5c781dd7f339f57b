"""HTTPS on real sockets: versions of TLS, and certificates that change under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from support.certificates import Authority, Pair

from deltadatabase.crypto.certificates import Pem
from deltadatabase.gateway import trial
from deltadatabase.gateway.asgi import ASGIApp, Receive, Scope, Send
from deltadatabase.gateway.server import RestServer

AUTHORITY = Authority()
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
OLD, NEW = 0x10, 0x20


def pem_of(pair: Pair) -> Pem:
    return Pem(cert=pair.cert, key=pair.key, ca=b"", serial=f"{pair.serial:x}", not_after_ms=0)


@pytest.fixture
def roots(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(AUTHORITY.cert)
    return str(path)


async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def serving(
    pair: Pair, app: ASGIApp = answer_at_once, header_timeout_s: float = 30.0
) -> AsyncIterator[RestServer]:
    server = RestServer(app, "127.0.0.1", 0, tls=pem_of(pair), header_timeout_s=header_timeout_s)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(5.0)


# -- versions --------------------------------------------------------------------------


def client_of(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that speaks this version only, whatever the system thinks of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = version
        context.maximum_version = version
    return context


def spoken(port: int, version: ssl.TLSVersion) -> str | None:
    """What was agreed on with the server at ``port``; None when it refused."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            client_of(version).wrap_socket(plain) as secure,
        ):
            return secure.version()
    except (ssl.SSLError, ConnectionError):
        return None


@pytest.fixture
def lax_server(tmp_path: Path) -> Iterator[int]:
    """A server that speaks every version there is: what shows that a refusal is the server's."""
    AUTHORITY.issue().write(tmp_path / "lax")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "lax" / "cert.pem", tmp_path / "lax" / "key.pem")
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


OUTDATED = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]


@pytest.mark.parametrize("version", OUTDATED)
def test_the_client_of_these_tests_speaks_outdated_versions(lax_server, version):
    assert spoken(lax_server, version) == version.name.replace("_", ".")


@pytest.mark.parametrize("version", OUTDATED)
async def test_outdated_versions_are_refused(version):
    async with serving(AUTHORITY.issue()) as server:
        assert await asyncio.to_thread(spoken, server.port, version) is None


@pytest.mark.parametrize(
    ("version", "name"), [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")]
)
async def test_present_versions_are_spoken(version, name):
    async with serving(AUTHORITY.issue()) as server:
        assert await asyncio.to_thread(spoken, server.port, version) == name


# -- certificates that change ----------------------------------------------------------


class Client:
    """One connection, and the serial number that the server showed for it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.serial = x509.load_der_x509_certificate(shown).serial_number
        self.ends = False

    @classmethod
    async def connect(cls, port: int, roots: str) -> Client:
        context = ssl.create_default_context(cafile=roots)
        opening = asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        return cls(*await asyncio.wait_for(opening, 10))

    async def get(self) -> None:
        """One request; ``ends`` tells whether the answer was the connection's last."""
        self.writer.write(REQUEST)
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        assert head.startswith(b"HTTP/1.1 200"), head
        assert await self.reader.readexactly(2) == b"ok"
        self.ends = b"\r\nconnection: close\r\n" in head.lower()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await self.writer.wait_closed()


@pytest.fixture
def connect(roots: str) -> Callable[[RestServer], Awaitable[Client]]:
    return lambda server: Client.connect(server.port, roots)


async def test_new_connections_see_the_new_certificate_at_once(connect):
    async with serving(AUTHORITY.issue(serial=OLD)) as server:
        first = await connect(server)
        await first.get()
        assert (first.serial, first.ends) == (OLD, False)
        await server.renew(pem_of(AUTHORITY.issue(serial=NEW)))
        for _ in range(50):
            later = await connect(server)
            await later.get()
            assert (later.serial, later.ends) == (NEW, False)
            await later.close()
        # The one that was there already is told to go with its next answer.
        await first.get()
        assert first.ends
        assert await asyncio.wait_for(first.reader.read(), 5) == b""
        await first.close()


async def test_a_request_in_flight_is_answered(connect):
    release, entered = asyncio.Event(), asyncio.Event()

    async def wait_first(scope: Scope, receive: Receive, send: Send) -> None:
        entered.set()
        await release.wait()
        await answer_at_once(scope, receive, send)

    async with serving(AUTHORITY.issue(serial=OLD), wait_first, header_timeout_s=0.5) as server:
        client = await connect(server)
        asking = asyncio.create_task(client.get())
        await entered.wait()
        await server.renew(pem_of(AUTHORITY.issue(serial=NEW)))
        # Longer than the relieved listener is left alone.
        await asyncio.sleep(2.0)
        release.set()
        await asking
        await client.close()


async def test_an_idle_connection_is_closed_when_its_time_is_over(connect):
    async with serving(AUTHORITY.issue(serial=OLD), header_timeout_s=1.0) as server:
        client = await connect(server)
        await client.get()
        await server.renew(pem_of(AUTHORITY.issue(serial=NEW)))
        await asyncio.sleep(0.5)
        assert not client.reader.at_eof()
        assert await asyncio.wait_for(client.reader.read(), 5) == b""
        await client.close()


async def test_a_handshake_that_is_under_way_comes_to_its_end(connect, roots):
    async with serving(AUTHORITY.issue(serial=OLD)) as server:
        context = ssl.create_default_context(cafile=roots)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.sleep(0.2)
        await server.renew(pem_of(AUTHORITY.issue(serial=NEW)))
        await asyncio.sleep(0.2)
        await writer.start_tls(context, server_hostname="localhost")
        client = Client(reader, writer)
        await client.get()
        assert (client.serial, client.ends) == (OLD, True)
        await client.close()


async def hammer(
    connect: Callable[[RestServer], Awaitable[Client]],
    server: RestServer,
    renew: Callable[[RestServer, Pem], Awaitable[None]],
) -> tuple[int, list[str], list[set[int]]]:
    """Renew five times under load; the number of answers, what failed, and the serials seen after each."""
    failures: list[str] = []
    seen: list[set[int]] = []
    answers = 0
    ends = asyncio.Event()

    async def one(each: int) -> None:
        nonlocal answers
        while not ends.is_set():
            try:
                client = await connect(server)
                if seen:
                    seen[-1].add(client.serial)
                # Half of the clients keep their connection for as long as they may.
                for _ in range(1 if each % 2 else 1_000_000):
                    await client.get()
                    answers += 1
                    if client.ends or ends.is_set():
                        break
                    await asyncio.sleep(0.001)
                await client.close()
            except (OSError, EOFError, TimeoutError) as exc:
                failures.append(repr(exc))

    clients = [asyncio.create_task(one(each)) for each in range(8)]
    await asyncio.sleep(0.3)
    for serial in range(NEW, NEW + 5):
        await renew(server, pem_of(AUTHORITY.issue(serial=serial)))
        seen.append(set())
        await asyncio.sleep(0.6)
    ends.set()
    await asyncio.gather(*clients)
    return answers, failures, seen


async def test_five_changes_under_load_fail_no_request(connect):
    async with serving(AUTHORITY.issue(serial=OLD), header_timeout_s=2.0) as server:
        answers, failures, seen = await hammer(connect, server, RestServer.renew)
        assert failures == []
        assert answers > 200
        # Who was already shaking hands may have met the certificate before.
        for number, serials in enumerate(seen):
            assert NEW + number in serials and serials <= {NEW + number - 1, NEW + number, OLD}


async def test_the_load_finds_a_listener_that_is_stopped_at_once(connect):
    async def stop_the_earlier(server: RestServer, pem: Pem) -> None:
        """Granian's own graceful end instead of a retirement."""
        earlier = server._listener
        server._tls = pem
        server._listener = server._listen(server._bound)
        await asyncio.sleep(0.05)
        await earlier.stop(5.0)

    async with serving(AUTHORITY.issue(serial=OLD), header_timeout_s=2.0) as server:
        _, failures, _ = await hammer(connect, server, stop_the_earlier)
        assert failures


async def test_relieved_listeners_leave_nothing_behind(connect):
    async with serving(AUTHORITY.issue(serial=OLD), header_timeout_s=0.2) as server:
        await (await connect(server)).close()

        async def settled() -> tuple[int, int]:
            await asyncio.sleep(1.8)
            return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

        before = await settled()
        for serial in range(NEW, NEW + 8):
            await server.renew(pem_of(AUTHORITY.issue(serial=serial)))
            await (await connect(server)).close()
        assert await settled() <= before
        assert server._retiring == {}


async def test_stopping_ends_relieved_listeners_too(connect):
    async with serving(AUTHORITY.issue(serial=OLD)) as server:
        client = await connect(server)
        await client.get()
        await server.renew(pem_of(AUTHORITY.issue(serial=NEW)))
        began = time.monotonic()
        await server.stop(5.0)
        assert time.monotonic() - began < 3
        assert await asyncio.wait_for(client.reader.read(), 5) == b""
        await client.close()
        await server.renew(pem_of(AUTHORITY.issue(serial=NEW)))
        with pytest.raises(ConnectionError):
            await connect(server)


# -- the trial -------------------------------------------------------------------------


async def test_a_certificate_that_granian_can_use_is_accepted():
    # Often: how the child ends must not spoil what it found.
    for _ in range(5):
        verdicts = await asyncio.gather(*(trial.accepts(pem_of(AUTHORITY.issue())) for _ in range(2)))
        assert verdicts == [True, True]


async def test_what_would_end_the_process_is_refused():
    other = AUTHORITY.issue()
    good = AUTHORITY.issue()
    mixed = Pair(good.cert, other.key, 1)
    assert not await trial.accepts(pem_of(mixed))
    assert not await trial.accepts(pem_of(Pair(good.cert, b"nonsense", 1)))
