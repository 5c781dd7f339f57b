"""Dashboard, alerts and the page about them name only what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from monitoring.files import FAMILIES, MONITORING, ROOT, panels, rules, unknown_names

PAGE = (ROOT / "docs" / "monitoring.md").read_text()
QUERIES = [*panels(), *((rule["alert"], rule["expr"]) for rule in rules())]


@pytest.mark.parametrize(("where", "query"), QUERIES)
def test_a_query_names_metrics_that_are_exported(where: str, query: str) -> None:
    assert not unknown_names(query)


def test_a_metric_that_nobody_exports_is_found() -> None:
    assert unknown_names("rate(deltadatabase_seal_total[5m])") == {"deltadatabase_seal_total"}
    assert unknown_names("deltadatabase_http_request_duration_seconds") != set()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_is_exported_is_shown_on_the_dashboard(family: object) -> None:
    shown = " ".join(query for _, query in panels())
    assert re.search(rf"\b{family.name}(_bucket|_count|_sum)?\b", shown) or family in UNSHOWN


UNSHOWN = [
    family
    for family in FAMILIES
    # One number a check, and of a worker; /readyz and the alerts say more than a graph.
    if family.name.removeprefix("deltadatabase_")
    in ("readiness_check", "worker_member", "worker_memberships_ended_total")
]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    name = str(rule["alert"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"].endswith(".")
    text, _, anchor = rule["annotations"]["runbook"].partition(": docs/monitoring.md#")
    assert text and anchor == name.lower()
    assert f"\n### {name}\n" in PAGE


def test_the_page_explains_no_alert_that_is_gone() -> None:
    assert re.findall(r"^### (DeltaDatabase\w+)$", PAGE, re.MULTILINE) == [rule["alert"] for rule in rules()]


def test_the_scrape_jobs_are_those_of_the_alerts() -> None:
    jobs = [
        job["job_name"]
        for job in yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    ]
    assert jobs == ["main-worker", "proc-worker"]
    named = set(re.findall(r'job="([^"]+)"', " ".join(query for _, query in QUERIES)))
    assert named == set(jobs)


def test_grafana_finds_its_dashboard_and_prometheus() -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    assert '"uid": "prometheus"' in Path(MONITORING / "grafana/dashboards/deltadatabase.json").read_text()
    assert source["uid"] == "prometheus"
    provider = yaml.safe_load((provisioning / "dashboards" / "deltadatabase.yml").read_text())["providers"][0]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
