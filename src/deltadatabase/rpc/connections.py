"""Keeps room for new connections: when they become many, whoever holds most loses some of his.

The HTTP and gRPC servers accept from everybody in turn and know no addresses, so one that opens
connections and says nothing would fill every place until its time is up. Seen from here, a
connection is a descriptor of this process (proc(5), ``/proc/PID/fd``).
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from deltadatabase import limits
from deltadatabase.rpc.doorway import network_of
from deltadatabase.telemetry.logging import get_logger

DESCRIPTORS: Final = Path("/proc/self/fd")
LOOK_INTERVAL_S: Final = 0.1

_log = get_logger(__name__)


def connections_max() -> int:
    """Raise this process's limit of descriptors as far as it may; return how many are for clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.CONNECTIONS_MAX + limits.DESCRIPTORS_KEPT
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits.CONNECTIONS_MAX
    return max(soft - limits.DESCRIPTORS_KEPT, soft // 2)


def allowance(counts: Iterable[int], room: int) -> int:
    """Return how many of each count may stay, so that all together fit into ``room``. Pure.

    The largest counts give first, down to one level: who holds less than it keeps everything.
    """
    ascending = sorted(counts)
    for place, count in enumerate(ascending):
        level = room // (len(ascending) - place)
        if count > level:
            return level
        room -= count
    return ascending[-1] if ascending else 0


class ConnectionGuard:
    """Cuts connections that clients opened to any port of this process, once there are too many.

    Args:
        count_max: how many the process can hold. From three quarters of it on, so many are cut
            that half of it stays.
    """

    def __init__(self, count_max: int) -> None:
        self._many = count_max * 3 // 4
        self._kept = count_max // 2
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch until ``stop``; does nothing where the system does not show descriptors."""
        if DESCRIPTORS.is_dir():
            self._thread = threading.Thread(target=self._watch, name="connections", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> int:
        """Look once; return how many connections were cut."""
        descriptors = os.listdir(DESCRIPTORS)
        if len(descriptors) <= self._many:
            return 0
        held = _held(map(int, descriptors))
        if sum(map(len, held.values())) <= self._many:
            return 0
        level = allowance(map(len, held.values()), self._kept)
        cut = sum(_cut(fd, source) for source, fds in held.items() for fd in fds[level:])
        most = max(held, key=lambda source: len(held[source]))
        _log.warning("too many connections; the largest holders lost some", cut=cut, of=most, left=level)
        return cut

    def _watch(self) -> None:
        while not self._ends.wait(LOOK_INTERVAL_S):
            # Without a descriptor to look with, or a limit of the system: again in a moment.
            with contextlib.suppress(OSError):
                self.look()


@contextlib.contextmanager
def _socket(fd: int) -> Iterator[socket.socket]:
    """The socket behind a descriptor, by one of our own: its owner may close his at any time.

    Raises:
        OSError: it is no socket, or none any more.
    """
    own = os.dup(fd)
    try:
        connection = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise
    with connection:
        yield connection


def _held(descriptors: Iterable[int]) -> dict[str, list[int]]:
    """The descriptors of accepted connections, by where they come from."""
    ports: set[int] = set()
    ends: list[tuple[int, int, str]] = []
    for fd in descriptors:
        # Not a socket, not of this family, or gone since.
        with contextlib.suppress(OSError), _socket(fd) as connection:
            if connection.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            port = connection.getsockname()[1]
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                ports.add(port)
            else:
                ends.append((fd, port, network_of(connection.getpeername()[0])))
    held: defaultdict[str, list[int]] = defaultdict(list)
    for fd, port, source in ends:
        # What this process opened itself, to its store and its workers, has a port of its own.
        if port in ports:
            held[source].append(fd)
    return dict(held)


def _cut(fd: int, source: str) -> bool:
    """End a connection, if it is still one from there."""
    with contextlib.suppress(OSError), _socket(fd) as connection:
        if network_of(connection.getpeername()[0]) == source:
            connection.shutdown(socket.SHUT_RDWR)
            return True
    return False
