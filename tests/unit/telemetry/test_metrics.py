"""The listener for Prometheus."""

from __future__ import annotations

import socket
from collections.abc import Iterable

import httpx
import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deltadatabase.errors import StartupError
from deltadatabase.settings import Address
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
