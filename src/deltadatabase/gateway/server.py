"""Serves an ASGI application over HTTP/1.1, inside the running event loop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

from deltadatabase import limits
from deltadatabase.crypto.certificates import Pem
from deltadatabase.errors import StartupError
from deltadatabase.gateway.asgi import ASGIApp
from deltadatabase.gateway.listener import BACKLOG, Listener
from deltadatabase.rpc.connections import ConnectionGuard, connections_max

RETIRED_S: Final = 1.0
"""How much longer than the header timeout a relieved listener lives."""
LAST_REQUESTS_S: Final = 60.0
"""Time for the requests that a relieved listener still has by then."""


class RestServer:
    """One HTTP listener.

    Args:
        app: the application; lifespan events are not sent.
        address: IP address or host name to listen on; "" is all interfaces.
        port: TCP port; 0 takes a free one, see ``port`` after ``start``.
        tls: serve HTTPS, TLS 1.2 or 1.3; it must have passed ``trial.accepts``.
        header_timeout_s: time for a request's headers; an idle connection is closed after it, too.
        on_stop: called when it stops, before it waits: ends requests that would go on for ever.
    """

    def __init__(
        self,
        app: ASGIApp,
        address: str,
        port: int,
        *,
        tls: Pem | None = None,
        header_timeout_s: float = limits.HEADER_RECEIVE_TIMEOUT_S,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_stop = on_stop
        self._app = app
        self._address = address
        self._port = port
        self._tls = tls
        self._header_timeout_s = header_timeout_s
        self._bound: socket.socket | None = None
        self._listener: Listener | None = None
        self._guard: ConnectionGuard | None = None
        self._count_max = 0
        self._retiring: dict[asyncio.Task[None], Listener] = {}

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._port

    async def start(self) -> None:
        """Bind and serve until ``stop``.

        Raises:
            StartupError: ``port_in_use``, or ``bad_flag`` for an address that can't be used.
        """
        self._bound = _bind(self._address, self._port)
        self._port = self._bound.getsockname()[1]
        self._count_max = connections_max()
        self._listener = self._listen(self._bound)
        self._guard = ConnectionGuard(self._count_max)
        self._guard.start()
        # One turn of the loop lets granian take the socket over; connections made before
        # it accepts wait in the backlog.
        await asyncio.sleep(0)

    async def renew(self, tls: Pem) -> None:
        """Show other certificates to new connections; those that exist finish in peace.

        Raises:
            OSError: no descriptor is left; it can be tried again.
        """
        self._tls = tls
        earlier, bound = self._listener, self._bound
        if earlier is None or bound is None:
            return
        self._listener = self._listen(bound)
        try:
            earlier.retire()
        finally:
            # Also one that could not be made deaf ends, a little less politely.
            task = asyncio.create_task(self._end(earlier))
            self._retiring[task] = earlier
            task.add_done_callback(lambda done: self._retiring.pop(done, None))
        await asyncio.sleep(0)

    async def stop(self, timeout_s: float) -> None:
        """Stop accepting, let requests in flight finish within ``timeout_s``, then close."""
        if self._listener is None or self._bound is None:
            return
        self._on_stop()
        if self._guard is not None:
            self._guard.stop()
        listeners = [self._listener, *self._retiring.values()]
        for task in self._retiring:
            task.cancel()
        self._bound.close()
        self._listener = self._bound = None
        await asyncio.gather(*(one.stop(timeout_s) for one in listeners))

    def _listen(self, bound: socket.socket) -> Listener:
        return Listener(
            self._app,
            bound,
            pem=self._tls,
            header_timeout_s=self._header_timeout_s,
            connections_max=self._count_max,
        )

    async def _end(self, listener: Listener) -> None:
        await asyncio.sleep(self._header_timeout_s + RETIRED_S)
        await listener.stop(LAST_REQUESTS_S)


def _bind(address: str, port: int) -> socket.socket:
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as exc:
        raise StartupError(f"the listen address is not known address={address}", code="bad_flag") from exc
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise StartupError(f"another program listens on port {port} already", code="port_in_use") from exc
        raise StartupError(
            f"cannot listen on address={address} port={port}: {errno.errorcode.get(exc.errno or 0, 'error')}",
            code="bad_flag",
        ) from exc
    return listener
