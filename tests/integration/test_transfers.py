"""Batches, imports and exports through real processes, and what breaks off half-way."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.programs import Program, Programs, free_port, wait_for, wait_until_ready
from support.weed import S3Server

from deltadatabase.gateway.ndjson import render_line
from deltadatabase.storage.paths import escape_key, listing_order
from integration.cluster import MARKER, Cluster, discreet_programs, s3_arguments

pytestmark = pytest.mark.integration

KEYS = (
    "a",
    "B",
    "é ü",
    "a/b",
    "../x",
    ".hidden",
    "=3D",
    '"quoted"',
    "back\\slash",
    "z" * 240,
    "emoji 🦜",
    "%41",
)
DOCUMENTS = (
    f'{{"bird": "{MARKER}"}}',
    f'\n{{\r\n  "bird": "{MARKER}",\n\t"n": [1.50, 1e2, -0.0]\n}}\n',
    f'"{MARKER} \\u00e9 é \\\\ \\" \\n 🦜"',
    f' ["{MARKER}", 123456789012345678901234567890] ',
    f'{{"a": "{MARKER}", "a": 2}}',
)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Programs]:
    with discreet_programs(tmp_path) as programs:
        yield programs


class Server:
    """``deltadb serve``, which can be killed and started again."""

    def __init__(self, programs: Programs, *flags: str) -> None:
        self.programs = programs
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.flags = flags
        self.program = self.start()

    def start(self) -> Program:
        self.program = self.programs.start(
            "deltadb", "serve", f"-rest-addr=127.0.0.1:{self.port}", "-data=db", *self.flags
        )
        wait_until_ready(self.url, self.program)
        return self.program

    def rss_mib(self) -> float:
        for line in Path(f"/proc/{self.program.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("it has ended")


def numbered(first: int, count: int, size: int = 100) -> bytes:
    return b"".join(
        b'{"key":"k%06d","document":{"n":%d,"bird":"%s"}}\n'
        % (number, number, (MARKER + "x" * (size - len(MARKER))).encode())
        for number in range(first, first + count)
    )


def imported(url: str, schema_id: str, body: Any, query: str = "") -> dict[str, Any]:
    answer = httpx.post(f"{url}/import/{schema_id}{query}", content=body, timeout=60.0)
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


def exported(url: str, schema_id: str, query: str = "") -> bytes:
    answer = httpx.get(f"{url}/export/{schema_id}{query}", timeout=60.0)
    assert answer.status_code == 200, answer.text
    return answer.content


def keys_in(lines: bytes) -> list[str]:
    return [json.loads(text)["key"] for text in lines.splitlines()]


@contextlib.contextmanager
def importing(server: Server, schema_id: str = "moved") -> Iterator[socket.socket]:
    """The connection of an import whose body is in the test's hands."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30.0) as client:
        head = f"POST /import/{schema_id} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        yield client


def send(client: socket.socket, piece: bytes) -> None:
    client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))


def check_round_trip(url: str) -> None:
    """Whatever goes in comes out, and in again, byte for byte; and a batch works on it."""
    documents = {
        key: DOCUMENTS[(number + round_) % len(DOCUMENTS)]
        for number, plain in enumerate(KEYS)
        for round_, key in enumerate((plain, f"{plain[:200]}{number}"))
    }
    report = imported(
        url, "birds", b"".join(render_line(key, text.encode()) for key, text in documents.items())
    )
    assert (report["imported"], report["failed"]) == (len(documents), 0)
    first = exported(url, "birds")
    assert keys_in(first) == sorted(documents, key=lambda key: listing_order(escape_key(key)))
    served = [key for key in documents if not {"/", "\\"} & set(key) and ".." not in key]
    for key in served:
        answer = httpx.get(f"{url}/entity/birds", params={"key": key})
        assert answer.content == documents[key].encode()
    report = imported(url, "birds.copy", first)
    assert (report["created"], report["failed"]) == (len(documents), 0)
    assert exported(url, "birds.copy") == first
    again = imported(url, "birds.copy", first, "?skip_existing=true")
    assert (again["imported"], again["skipped"]) == (0, len(documents))
    middle = keys_in(first)[len(documents) // 2]
    rest = exported(url, "birds", f"?{httpx.QueryParams(after=middle)}")
    assert rest and first.endswith(rest) and first.count(b"\n") == rest.count(b"\n") + len(documents) // 2 + 1
    batch: dict[str, Any] = {
        "requests": [
            {"method": "PUT", "path": "/entity/birds", "body": {"new": MARKER}},
            {"path": "/entity/birds?key=new"},
            {"method": "DELETE", "path": "/entity/birds?key=new"},
            {"path": "/entity/birds?key=new"},
            {"path": "/health"},
        ]
    }
    answer = httpx.post(f"{url}/batch", json=batch)
    assert [one["status"] for one in answer.json()["responses"]] == [200, 200, 200, 404, 200]
    assert answer.json()["responses"][1]["body"] == MARKER


def test_a_round_trip_on_a_directory(started: Programs) -> None:
    check_round_trip(Server(started).url)


def test_a_round_trip_through_workers_on_s3(tmp_path: Path, started: Programs, weed: S3Server) -> None:
    cluster = Cluster(started, s3_arguments(weed, "transfers"), tmp_path / "state")
    check_round_trip(cluster.start("proc-1", "proc-2").url)


def test_an_import_goes_on_after_the_server_was_killed(started: Programs) -> None:
    server = Server(started)
    count = 3000
    ends = threading.Event()

    def body() -> Iterator[bytes]:
        for first in range(0, count, 50):
            if ends.is_set():
                time.sleep(0.02)
            yield numbered(first, 50)

    def first_try() -> None:
        with contextlib.suppress(httpx.TransportError):
            httpx.post(f"{server.url}/import/moved", content=body(), timeout=60.0)
            raise AssertionError("the import came to an end before the kill")

    thread = threading.Thread(target=first_try)
    ends.set()
    thread.start()
    wait_for(lambda: exported(server.url, "moved").count(b"\n") > 500, "some of it is there")
    server.program.kill()
    thread.join()
    server.start()
    there = exported(server.url, "moved")
    report = imported(server.url, "moved", numbered(0, count), "?skip_existing=true")
    assert report["skipped"] == there.count(b"\n"), "what was there is left alone"
    assert 500 < report["skipped"] < count
    assert report["imported"] == count - report["skipped"]
    whole = exported(server.url, "moved")
    assert keys_in(whole) == [f"k{number:06}" for number in range(count)]
    assert all(text in whole for text in there.splitlines(keepends=True))


def test_a_client_that_goes_in_the_middle_of_a_line_has_sent_those_before(started: Programs) -> None:
    server = Server(started, "-memory")
    for half in (b'{"key":"half","docum', b'{"key":"half","document":1}'):
        with importing(server) as client:
            send(client, numbered(0, 100) + half)
            wait_for(
                lambda: exported(server.url, "moved").count(b"\n") == 100, "the lines before it are there"
            )
        time.sleep(0.1)
        assert "half" not in keys_in(exported(server.url, "moved")), (
            "a line without its end may be half a line"
        )


def test_lines_are_stored_while_others_still_come(started: Programs) -> None:
    server = Server(started, "-memory")
    with importing(server) as client:
        for number in range(3):
            send(client, numbered(number, 1))
            wait_for(lambda: exported(server.url, "moved").count(b"\n") == number + 1, "the line is there")  # noqa: B023
        client.sendall(b"0\r\n\r\n")
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"imported":3' in answer


def test_memory_stays_flat(started: Programs) -> None:
    size, count = 16_000, 3000
    # Without meta files and journal: what waits to be written of them is bounded apart.
    server = Server(started, "-cache-bytes=1MiB", "-meta-sidecar=false", "-journal=false")
    imported(server.url, "warm", numbered(0, 200, size))
    exported(server.url, "warm")
    before = server.rss_mib()
    highest = before
    report = imported(server.url, "moved", (numbered(first, 20, size) for first in range(0, count, 20)))
    assert report["imported"] == count
    highest = max(highest, server.rss_mib())
    with socket.create_connection(("127.0.0.1", server.port), timeout=30.0) as slow:
        slow.sendall(b"GET /export/moved HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = len(slow.recv(65536))
        # Nobody reads, so nothing more is made.
        time.sleep(1.0)
        highest = max(highest, server.rss_mib())
        while piece := slow.recv(1 << 20):
            received += len(piece)
            highest = max(highest, server.rss_mib())
    assert received > size * count
    assert highest - before < size * count / (1 << 20) / 2, "of 46 MiB"


def test_neither_holds_up_the_end(started: Programs) -> None:
    server = Server(started, "-memory", "-drain-timeout=3s")
    imported(server.url, "moved", numbered(0, 2000, 16_000))
    with importing(server, "other") as client, socket.create_connection(("127.0.0.1", server.port)) as slow:
        send(client, numbered(0, 10))
        slow.sendall(b"GET /export/moved HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = slow.recv(65536)
        began = time.monotonic()
        assert server.program.stop() == 0
        assert time.monotonic() - began < 6.0
        slow.settimeout(5.0)
        with contextlib.suppress(ConnectionResetError):
            while piece := slow.recv(1 << 20):
                received += piece
    assert not received.endswith(b"0\r\n\r\n"), "half an export does not look like a whole one"
