"""No two test processes are given one port."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support import ports

TESTS = Path(__file__).parents[1]
TAKE = "from support.ports import free_ports; print(*free_ports(200)); input()"
"""Claims last as long as the process; it ends with its input."""


def taking(source: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def taken(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(port) for port in process.stdout.readline().split()]


def test_processes_that_begin_at_the_same_port_get_different_ones() -> None:
    at_one = "import itertools; from support import ports; ports._ports._next = itertools.count(0);"
    processes = [taking(at_one + TAKE) for _ in range(4)]
    mine = ports.free_ports(100)
    given = [port for process in processes for port in taken(process)]
    for process in processes:
        process.communicate("\n")
    assert len(given) == 800
    assert len({*given, *mine}) == 900
    assert all(ports.FIRST <= port < ports.END for port in given)


def test_a_forked_process_claims_ports_of_its_own() -> None:
    """It goes on from the same port as its parent."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    held = context.Event()

    def child() -> None:
        sending.send(ports.free_ports(50))
        held.wait()

    process = context.Process(target=child)
    process.start()
    try:
        given = receiving.recv()
        assert not set(given) & set(ports.free_ports(50))
    finally:
        held.set()
        process.join()
        receiving.close()
        sending.close()


@pytest.mark.parametrize("interface", ["127.0.0.1", ""])
def test_a_port_on_which_somebody_listens_is_left_out(
    interface: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listener:
        listener.bind((interface, ports.free_port()))
        listener.listen()
        occupied = listener.getsockname()[1]
        # Its claim would not keep this process from it, whose own it is.
        monkeypatch.setattr(ports._ports, "_next", itertools.count(occupied - ports.FIRST))
        assert occupied not in ports.free_ports(10)
    monkeypatch.setattr(ports._ports, "_next", itertools.count(occupied - ports.FIRST))
    assert ports.free_port() == occupied


def test_the_ports_of_a_process_are_free_when_it_has_ended() -> None:
    process = taking(TAKE)
    (port, *_) = taken(process)
    claims = ports._Ports()
    assert not claims._claim(port)
    process.communicate("\n")
    assert claims._claim(port)
