"""Floods and malformed framing over raw sockets, while a polite client asks on."""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from integration.cluster import ADMIN_KEY, MASTER_KEY
from support.programs import Program, free_port, programs, wait_until_ready

from deltadatabase.limits import HEADER_RECEIVE_TIMEOUT_S, MIB
from security.attacker import ADMIN, ANSWER_S, resident_bytes, serve

pytestmark = pytest.mark.integration

DESCRIPTORS = 3000
"""What each attacked process may have here: its bound of connections is about 2,000 then."""
ATTACKERS = 4000
HALF_A_REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
HALF_A_BODY = b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n" + b" " * 30_000


@pytest.fixture
def confined(tmp_path: Path) -> Iterator[tuple[Program, int, int]]:
    """A main worker with few descriptors: its process, REST port and gRPC port."""
    if shutil.which("prlimit") is None:
        pytest.skip("needs prlimit of util-linux")
    command = ("prlimit", f"--nofile=256:{DESCRIPTORS}", sys.executable, "-m", "deltadatabase.cli", "deltadb")
    with programs(tmp_path, commands={"deltadb": command}) as started:
        rest, control = free_port(), free_port()
        program = started.start(
            "deltadb",
            "serve",
            f"-rest-addr=127.0.0.1:{rest}",
            f"-grpc-addr=127.0.0.1:{control}",
            "-workers=1",
            f"-data={tmp_path / 'db'}",
            environ={"MASTER_KEY": MASTER_KEY, "ADMIN_KEY": ADMIN_KEY},
        )
        wait_until_ready(f"http://127.0.0.1:{rest}", program)
        yield program, rest, control


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < ATTACKERS + 1000:
        pytest.skip("this machine does not let one process hold so many connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, ATTACKERS + 1000), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def flood(port: int, says: bytes, held: list[socket.socket]) -> None:
    """Open connections from another address of this machine; say a little on each, and no more."""
    for number in range(ATTACKERS):
        connection = socket.socket()
        connection.setblocking(False)
        connection.bind(("127.0.0.2", 0))
        connection.connect_ex(("127.0.0.1", port))
        held.append(connection)
        if number % 100 == 99:
            time.sleep(0.02)
            for each in held[-100:]:
                with contextlib.suppress(OSError):
                    each.send(says)


def slowest_s(
    url: str, ask: Callable[[httpx.Client], httpx.Response], while_running: threading.Thread
) -> float:
    """The longest that a polite client waited, who connects anew each time."""
    worst = 0.0
    rounds = 0
    while while_running.is_alive() or rounds < 10:
        begin = time.monotonic()
        with httpx.Client(base_url=url, timeout=20.0) as client:
            assert ask(client).status_code == 200
        worst = max(worst, time.monotonic() - begin)
        rounds += 1
        time.sleep(0.1)
    return worst


@pytest.mark.parametrize(
    ("target", "says"),
    [("rest", HALF_A_REQUEST), ("rest", b""), ("rest", HALF_A_BODY), ("grpc", b"")],
    ids=["half a request", "silence", "half a body", "silence on the gRPC port"],
)
def test_one_address_with_thousands_of_connections_delays_nobody(confined, target, says):
    program, rest, control = confined
    url = f"http://127.0.0.1:{rest}"
    held: list[socket.socket] = []

    def ask(client: httpx.Client) -> httpx.Response:
        client.put("/entity/notes", json={"a": 1}, headers=ADMIN).raise_for_status()
        return client.get("/entity/notes", params={"key": "a"}, headers=ADMIN)

    with many_descriptors():
        attack = threading.Thread(target=flood, args=(control if target == "grpc" else rest, says, held))
        attack.start()
        try:
            worst_s = slowest_s(url, ask, attack)
        finally:
            attack.join()
            for each in held:
                each.close()
    assert len(held) == ATTACKERS
    # Without the guard it is the header timeout. Tests beside this one may take the machine for seconds.
    assert worst_s < HEADER_RECEIVE_TIMEOUT_S / 3
    assert program.process.poll() is None
    assert "the largest holders lost some" in program.output
    assert resident_bytes(program.process.pid) < 400 * MIB


# Two readings of one request

SECOND = b"GET /api/schemas HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b'8\r\n{"a": 1}\r\n0\r\n\r\n'


def conversation(port: int, data: bytes) -> bytes:
    """Everything that comes back until the server closes, or is silent for a second."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
        connection.sendall(data)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while received := connection.recv(65_536):
                answer += received
    return answer


def put_with(framing: bytes, rest: bytes) -> bytes:
    return b"PUT /entity/notes HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n" + rest + SECOND


def test_a_request_with_two_lengths_is_read_by_its_chunks_and_nothing_after_it_is_served(started):
    """The server library takes the Content-Length away before we see it, so this is no 400 of ours.

    RFC 9112, section 6.3, allows it: the chunks count, and the connection is closed. So whatever a
    proxy in front made of the rest, no second request in it is answered.
    """
    _, port = serve(started, "-memory")
    for framing in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ):
        answer = conversation(port, put_with(framing, CHUNKED))
        assert answer.count(b"HTTP/1.1 ") == 1, answer
        assert b"connection: close" in answer


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\nContent-Length: 8\r\n",
        b"Transfer-Encoding: chunked, identity\r\nContent-Length: 8\r\n",
        b"Transfer-Encoding: xchunked\r\nContent-Length: 8\r\n",
        b"Content-Length: 8\r\nContent-Length: 5\r\n",
        b"Content-Length: 8, 5\r\n",
        b"Content-Length: +8\r\n",
        b"Content-Length : 8\r\n",
    ],
)
def test_a_request_that_two_programs_could_read_differently_is_refused_and_the_connection_ends(
    started, framing
):
    _, port = serve(started, "-memory")
    answer = conversation(port, put_with(framing, CHUNKED))
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert answer.startswith(b"HTTP/1.1 400 ") or not answer


def test_a_pipelined_request_is_a_request_of_its_own(started):
    """The tests above could not fail if a second request on one connection were never answered."""
    _, port = serve(started, "-memory")
    answer = conversation(port, put_with(b"Transfer-Encoding: chunked\r\n", CHUNKED))
    assert answer.count(b"HTTP/1.1 200 ") == 2


def test_a_body_that_stalls_is_given_up(started):
    _, port = serve(started, "-memory")
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=30.0) as connection:
        connection.sendall(b"PUT /entity/notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - begin < 20 + ANSWER_S
