"""Metrics for Prometheus, on a listener of their own (text exposition format 0.0.4)."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from deltadatabase.errors import StartupError
from deltadatabase.settings import Address


@final
class MetricsServer:
    """Serves ``GET /metrics`` from a thread of its own, without credentials.

    Args:
        address: where it listens; "" is all interfaces, port 0 any free one.
        collectors: what is served beside what the process itself shows.

    Raises:
        StartupError: ``port_in_use``; ``bad_flag``: the address is not ours.
    """

    def __init__(self, address: Address, *collectors: Collector) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        for collector in collectors:
            registry.register(collector)
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            # An empty name would be that of this machine alone.
            self._server, self._thread = start_http_server(
                address.port,
                address.host or "0.0.0.0",  # noqa: S104 - asked for
                registry,
            )
        except OSError as exc:
            taken = exc.errno == errno.EADDRINUSE
            what = "another program listens there already" if taken else "this address cannot be listened on"
            raise StartupError(
                f"-metrics-addr: {what}", code="port_in_use" if taken else "bad_flag"
            ) from None

    @property
    def port(self) -> int:
        """The port listened on."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def metrics(address: Address | None, *collectors: Collector) -> Iterator[None]:
    """Serve metrics while this is entered, if an address is given. Raises like ``MetricsServer``."""
    if address is None:
        yield
        return
    server = MetricsServer(address, *collectors)
    try:
        yield
    finally:
        server.stop()
