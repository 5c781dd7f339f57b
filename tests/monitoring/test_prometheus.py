"""Every query of dashboard and alerts, run by a real Prometheus that scrapes real programs under load."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from integration.cluster import MARKER, Cluster
from support.discretion import ADMIN_KEY, JOIN_TOKEN, MASTER_KEY
from support.programs import free_port, programs, wait_for, wait_until_ready

from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc
from deltadatabase.rpc.pb import types_pb2
from monitoring.files import ALERTS, FAMILIES, MONITORING, panels, rules, series_of
from monitoring.prometheus import Prometheus, running

pytestmark = pytest.mark.integration
HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}
WORKERS = ("one", "two")
EMPTY = ("deltadatabase_tls_certificate_expiry_timestamp_seconds", "deltadatabase_key_objects_left")
"""Without TLS, and before a rotation, there is nothing to show."""


@dataclass
class System:
    """Two workers under load, watched."""

    cluster: Cluster
    prometheus: Prometheus
    metrics: dict[str, list[str]]
    load: threading.Thread
    end: threading.Event

    def rest(self) -> None:
        """End the load."""
        self.end.set()
        self.load.join()


def configuration(folder: Path, targets: dict[str, list[str]]) -> dict[str, Any]:
    """The committed configuration, with the addresses of this test."""
    settings: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in settings["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": targets[job["job_name"]]}]
    folder.mkdir()
    shutil.copy(ALERTS, folder)
    return settings


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("monitoring")
    targets = {
        "main-worker": [f"127.0.0.1:{free_port()}"],
        "proc-worker": [f"127.0.0.1:{free_port()}" for _ in WORKERS],
    }
    with programs(folder) as started:
        cluster = Cluster(
            started,
            ["-shared-fs=db"],
            folder / "state",
            {"MASTER_KEY": MASTER_KEY, "ADMIN_KEY": ADMIN_KEY, "JOIN_TOKEN": JOIN_TOKEN},
        )
        cluster.start_main(f"-metrics-addr={targets['main-worker'][0]}")
        for name, address in zip(WORKERS, targets["proc-worker"], strict=True):
            cluster.start_worker(name, f"-metrics-addr={address}", environ={"JOIN_TOKEN": JOIN_TOKEN})
        wait_until_ready(cluster.url, cluster.main, workers=len(WORKERS))
        with running(folder / "prometheus", configuration(folder / "prometheus", targets)) as prometheus:
            end = threading.Event()
            load = threading.Thread(target=use, args=(cluster, end))
            load.start()
            try:
                prometheus.wait("min(count_over_time(up[1m])) >= 6")
                yield System(cluster, prometheus, targets, load, end)
            finally:
                end.set()
                load.join()


def use(cluster: Cluster, end: threading.Event) -> None:
    """Read and write over REST and gRPC, and be refused, until the end."""
    with (
        httpx.Client(base_url=cluster.url, headers=HEADERS) as client,
        grpc.insecure_channel(f"127.0.0.1:{cluster.grpc_port}") as channel,
    ):
        stub = pb_grpc.MainWorkerStub(channel)
        metadata = (("authorization", f"Bearer {ADMIN_KEY}"),)
        number = 0
        while not end.wait(0.02):
            number = (number + 1) % 50
            client.put("/entity/notes", content=f'{{"n{number}": {{"text": "{MARKER}"}}}}')
            client.get("/entity/notes", params={"key": f"n{number}"})
            client.get("/entity/notes", params={"key": f"absent{number}"})
            client.get("/admin/workers")
            httpx.get(f"{cluster.url}/admin/workers", headers={"Authorization": "Bearer nonsense"})
            request = pb.ProcessRequest(op=types_pb2.OP_GET, schema_id="notes", key=f"n{number}")
            stub.Process(request, metadata=metadata, timeout=10)


def scraped(address: str) -> str:
    return httpx.get(f"http://{address}/metrics").text


def test_every_target_is_up_and_no_rule_fails(system: System) -> None:
    active = system.prometheus.api("targets")["activeTargets"]
    assert [target["health"] for target in active] == ["up"] * 3, active
    groups = system.prometheus.api("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


@pytest.mark.parametrize(("title", "query"), list(panels()), ids=lambda text: text[:40])
def test_a_panel_has_data(title: str, query: str, system: System) -> None:
    found = system.prometheus.query(query.replace("$__rate_interval", "15s"))
    assert bool(found) != query.startswith(EMPTY), title


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_is_computed_from_data_and_does_not_fire(rule: dict[str, Any], system: System) -> None:
    expression = rule["expr"]
    # Eight requests a second are refused here.
    assert not system.prometheus.query(expression) or rule["alert"] == "DeltaDatabaseRefusedRequests"
    for clause in re.split(r"\s(?:or|and on \(job\))\s", expression):
        measured = re.split(r"\s(?:==|>|<)\s", clause)[0]
        if measured.startswith((*EMPTY, "absent(")):
            continue
        assert system.prometheus.query(measured.replace("[5m]", "[15s]").replace("[10m]", "[15s]")), measured


def test_a_query_for_what_is_not_there_is_found_out(system: System) -> None:
    assert not system.prometheus.query("rate(deltadatabase_http_requests_total{route='/entity'}[15s])")
    with pytest.raises(AssertionError, match="parse error"):
        system.prometheus.query("rate(deltadatabase_http_requests_total[15s]")


def test_exactly_the_documented_series_are_exported(system: System) -> None:
    texts = [scraped(address) for addresses in system.metrics.values() for address in addresses]
    names = set(re.findall(r"^(deltadatabase_\w+)[{ ]", "\n".join(texts), re.MULTILINE))
    known = {name for family in FAMILIES for name in series_of(family)}
    assert names == known - set(EMPTY)


def test_no_label_holds_a_schema_id_a_key_or_an_address(system: System) -> None:
    for addresses in system.metrics.values():
        for address in addresses:
            text = "\n".join(
                line for line in scraped(address).splitlines() if line.startswith("deltadatabase_")
            )
            assert "notes" not in text and "absent" not in text and "127.0.0.1" not in text
            assert MARKER not in text and ADMIN_KEY not in text
            assert len(text.splitlines()) < 500


def test_prometheus_counts_what_was_asked(system: System) -> None:
    prometheus = system.prometheus
    entity = 'deltadatabase_http_requests_total{route="/entity/{schema_id}",method="GET",code="%s"}'
    for code in ("200", "404"):
        assert prometheus.query(f"rate({entity % code}[15s]) > 0")
    assert prometheus.query(
        'rate(deltadatabase_http_requests_total{route="/admin/workers",code="401"}[15s]) > 0'
    )
    assert prometheus.query('rate(deltadatabase_grpc_requests_total{op="get",code="OK"}[15s]) > 0')
    assert prometheus.query("sum(rate(deltadatabase_seals_total[15s])) > 0")
    assert prometheus.query("sum(deltadatabase_worker_member) == 2")
    assert prometheus.query('deltadatabase_shards{state="owned"} == 1024')


def test_alerts_see_workers_that_went(system: System) -> None:
    """Last: what it stops does not come back."""
    prometheus = system.prometheus
    system.rest()
    for name in WORKERS:
        system.cluster.workers[name].kill()
    expressions = {rule["alert"]: rule["expr"] for rule in rules()}
    for alert in ("DeltaDatabaseWorkerDown", "DeltaDatabaseNoWorker", "DeltaDatabaseNotReady"):
        wait_for(lambda alert=alert: prometheus.query(expressions[alert]), alert)
    wait_for(
        lambda: (
            {"DeltaDatabaseNotReady", "DeltaDatabaseNoWorker"}
            <= {alert["labels"]["alertname"] for alert in prometheus.api("alerts")["alerts"]}
        ),
        "both are pending",
    )
    assert prometheus.query("deltadatabase_member_losses_total == 2")
