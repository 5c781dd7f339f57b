"""One granian server on a socket that is bound already: it begins, is relieved by a next one, and ends.

A granian server keeps the certificate that it began with. For another certificate a next server
takes the same listening socket over, while the earlier one finishes what it has (decision 0028).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server

from deltadatabase.crypto.certificates import Pem
from deltadatabase.gateway.asgi import ASGIApp, Message, Receive, Scope, Send
from deltadatabase.telemetry.logging import GRANIAN_LOGGING

BACKLOG: Final = 1024
THREADS_END_S: Final = 0.05
_READ_BUFFER_BYTES: Final = 64 * 1024
_CLOSE: Final = (b"connection", b"close")


class _Granian(Server):
    """Granian on a given socket, with certificates that are in no file.

    Its own binding uses SO_REUSEPORT, with which a second program takes the same port without
    an error and half of the requests, and it doesn't tell which port 0 became.
    """

    def __init__(self, listener_fd: int, tls: tuple[Any, ...] | None, **options: Any) -> None:
        super().__init__(**options)
        self._listener_fd = listener_fd
        if tls is not None:
            self.ssl_ctx = tls

    def _init_shared_socket(self) -> None:
        # The holder owns the descriptor from here on and closes it when the server has stopped.
        self._ssp = None
        holder = SocketHolder(self._listener_fd, False, BACKLOG)  # type: ignore[call-arg]
        self._shd = holder  # type: ignore[assignment]
        self._sfd = holder.get_fd()


class Listener:
    """A server that accepts on a duplicate of ``bound``. Starts at once; ends by ``stop``.

    Args:
        app: the application; lifespan events are not sent.
        bound: a listening socket; it stays the caller's.
        pem: what clients are shown; None serves plain text. It must have passed
            ``trial.accepts``: granian ends the process over what it cannot use.
        header_timeout_s: time for a request's headers; an idle connection is closed after it, too.
        connections_max: past so many at once, further ones wait to be accepted.

    Raises:
        OSError: no descriptor is left.
    """

    def __init__(
        self,
        app: ASGIApp,
        bound: socket.socket,
        *,
        pem: Pem | None,
        header_timeout_s: float,
        connections_max: int,
    ) -> None:
        self._app = app
        self._files: list[int] = []
        self._retired = False
        address, port = bound.getsockname()[:2]
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_files)
            tls = self._tls(pem) if pem is not None else None
            self._fd = os.dup(bound.fileno())
            undo.pop_all()
        self._server = _Granian(
            self._fd,
            tls,
            target=self._serve,
            address=address,
            port=port,
            interface=Interfaces.ASGINL,
            # Not "auto": while it waits to tell the versions apart no timeout runs, and a silent
            # connection stays open for ever.
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(
                header_read_timeout=round(header_timeout_s * 1000), max_buffer_size=_READ_BUFFER_BYTES
            ),
            websockets=False,
            backlog=BACKLOG,
            backpressure=connections_max,
            # Its own set-up writes to stdout, past our redaction.
            log_dictconfig=GRANIAN_LOGGING,
            log_level=LogLevels.error,
        )
        self._task = asyncio.create_task(self._server.serve())

    def retire(self) -> None:
        """Accept no more; end each connection with the answer to its next request.

        Whoever is connected notices nothing else, and an idle connection is closed when its time
        is over, as always. After the header timeout none that waits for a request is left.

        Raises:
            OSError: no descriptor is left; nothing has changed.
        """
        # Granian has no way to stop accepting that spares its connections, and drops those that
        # still shake hands. So the number of its listening socket is given to a socket on a free
        # loopback port, where nobody calls; callers at the real one wait there for the next server.
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            deaf.setblocking(False)
            os.dup2(deaf.fileno(), self._fd, inheritable=False)
        self._retired = True

    async def stop(self, timeout_s: float) -> None:
        """Stop accepting, let requests in flight finish within ``timeout_s``, then close."""
        self._server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait({self._task}, timeout=timeout_s)
        self._task.cancel()
        # Its threads say that they end while they still are in Python, and abort a process whose
        # interpreter ends before they are out of it: 4 of 100 programs that ended at once.
        await asyncio.sleep(THREADS_END_S)
        self._close_files()

    def _serve(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._app(scope, receive, _Closing(send) if self._retired else send)

    def _tls(self, pem: Pem) -> tuple[Any, ...]:
        """Return granian's description of TLS, with files in memory, open as long as it runs."""
        cert, key = self._file(pem.cert), self._file(pem.key)
        return (True, cert, key, None, str(SSLProtocols.tls12), None, [], False)

    def _file(self, data: bytes) -> str:
        # A file in memory: on no disk, and a read-only root file system does not matter.
        descriptor = os.memfd_create("deltadb-tls")
        self._files.append(descriptor)
        os.write(descriptor, data)
        return f"/proc/self/fd/{descriptor}"

    def _close_files(self) -> None:
        while self._files:
            os.close(self._files.pop())


class _Closing:
    """A ``send`` that says of each answer that it is the connection's last."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), _CLOSE]}
        return self._send(message)
