"""Metrics for Prometheus, on a listener of their own (text exposition format 0.0.4).

Each program describes what it exports as ``Family`` values; ``docs/monitoring.md`` is written from
them. The parts that do the work count in plain integers of their own event loop, and are read where
they stand when Prometheus asks. That happens in another thread, so whoever reads copies a dictionary
before walking over it; a reader may see a sum that is one event older than its count.
"""

from __future__ import annotations

import enum
import errno
import socket
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from typing import Any, Final, cast, final

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from deltadatabase import __version__
from deltadatabase.errors import StartupError
from deltadatabase.settings import Address
from deltadatabase.telemetry.logging import get_logger

CONNECTION_S: Final = 5
CONNECTIONS_MAX: Final = 8

_log = get_logger(__name__)

DURATION_BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Of requests: a cached read is in the first, the longest allowed one in the last."""
SIZE_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Of batches."""

Labels = tuple[str, ...]


class Kind(enum.StrEnum):
    """What a family's values are."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@final
class Histogram:
    """Counts values in a few buckets. For one thread; another one may read.

    Attributes:
        counts: values in each bucket, the last one past every bound.
        total: sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Take one value in."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """The counts as Prometheus wants them: each bucket with all smaller ones in it."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts.copy())), strict=True))


def merged(histograms: Sequence[Histogram]) -> Histogram:
    """One histogram of all values of several, which have the same bounds."""
    result = Histogram(histograms[0].bounds)
    for histogram in histograms:
        result.counts = [mine + other for mine, other in zip(result.counts, histogram.counts, strict=True)]
        result.total += histogram.total
    return result


@dataclass(frozen=True, slots=True)
class Family:
    """One metric as it is exported.

    Attributes:
        name: with its unit, and ``_total`` for a counter.
        kind: what its values are.
        help: what it tells, for ``# HELP`` and docs/monitoring.md.
        labels: names of its labels. Their values come from a small fixed set, never from a request.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def of(self, value: float) -> Metric:
        """The metric with its one value."""
        return self.each({(): value})

    def each(self, values: Mapping[Labels, float]) -> Metric:
        """The metric with a value for each combination of labels."""
        make = CounterMetricFamily if self.kind is Kind.COUNTER else GaugeMetricFamily
        metric = make(self.name, self.help, labels=self.labels)
        for labels, value in values.items():
            metric.add_metric(labels, value)
        return metric

    def histograms(self, values: Mapping[Labels, Histogram]) -> Metric:
        """The metric with a histogram for each combination of labels."""
        metric = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for labels, histogram in values.items():
            metric.add_metric(labels, histogram.buckets(), histogram.total)
        return metric


def counter(name: str, help: str, *labels: str) -> Family:
    """Describe a counter."""
    return Family(f"deltadatabase_{name}", Kind.COUNTER, help, labels)


def gauge(name: str, help: str, *labels: str) -> Family:
    """Describe a gauge."""
    return Family(f"deltadatabase_{name}", Kind.GAUGE, help, labels)


def histogram(name: str, help: str, *labels: str) -> Family:
    """Describe a histogram."""
    return Family(f"deltadatabase_{name}", Kind.HISTOGRAM, help, labels)


BUILD_INFO: Final = gauge("build_info", "Always 1; the version that runs, and as what.", "version", "program")
AUDIT_EVENTS: Final = counter(
    "audit_events_total",
    "Events of the audit log by what was done and how it ended, those left out of the log in a flood too.",
    "action",
    "outcome",
)
CERTIFICATE_EXPIRY: Final = gauge(
    "tls_certificate_expiry_timestamp_seconds",
    "When the TLS certificate in use expires, seconds since the Unix epoch; absent without TLS.",
)
PROCESS_FAMILIES: Final = (BUILD_INFO, AUDIT_EVENTS, CERTIFICATE_EXPIRY)
"""What every program exports."""


@final
class ProgramMetrics(Collector):
    """What every program tells of itself.

    Args:
        program: its name.
        audit_events: counts of audit events by action and outcome, as they stand.
        expires_ms: when the certificate in use expires, milliseconds since the Unix epoch; None without.
    """

    def __init__(
        self,
        program: str,
        audit_events: Callable[[], Mapping[Labels, int]],
        expires_ms: Callable[[], int] | None,
    ) -> None:
        self._program = program
        self._audit_events = audit_events
        self._expires_ms = expires_ms

    def collect(self) -> Iterable[Metric]:
        """Give every sample."""
        yield BUILD_INFO.each({(__version__, self._program): 1})
        yield AUDIT_EVENTS.each(self._audit_events())
        if self._expires_ms is not None:
            yield CERTIFICATE_EXPIRY.of(self._expires_ms() / 1000)


class _Handler(BaseHTTPRequestHandler):
    """Answers ``GET /metrics`` and nothing else; says nothing, whatever is sent."""

    timeout = CONNECTION_S
    """Bounds each wait for the client, in seconds."""

    def do_GET(self) -> None:
        status, body = (
            (200, cast(_Server, self.server).exposition()) if self.path == "/metrics" else (404, b"")
        )
        if body is None:
            status, body = 500, b""
        self.send_response(status)
        self.send_header("content-type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "deltadatabase"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing that a stranger can cause is logged here."""


class _Server(ThreadingHTTPServer):
    """A few connections at a time, each for a short time; further ones are closed at once."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._registry = registry
        self._places = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address, _Handler)

    def exposition(self) -> bytes | None:
        """Every sample as text; None when that failed."""
        try:
            return generate_latest(self._registry)
        except Exception as exc:  # noqa: BLE001 - its class is logged, and the next scrape tries again
            _log.error("metrics could not be collected", error=exc)
            return None

    def process_request(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any
    ) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client went away: the default prints a stack."""


@final
class MetricsServer:
    """Serves ``GET /metrics`` from threads of its own, without credentials.

    It holds few connections, each for a few seconds, whatever whoever reaches it does.

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
        try:
            self._server = _Server((address.host, address.port), registry)
        except OSError as exc:
            taken = exc.errno == errno.EADDRINUSE
            what = "another program listens there already" if taken else "this address cannot be listened on"
            raise StartupError(
                f"-metrics-addr: {what}", code="port_in_use" if taken else "bad_flag"
            ) from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

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
