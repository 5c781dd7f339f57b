"""The listener for Prometheus."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterable

import httpx
import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deltadatabase.errors import StartupError
from deltadatabase.settings import Address
from deltadatabase.telemetry import metrics as serving
from deltadatabase.telemetry.metrics import MetricsServer, metrics


class One(Collector):
    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("deltadatabase_one", "One.", value=1)


def test_what_is_collected_is_served_until_the_end() -> None:
    server = MetricsServer(Address("127.0.0.1", 0), One())
    url = f"http://127.0.0.1:{server.port}/metrics"
    text = httpx.get(url).text
    assert "deltadatabase_one 1.0" in text
    assert "process_resident_memory_bytes" in text
    server.stop()
    with pytest.raises(httpx.TransportError):
        httpx.get(url)


def test_no_address_serves_nothing() -> None:
    with metrics(None, One()):
        pass


def test_a_port_in_use_is_one_clear_refusal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StartupError) as caught:
        MetricsServer(Address("127.0.0.1", taken.getsockname()[1]))
    assert caught.value.code == "port_in_use" and "-metrics-addr" in caught.value.detail
    with pytest.raises(StartupError) as caught:
        MetricsServer(Address("192.0.2.1", 0))
    assert caught.value.code == "bad_flag"


def test_silent_connections_hold_little_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving._Handler, "timeout", 0.3)
    server = MetricsServer(Address("127.0.0.1", 0), One())
    url = f"http://127.0.0.1:{server.port}/metrics"
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
    for connection in silent:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET /m")
    time.sleep(0.1)
    assert threading.active_count() - before <= serving.CONNECTIONS_MAX
    time.sleep(0.5)
    assert "deltadatabase_one" in httpx.get(url).text
    for connection in silent:
        connection.close()
    server.stop()


class Broken(Collector):
    failing = False

    def collect(self) -> Iterable[Metric]:
        if self.failing:
            raise RuntimeError("hummingbird")
        return ()


def test_nothing_that_is_sent_or_fails_prints_a_stack(capfd: pytest.CaptureFixture[str]) -> None:
    broken = Broken()
    server = MetricsServer(Address("127.0.0.1", 0), broken)
    url = f"http://127.0.0.1:{server.port}"
    for accept in ("application/openmetrics-text;version=abc", "text/plain;version=%%%", "*/*"):
        assert httpx.get(f"{url}/metrics", headers={"accept": accept}).status_code == 200
    assert httpx.get(f"{url}/other").status_code == 404
    assert httpx.post(f"{url}/metrics").status_code == 501
    assert "Python" not in httpx.get(f"{url}/metrics").headers["server"]
    broken.failing = True
    answer = httpx.get(f"{url}/metrics")
    assert (answer.status_code, answer.content) == (500, b"")
    server.stop()
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out
