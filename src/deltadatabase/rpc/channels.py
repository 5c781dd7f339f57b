"""Channels and servers of gRPC with the one set of options that both ends of every call share."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, cast

import grpc
import grpc.aio
import msgspec
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from deltadatabase import limits
from deltadatabase.errors import StartupError

#: How soon a silent peer is asked for a sign of life, and how long it has to give one. This finds
#: a lost machine; a stopped process, whose kernel still answers, is found by heartbeats.
KEEPALIVE_TIME_MS: Final = 5_000
KEEPALIVE_TIMEOUT_MS: Final = 5_000

MAIN_WORKER_SERVICE: Final = "deltadatabase.v1.MainWorker"
PROC_WORKER_SERVICE: Final = "deltadatabase.v1.ProcWorker"


class Pem(Protocol):
    """Certificates of one program that fit together, as PEM."""

    @property
    def cert(self) -> bytes:
        """The certificate chain."""
        ...

    @property
    def key(self) -> bytes:
        """Its private key."""
        ...

    @property
    def ca(self) -> bytes:
        """Whom peers' certificates are checked with; b"" is the system's authorities."""
        ...


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """How one program speaks TLS.

    Attributes:
        current: the certificates in use now; asked by each new channel and each new connection.
            Called from threads of gRPC, too.
        client_auth: servers demand a certificate of an authority in ``ca`` from every client.
        server_name: the name that servers' certificates must carry; "" is the address dialled.
    """

    current: Callable[[], Pem]
    client_auth: bool = False
    server_name: str = ""


def open_channel(
    address: str, *, tls: Tls | None = None, message_bytes_max: int = limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT
) -> grpc.aio.Channel:
    """Return a channel to ``host:port``; it connects at its first call. The caller closes it.

    It must be made in the process and event loop that use it. Under TLS it shows the program's own
    certificate to a server that asks for one.
    """
    options: list[tuple[str, int | str]] = [
        *_shared_options(message_bytes_max),
        ("grpc.enable_http_proxy", 0),
        # A connection of its own: a new channel never inherits the back-off of a dead one.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    pem = tls.current()
    credentials = grpc.ssl_channel_credentials(pem.ca or None, pem.key, pem.cert)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(address, credentials, options=options)


def new_server(
    *,
    message_bytes_max: int = limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT,
    received_bytes_max: int | None = None,
    streams_max: int = limits.DATA_STREAMS_MAX,
    read_ahead: bool = True,
    interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
) -> grpc.aio.Server:
    """Return a server that listens nowhere yet.

    Args:
        message_bytes_max: largest message.
        received_bytes_max: largest message that callers may send, where that is less.
        streams_max: calls at once on one connection; a client holds further ones back itself.
        read_ahead: let what a caller sends before anybody reads it grow from 64 KiB to megabytes,
            for faster transfers over long distances.
        interceptors: see each call before it is served.
    """
    return grpc.aio.server(
        interceptors=interceptors,
        options=[
            *_shared_options(message_bytes_max, received_bytes_max),
            ("grpc.max_concurrent_streams", streams_max),
            # Not gRPC's two minutes for a connection that says nothing.
            ("grpc.server_handshake_timeout_ms", round(limits.HANDSHAKE_TIMEOUT_S * 1000)),
            *(() if read_ahead else (("grpc.http2.bdp_probe", 0),)),
            # With it a second program would share an occupied port in silence.
            ("grpc.so_reuseport", 0),
            # Our own clients ask for signs of life as often as agreed; under load their pings come in a row.
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", KEEPALIVE_TIME_MS // 2),
            ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_TIME_MS // 2),
        ],
    )


def listen(server: grpc.aio.Server, address: str, *, tls: Tls | None = None) -> int:
    """Bind ``server`` to ``host:port`` (port 0: any free one); return the port. Before it starts.

    Raises:
        StartupError: ``port_in_use``, or ``bad_flag`` for an address that is not ours.
    """
    host, _, port = address.rpartition(":")
    _check_free(host.strip("[]"), port, address)
    target = address if host else f"[::]:{port}"
    try:
        if tls is None:
            return server.add_insecure_port(target)
        return server.add_secure_port(target, _server_credentials(tls))
    except RuntimeError:
        raise StartupError(f"cannot listen for grpc address={address}", code="port_in_use") from None


def _server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return what shows, to each new connection, the certificates of that moment."""
    shown = tls.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        pem = tls.current()
        if pem is shown:
            return None
        shown = pem
        return configuration(pem)

    def configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
        roots = pem.ca if tls.client_auth else None
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], roots)

    # Its stubs do not know that None, which its documentation names, means no change.
    fetch = cast(Callable[[], grpc.ServerCertificateConfiguration], changed)
    return grpc.dynamic_ssl_server_credentials(configuration(shown), fetch, tls.client_auth)


class Health:
    """What the standard health service of a server says.

    Args:
        servicer: the service.
    """

    def __init__(self, servicer: health.aio.HealthServicer) -> None:  # type: ignore[name-defined]  # no stub
        self._servicer = servicer

    async def show(self, service: str, *, serving: bool) -> None:
        """Say from now on that ``service`` is served, or is not."""
        status = health_pb2.HealthCheckResponse
        await self._servicer.set(service, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self) -> None:
        """Say of everything, for good, that it is served no more."""
        await self._servicer.enter_graceful_shutdown()


async def add_health_and_reflection(
    server: grpc.aio.Server, services: Sequence[str], *, serving: bool = True
) -> Health:
    """Add both standard services, before the start.

    Args:
        server: takes them.
        services: full names of the program's own services.
        serving: whether these are served already. The program as a whole, "", always is.
    """
    servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # its stubs lack asyncio
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    shown = Health(servicer)
    await shown.show("", serving=True)
    for name in services:
        await shown.show(name, serving=serving)
    reflection.enable_server_reflection([*services, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return shown


def _shared_options(message_bytes_max: int, received_bytes_max: int | None = None) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", received_bytes_max or message_bytes_max),
        ("grpc.max_send_message_length", message_bytes_max),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _check_free(host: str, port: str, address: str) -> None:
    """Try the address with a plain socket: gRPC neither tells why it failed nor fails quietly."""
    refused = StartupError(f"cannot listen on this address address={address}", code="bad_flag")
    if not port.isdecimal() or int(port) > 65_535:
        raise refused
    try:
        found = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise refused from None
    bound = 0
    for family, kind, protocol, _, endpoint in found:
        try:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(endpoint)
                trial.listen(1)
            bound += 1
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise StartupError(f"the port is in use address={address}", code="port_in_use") from None
    # A machine without IPv6 still lists it: one family that works is enough.
    if not bound:
        raise refused
