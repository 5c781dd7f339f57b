"""Traces: one request as OpenTelemetry spans, from REST over the stream to the store.

OpenTelemetry is an extra (``pip install 'deltadatabase[tracing]'``) and is imported only when traces
are asked for. The context travels as W3C ``traceparent``, taken from the request and sent along with
each command. Attributes are operations, routes, codes and request ids; never a schema id, a key, a
document or a path. The SDK's own environment variables (``OTEL_TRACES_SAMPLER``, …) hold as well.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast, final

from deltadatabase.errors import DeltaError, StartupError
from deltadatabase.telemetry.logging import get_logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span, SpanKind

END_S: Final = 3.0
EXPORT_TIMEOUT_S: Final = 3.0
EXPORT_EVERY_MS: Final = 1000

_log = get_logger(__name__)

Attributes = Mapping[str, str | int | bool]


@final
class _Told:
    """An exporter that says once that spans are lost, and once that they are taken again."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._lost = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        lost = result.name != "SUCCESS"
        if lost is not self._lost:
            self._lost = lost
            what = "the collector does not take traces; they are lost" if lost else "traces are taken again"
            _log.warning(what)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


@final
class Tracing:
    """Makes spans and sends them to a collector, from a thread of its own.

    Args:
        endpoint: base URL of a collector that speaks OTLP over HTTP.
        program: ``main-worker``, ``proc-worker`` or ``serve``: part of the service's name.
        instance: names this run, or this worker.
        version: of the program.

    Raises:
        StartupError: ``bad_flag``: OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str, *, program: str, instance: str, version: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, Status, StatusCode
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise StartupError(
                "-otlp-endpoint needs OpenTelemetry: pip install 'deltadatabase[tracing]'", code="bad_flag"
            ) from None
        resource = Resource.create(
            {
                "service.name": f"deltadatabase-{program}",
                "service.instance.id": instance,
                "service.version": version,
            }
        )
        # Their lines name the collector's address, in which a token may stand, for each failure anew.
        for name in ("opentelemetry", "urllib3"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        exporter = _Told(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        # A SpanExporter in all but its base class, which is there only with the extra.
        processor = BatchSpanProcessor(cast("SpanExporter", exporter), schedule_delay_millis=EXPORT_EVERY_MS)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("deltadatabase", version)
        self._propagator = TraceContextTextMapPropagator()
        self._kinds = SpanKind
        self._failed = Status(StatusCode.ERROR)

    @contextmanager
    def serving(self, name: str, traceparent: str, attributes: Attributes) -> Iterator[Span]:
        """A span of work that somebody else asked for, in his trace if he named one."""
        parent = self._propagator.extract({"traceparent": traceparent}) if traceparent else None
        with self._span(name, self._kinds.SERVER, attributes, parent) as span:
            yield span

    @contextmanager
    def asking(self, name: str, attributes: Attributes) -> Iterator[Span]:
        """A span of a request to another part."""
        with self._span(name, self._kinds.CLIENT, attributes, None) as span:
            yield span

    def traceparent(self) -> str:
        """The present span, as it is sent along."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent", "")

    def close(self) -> None:
        """Send what is left, for a few seconds at the most."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(END_S)

    @contextmanager
    def _span(self, name: str, kind: SpanKind, attributes: Attributes, parent: object) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            context=parent,  # type: ignore[arg-type]  # a Context, whose type is only an alias there
            kind=kind,
            attributes=dict(attributes),
            # Texts of exceptions may quote what they failed over.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except DeltaError as exc:
                span.set_attribute("error.type", exc.code)
                span.set_status(self._failed)
                raise
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__name__)
                span.set_status(self._failed)
                raise


@contextmanager
def tracing(endpoint: str, *, program: str, instance: str, version: str) -> Iterator[Tracing | None]:
    """Trace while this is entered, if an endpoint is given. Raises StartupError."""
    if not endpoint:
        yield None
        return
    traces = Tracing(endpoint, program=program, instance=instance, version=version)
    try:
        yield traces
    finally:
        traces.close()
