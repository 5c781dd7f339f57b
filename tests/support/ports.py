"""Ports that one test process alone uses, however many run beside each other.

They lie below the ports that the system gives to outgoing connections, so that a server that was stopped
finds its port free when it starts again. A port handed out stays with the process that asked until that
process ends: each is a lock on one byte of a file, which the system lets go of itself, and which
a forked process does not inherit.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from pathlib import Path
from typing import Final

FIRST: Final = 20_000
END: Final = 32_000


class _Ports:
    """Hands out the ports of one process, each once; when all were used, the first ones again."""

    def __init__(self) -> None:
        # Another process begins elsewhere, which spares both of them trying what the other one has.
        self._next = itertools.count(os.getpid() * 97)
        # Kept open: closing it would free the ports. It is never removed, because a process that holds
        # locks on a removed file and one that made it anew would not see each other.
        path = Path(tempfile.gettempdir()) / f"deltadatabase-test-ports-{os.getuid()}"
        self._claims = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> int:
        for number in itertools.islice(self._next, END - FIRST):
            port = FIRST + number % (END - FIRST)
            if self._claim(port) and _is_free(port):
                return port
        raise RuntimeError("no port is free")

    def _claim(self, port: int) -> bool:
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except (BlockingIOError, PermissionError):
            return False
        return True


def _is_free(port: int) -> bool:
    """Whether nobody listens there on any interface: not all programs know of claims."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


_ports = _Ports()


def free_port() -> int:
    """A TCP port that nobody listens on now, and that no other test process is given."""
    return _ports.take()


def free_ports(count: int) -> list[int]:
    """So many of them, all different."""
    return [free_port() for _ in range(count)]
