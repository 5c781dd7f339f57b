"""Whoever follows the changes gets every last state, while processes are killed and started again."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.programs import Programs, free_port, wait_for, wait_until_ready

from integration.cluster import Cluster, discreet_programs, put

KEYS = [f"k{number}" for number in range(30)]


class Follower:
    """Follows a schema as a browser does: reconnects with the id of the last event."""

    def __init__(self, url: str, schema_id: str = "notes") -> None:
        self._address = f"{url}/changes/{schema_id}"
        self.last_id = str(httpx.get(self._address, timeout=20.0).json()["next"])
        self.states: dict[str, dict[str, Any]] = {}
        self.connections = 0
        self.backward: list[str] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        while not self._ends.is_set():
            with contextlib.suppress(httpx.TransportError), httpx.Client(timeout=20.0) as client:
                self._read(client)
            time.sleep(0.05)

    def _read(self, client: httpx.Client) -> None:
        wanted = {"feed": "eventsource", "include": "document"}
        with client.stream(
            "GET", self._address, params=wanted, headers={"Last-Event-ID": self.last_id}
        ) as answer:
            if answer.status_code != 200:
                return
            self.connections += 1
            data: list[str] = []
            for line in answer.iter_lines():
                if self._ends.is_set():
                    return
                if line.startswith("id: "):
                    self.last_id = line[4:]
                elif line.startswith("data: "):
                    data.append(line[6:])
                elif not line and data:
                    self._take(json.loads("\n".join(data)))
                    data = []

    def _take(self, change: dict[str, Any]) -> None:
        before = self.states.get(change["key"])
        if before is not None and change["version"] < before["version"]:
            self.backward.append(f"{before['version']} to {change['version']}")
        self.states[change["key"]] = change

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()


class Writer:
    """Puts and deletes, and remembers which version of each key was acknowledged."""

    def __init__(self, url: str, keys: list[str], seed: int) -> None:
        self._url = url
        self._keys = keys
        self._chance = random.Random(seed)
        self.acknowledged: dict[str, int] = {}
        self.writes = 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        with httpx.Client(base_url=self._url, timeout=20.0) as client:
            while not self._ends.is_set():
                key = self._chance.choice(self._keys)
                with contextlib.suppress(httpx.TransportError):
                    if self._chance.random() < 0.2:
                        client.delete("/entity/notes", params={"key": key})
                    else:
                        answer = client.put("/entity/notes", content=f'{{"{key}": {self.writes}}}')
                        if answer.status_code == 200:
                            self.acknowledged[key] = answer.json()["versions"][key]
                            self.writes += 1
                time.sleep(0.005)

    def more(self, count: int = 100) -> None:
        """Wait until so many more writes were acknowledged."""
        wanted = self.writes + count
        wait_for(lambda: self.writes >= wanted, f"{count} more writes")

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Programs]:
    with discreet_programs(tmp_path) as programs:
        yield programs


def present(url: str, key: str) -> dict[str, Any] | None:
    """ETag and document of an entity as it is now; None without one."""
    answer = httpx.get(f"{url}/entity/notes", params={"key": key}, timeout=20.0, verify=False)
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200, answer.text
    return {"etag": answer.headers["etag"], "document": answer.json()}


def agrees(follower: Follower, url: str, key: str) -> bool:
    """Whether what was told of a key last is what is stored."""
    told, now = follower.states.get(key), present(url, key)
    if told is None or told["deleted"]:
        return now is None
    return now == {"etag": told["etag"], "document": told["document"]}


@pytest.mark.integration
def test_every_last_state_arrives_through_kills_of_workers_and_of_the_main_worker(
    started: Programs, tmp_path: Path
) -> None:
    cluster = Cluster(started, [f"-shared-fs={tmp_path / 'db'}"], tmp_path / "state").start("w1", "w2", "w3")
    follower = Follower(cluster.url)
    # No two write the same keys: an acknowledged version is then the last one that its writer knows.
    writers = [Writer(cluster.url, KEYS[part::3], part) for part in range(3)]
    try:
        writers[0].more()
        cluster.workers["w1"].kill()
        writers[0].more()
        cluster.main.kill()
        cluster.start_main()
        cluster.ready(2)
        writers[0].more()
        cluster.start_worker("w1")
        writers[0].more()
        for writer in writers:
            writer.stop()
        for key in KEYS:
            wait_for(lambda key=key: agrees(follower, cluster.url, key), f"the last state of {key} arrives")
        for writer in writers:
            for key, version in writer.acknowledged.items():
                assert follower.states[key]["version"] >= version
        assert follower.backward == []
        assert follower.connections >= 2
    finally:
        for writer in writers:
            writer.stop()
        follower.stop()
    assert all(code == 0 for code in cluster.stop())


@pytest.mark.integration
def test_deletes_of_before_a_restart_are_told_of_through_proc_workers(
    started: Programs, tmp_path: Path
) -> None:
    cluster = Cluster(started, [f"-shared-fs={tmp_path / 'db'}"], tmp_path / "state").start("w1", "w2")
    for key in KEYS:
        put(cluster.url, key, "1")
    feed = f"{cluster.url}/changes/notes"
    token = httpx.get(feed, timeout=20.0).json()["next"]
    for key in KEYS[::2]:
        assert httpx.delete(f"{cluster.url}/entities/notes/{key}", timeout=20.0).status_code == 204
    cluster.main.kill()
    cluster.start_main()
    cluster.ready(2)
    told: dict[str, bool] = {}
    more = True
    while more:
        page = httpx.get(feed, params={"since": token}, timeout=20.0).json()
        told.update({change["key"]: change["deleted"] for change in page["changes"]})
        token, more = page["next"], page["more"]
    assert told == {key: key in KEYS[::2] for key in KEYS}


class Server:
    """``deltadb serve`` on a directory."""

    def __init__(self, started: Programs, folder: Path) -> None:
        self._started = started
        self._folder = folder
        self.port = free_port()
        self.metrics_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.program = self._started.start(
            "deltadb",
            "serve",
            f"-rest-addr=127.0.0.1:{self.port}",
            f"-metrics-addr=127.0.0.1:{self.metrics_port}",
            f"-data={self._folder}",
        )
        wait_until_ready(self.url, self.program)

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20.0, verify=False).text
        values = [line for line in text.splitlines() if line.startswith(f"deltadatabase_{name} ")]
        return float(values[0].split()[1])

    def changes(self, token: str, **more: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/changes/notes", params={"since": token, **more}, timeout=70.0)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def all_changes(self, token: str) -> dict[str, dict[str, Any]]:
        found, more = {}, True
        while more:
            page = self.changes(token, include="document")
            found.update({change["key"]: change for change in page["changes"]})
            token, more = page["next"], page["more"]
        return found

    def token(self) -> str:
        return str(httpx.get(f"{self.url}/changes/notes", timeout=20.0).json()["next"])

    def stream(self, *, receives_bytes: int | None = None) -> socket.socket:
        """A connection that has asked for a stream with documents, and reads nothing by itself."""
        connection = socket.socket()
        if receives_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives_bytes)
        connection.settimeout(20.0)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(
            b"GET /changes/notes?feed=eventsource&include=document HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        return connection


@pytest.fixture
def server(started: Programs, tmp_path: Path) -> Server:
    return Server(started, tmp_path / "data")


@pytest.mark.integration
def test_changes_and_deletes_of_before_a_restart_are_told_of_after_it(server: Server) -> None:
    put(server.url, "old", "0")
    put(server.url, "gone", "0")
    token = server.token()
    put(server.url, "new", "1")
    put(server.url, "old", "2")
    httpx.delete(f"{server.url}/entity/notes", params={"key": "gone"}, timeout=20.0)
    before = server.all_changes(token)
    server.program.kill()
    server.start()
    after = server.all_changes(token)
    assert {key: change["version"] for key, change in after.items()} == {"new": 1, "old": 2, "gone": 2}
    assert after == before
    assert server.metric("feed_catch_ups_total") == 1
    assert server.program.stop() == 0


@pytest.mark.integration
def test_a_client_that_hangs_up_leaves_nothing_behind(server: Server) -> None:
    connections = [server.stream() for _ in range(5)]
    for connection in connections:
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 OK")
    assert server.metric("feeds_open") == 5
    for connection in connections:
        connection.close()
    wait_for(lambda: server.metric("feeds_open") == 0, "the feeds are closed")


@pytest.mark.integration
def test_a_client_that_hangs_up_while_it_waits_gives_its_place_back(server: Server) -> None:
    polls = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
    for poll in polls:
        poll.sendall(b"GET /changes/notes?feed=longpoll&timeout=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_for(lambda: server.metric("feeds_open") == 5, "all wait")
    for poll in polls:
        poll.close()
    wait_for(lambda: server.metric("feeds_open") == 0, "the feeds are closed", timeout_s=20.0)


@pytest.mark.integration
def test_a_reader_that_stops_reading_holds_nobody_up_and_misses_nothing(server: Server) -> None:
    slow = server.stream(receives_bytes=4096)
    wait_for(lambda: server.metric("feeds_open") == 1, "the feed is open")
    large = "x" * 100_000
    with httpx.Client(base_url=server.url, timeout=20.0) as client:
        for number in range(150):
            stored = client.put("/entity/notes", content=f'{{"large-{number}": "{large}"}}')
            assert stored.status_code == 200
    # Far more than any buffer on the way holds.
    keys: set[bytes] = set()
    end = b""
    while len(keys) < 150:
        received = end + slow.recv(1 << 20)
        keys |= set(re.findall(rb'"key":"large-(\d+)"', received))
        end = received[-40:]
    slow.close()


@pytest.mark.integration
def test_open_feeds_do_not_hold_up_the_end(server: Server) -> None:
    stream = server.stream()
    token = server.token()
    pages: list[dict[str, Any]] = []
    waiting = threading.Thread(
        target=lambda: pages.append(server.changes(token, feed="longpoll", timeout="60"))
    )
    waiting.start()
    wait_for(lambda: server.metric("feeds_open") == 2, "both wait")
    assert server.program.stop() == 0
    waiting.join()
    assert pages[0]["changes"] == []
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := stream.recv(10_000):
            received += chunk
    stream.close()
    # The chunk of length 0: it ended properly.
    assert received.endswith(b"0\r\n\r\n")
    server.start()
    put(server.url, "later", "1")
    assert list(server.all_changes(pages[0]["next"])) == ["later"]
