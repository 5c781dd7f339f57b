"""Who loses connections when there are too many: whoever holds most."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.limits import CONNECTIONS_MAX
from deltadatabase.rpc.connections import ConnectionGuard, allowance, connections_max

counts = st.lists(st.integers(1, 50), min_size=1, max_size=20)


@given(counts, st.integers(0, 500))
def test_what_may_stay_fits_and_could_not_be_more(held: Sequence[int], room: int) -> None:
    level = allowance(held, room)
    stays = sum(min(count, level) for count in held)
    assert stays <= room
    assert level >= max(held) or sum(min(count, level + 1) for count in held) > room


def test_who_holds_little_keeps_everything() -> None:
    assert allowance([10_000, 3, 5], 100) == 92
    assert allowance([], 100) == 0


class Door:
    """A listening socket, and both ends of connections to it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.ends: list[socket.socket] = []

    def open(self, source: str, count: int) -> list[socket.socket]:
        """Connections from an address of this machine; the client's ends."""
        clients = []
        for _ in range(count):
            clients.append(socket.create_connection(self.listener.getsockname(), source_address=(source, 0)))
            self.ends.append(self.listener.accept()[0])
        self.ends += clients
        return clients


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    for each in (door.listener, *door.ends):
        each.close()


def is_cut(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def test_whoever_holds_most_is_cut_and_others_are_not(door: Door) -> None:
    guard = ConnectionGuard(100)
    few = door.open("127.0.0.1", 5)
    many = door.open("127.0.0.2", 60)
    assert guard.look() == 0, "there is room for 75"
    many += door.open("127.0.0.2", 40)
    assert guard.look() == 55, "half of the bound stays"
    assert sum(map(is_cut, many)) == 55
    assert not any(map(is_cut, few))


def test_connections_that_this_process_opened_itself_are_none_of_clients(door: Door) -> None:
    elsewhere = socket.create_server(("127.0.0.1", 0), backlog=512)
    address = elsewhere.getsockname()
    guard = ConnectionGuard(10)
    opened = [socket.create_connection(address) for _ in range(50)]
    elsewhere.close()
    try:
        door.open("127.0.0.1", 1)
        assert guard.look() == 0
        assert not any(map(is_cut, door.ends))
    finally:
        for each in opened:
            each.close()


def test_looking_leaves_no_descriptors_open(door: Door) -> None:
    guard = ConnectionGuard(4)
    door.open("127.0.0.1", 2)
    with Path(os.devnull).open("rb"):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            guard.look()
        assert len(os.listdir("/proc/self/fd")) == before


def test_the_watch_runs_until_it_is_stopped(door: Door) -> None:
    guard = ConnectionGuard(40)
    clients = door.open("127.0.0.2", 60)
    guard.start()
    clients[-1].settimeout(5.0)
    assert clients[-1].recv(1) == b""
    guard.stop()


def test_a_process_takes_as_many_connections_as_its_descriptors_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: asked.append(both))
    for soft, hard, expected in (
        (1024, 1_048_576, CONNECTIONS_MAX),
        (1024, 4096, 3072),
        (1024, 1024, 512),
        (65_536, 65_536, CONNECTIONS_MAX),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, CONNECTIONS_MAX),
        (1024, resource.RLIM_INFINITY, CONNECTIONS_MAX),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, both=(soft, hard): both)
        assert connections_max() == expected, (soft, hard)
    assert all(soft <= hard or hard == resource.RLIM_INFINITY for soft, hard in asked)
