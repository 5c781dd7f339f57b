"""Serves an ASGI application over HTTP/1.1 with granian, inside the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from pathlib import Path
from typing import Any, Final

import msgspec
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server

from deltadatabase import limits
from deltadatabase.errors import StartupError
from deltadatabase.gateway.asgi import ASGIApp
from deltadatabase.gateway.connections import ConnectionGuard, connections_max
from deltadatabase.telemetry.logging import GRANIAN_LOGGING

_BACKLOG: Final = 1024
_READ_BUFFER_BYTES: Final = 64 * 1024


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files of a TLS server.

    Attributes:
        cert: certificate chain.
        key: its private key.
        client_ca: clients must present a certificate of this authority; None: no client certificates.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


class _Granian(Server):
    """Granian on a socket that is bound already.

    Its own binding uses SO_REUSEPORT, with which a second program takes the same port without
    an error and half of the requests, and it doesn't tell which port 0 became.
    """

    def __init__(self, listener: socket.socket, **options: Any) -> None:
        super().__init__(**options)
        self._listener = listener

    def _init_shared_socket(self) -> None:
        # The holder owns the descriptor from here on and closes it when the server has stopped.
        self._ssp = None
        holder = SocketHolder(self._listener.detach(), False, _BACKLOG)  # type: ignore[call-arg]
        self._shd = holder  # type: ignore[assignment]
        self._sfd = holder.get_fd()


class RestServer:
    """One HTTP listener.

    Args:
        app: the application; lifespan events are not sent.
        address: IP address or host name to listen on; "" is all interfaces.
        port: TCP port; 0 takes a free one, see ``port`` after ``start``.
        tls: serve HTTPS.
        header_timeout_s: time for a request's headers; an idle connection is closed after it, too.
    """

    def __init__(
        self,
        app: ASGIApp,
        address: str,
        port: int,
        *,
        tls: TlsFiles | None = None,
        header_timeout_s: float = limits.HEADER_RECEIVE_TIMEOUT_S,
    ) -> None:
        self._app = app
        self._address = address
        self._port = port
        self._tls = tls
        self._header_timeout_s = header_timeout_s
        self._server: _Granian | None = None
        self._guard: ConnectionGuard | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._port

    async def start(self) -> None:
        """Bind and serve until ``stop``.

        Raises:
            StartupError: ``port_in_use``, or ``bad_flag`` for an address or TLS file that can't be used.
        """
        listener = _bind(self._address, self._port)
        self._port = listener.getsockname()[1]
        count_max = connections_max()
        try:
            self._server = _Granian(listener, target=self._app, **self._options(count_max))
        except Exception as exc:
            listener.close()
            raise StartupError("the TLS certificate or key cannot be used", code="bad_flag") from exc
        self._task = asyncio.create_task(self._server.serve())
        self._guard = ConnectionGuard(count_max)
        self._guard.start()
        # One turn of the loop lets granian take the socket over; connections made before
        # it accepts wait in the backlog.
        await asyncio.sleep(0)

    async def stop(self, timeout_s: float) -> None:
        """Stop accepting, let requests in flight finish within ``timeout_s``, then close."""
        if self._server is None or self._task is None:
            return
        if self._guard is not None:
            self._guard.stop()
        self._server.stop()  # type: ignore[no-untyped-call]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._task, timeout_s)
        self._server = self._task = None

    def _options(self, count_max: int) -> dict[str, Any]:
        options: dict[str, Any] = {
            "address": self._address,
            "port": self._port,
            "interface": Interfaces.ASGINL,
            # Not "auto": while it waits to tell the versions apart no timeout runs, and a silent
            # connection stays open for ever.
            "http": HTTPModes.http1,
            "http1_settings": HTTP1Settings(
                header_read_timeout=round(self._header_timeout_s * 1000),
                max_buffer_size=_READ_BUFFER_BYTES,
            ),
            "websockets": False,
            "backlog": _BACKLOG,
            "backpressure": count_max,
            # Its own set-up writes to stdout, past our redaction.
            "log_dictconfig": GRANIAN_LOGGING,
            "log_level": LogLevels.error,
        }
        if self._tls is not None:
            options.update(
                ssl_cert=self._tls.cert,
                ssl_key=self._tls.key,
                ssl_ca=self._tls.client_ca,
                ssl_client_verify=self._tls.client_ca is not None,
            )
        return options


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
        listener.listen(_BACKLOG)
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
