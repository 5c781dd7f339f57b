"""A TCP proxy in front of a real server that breaks connections where a test says."""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

BLOCK = 65536


class Tear(enum.Enum):
    """What happens to a connection."""

    NOTHING = "nothing"
    REQUEST = "it ends before the server has seen the request"
    ANSWER = "it ends when the server has answered, and before the client sees any of it"
    HALF = "it ends within the answer"


@dataclass
class TearingProxy:
    """Passes bytes on, and breaks connections.

    Attributes:
        port: where it listens.
        target: port of the server.
        tears: for the next requests, in order; afterwards nothing happens.
        half: bytes of an answer that ``HALF`` lets through.
    """

    target: int
    port: int = 0
    tears: list[Tear] = field(default_factory=list)
    half: int = 1000
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where clients reach the server through it."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        self.port = listener.getsockname()[1]
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _next(self) -> Tear:
        with self._lock:
            self.requests += 1
            return self.tears.pop(0) if self.tears else Tear.NOTHING

    def _connection(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while request := client.recv(BLOCK):
                tear = self._next()
                if tear is Tear.REQUEST:
                    return
                # A connection to the server for each request keeps both sides in step.
                with socket.create_connection(("127.0.0.1", self.target)) as server:
                    self._exchange(client, server, request, tear)
                return

    def _exchange(self, client: socket.socket, server: socket.socket, request: bytes, tear: Tear) -> None:
        server.sendall(request)
        up = threading.Thread(target=_pump, args=(client, server), daemon=True)
        up.start()
        left = self.half
        while answer := server.recv(BLOCK):
            if tear is Tear.ANSWER:
                break
            if tear is Tear.HALF:
                client.sendall(answer[:left])
                left -= len(answer)
                if left <= 0:
                    break
                continue
            client.sendall(answer)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        up.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(BLOCK):
            target.sendall(block)


@contextlib.contextmanager
def tearing(target: int, *tears: Tear, half: int = 1000) -> Iterator[TearingProxy]:
    """A running proxy in front of the server at this port."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = TearingProxy(target, listener.getsockname()[1], [*tears], half)
    thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        # Closing alone does not wake up who accepts.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
