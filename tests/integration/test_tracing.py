"""One trace from a client's request over REST and the stream to the store, at a real collector."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.programs import Programs, free_port, programs, wait_for, wait_until_ready

from deltadatabase.errors import StartupError
from deltadatabase.telemetry import tracing
from integration.cluster import MARKER, Cluster

pytestmark = pytest.mark.integration

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "r-traced"}


class Collector:
    """Takes spans over OTLP/HTTP, as collectors do."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.raw = b""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quietly."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = [
                attribute.value.string_value
                for attribute in resource.resource.attributes
                if attribute.key == "service.name"
            ]
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]

    def of_trace(self, trace: str) -> dict[str, tuple[str, Any]]:
        """Spans of one trace by name, each with its service."""
        return {span.name: (service, span) for service, span in self.spans if span.trace_id.hex() == trace}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


@pytest.fixture
def started(tmp_path) -> Iterator[Programs]:
    with programs(tmp_path) as running:
        yield running


def test_one_trace_goes_from_the_client_to_the_store(started, tmp_path, collector):
    endpoint = f"-otlp-endpoint={collector.url}"
    cluster = Cluster(started, (f"-shared-fs={tmp_path / 'db'}",), tmp_path / "state")
    cluster.start_main(endpoint)
    cluster.start_worker("one", endpoint)
    cluster.ready(1)
    url = f"{cluster.url}/entity/notes"
    assert httpx.put(url, json={"secret-key": MARKER}, headers=HEADERS).status_code == 200
    names = {"PUT /entity/{schema_id}", "send PUT", "execute PUT", "store put"}
    wait_for(lambda: names <= collector.of_trace(TRACE).keys(), "the whole trace has arrived", 15)
    trace = collector.of_trace(TRACE)
    assert trace["PUT /entity/{schema_id}"][1].parent_span_id.hex() == PARENT
    for child, parent in (
        ("send PUT", "PUT /entity/{schema_id}"),
        ("execute PUT", "send PUT"),
        ("store put", "execute PUT"),
    ):
        assert trace[child][1].parent_span_id == trace[parent][1].span_id, child
    assert [trace[name][0] for name in ("send PUT", "execute PUT", "store put")] == [
        "deltadatabase-main-worker",
        "deltadatabase-proc-worker",
        "deltadatabase-proc-worker",
    ]
    said = {a.key: a.value.string_value or a.value.int_value for _, s in trace.values() for a in s.attributes}
    assert said["http.response.status_code"] == 200 and said["deltadatabase.request_id"] == "r-traced"
    assert MARKER.encode() not in collector.raw and b"secret-key" not in collector.raw
    # A cached read is answered without the store, and a refusal says its code.
    assert httpx.get(url, params={"key": "secret-key"}, headers=HEADERS).status_code == 200
    assert httpx.get(url, params={"key": "absent"}, headers=HEADERS).status_code == 404

    def refused() -> bool:
        return any(a.key == "error.type" for _, s in collector.spans for a in s.attributes)

    wait_for(refused, "the refusal has arrived", 15)
    assert b"absent" not in collector.raw
    assert cluster.stop() == [0, 0]


def test_serve_traces_alone_and_ends_in_time_without_a_collector(started, collector):
    port = free_port()
    for endpoint in (collector.url, f"http://127.0.0.1:{free_port()}"):
        program = started.start(
            "deltadb", "serve", "-memory", f"-rest-addr=127.0.0.1:{port}", f"-otlp-endpoint={endpoint}"
        )
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, program)
        assert httpx.put(f"{url}/entity/notes", json={"a": 1}, headers=HEADERS).status_code == 200
        assert program.stop() == 0
        assert program.output.count("they are lost") <= 1 and "v1/traces" not in program.output
    assert {"execute PUT", "store put"} <= collector.of_trace(TRACE).keys()


def test_a_missing_library_or_a_wrong_url_is_one_clear_line(started, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartupError) as caught:
        tracing.Tracing("http://127.0.0.1:1", program="serve", instance="1", version="1")
    assert "pip install 'deltadatabase[tracing]'" in caught.value.detail
    refused = started.run("deltadb", "serve", "-otlp-endpoint=ftp://user:secret@host")
    assert refused.returncode == 2 and "-otlp-endpoint" in refused.stderr and "secret" not in refused.stderr
