"""Each alert fires when it should and only then, as ``promtool`` computes it from made-up series."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from monitoring.files import ALERTS, MONITORING, rules
from monitoring.prometheus import promtool


class Case(NamedTuple):
    """One alert's case.

    Attributes:
        series: what is scraped each minute: series to values, in promtool's notation.
        labels: of the alert, beside its severity.
        quiet, loud: minutes at which it does not fire yet, and does.
    """

    series: dict[str, str]
    labels: dict[str, str]
    quiet: int
    loud: int


MAIN = {"job": "main-worker", "instance": "m"}
WORKER = {"job": "proc-worker", "instance": "w"}


def of(where: dict[str, str], metric: str, values: str, **labels: str) -> dict[str, str]:
    """A series of one program."""
    text = ", ".join(f'{name}="{value}"' for name, value in (where | labels).items())
    return {f"{metric}{{{text}}}": values}


def http(values: str, code: str) -> dict[str, str]:
    return of(MAIN, "deltadatabase_http_requests_total", values, code=code)


def store(values: str, outcome: str) -> dict[str, str]:
    return of(WORKER, "deltadatabase_store_requests_total", values, kind="put", outcome=outcome)


def refused(values: str, action: str) -> dict[str, str]:
    return of(MAIN, "deltadatabase_audit_events_total", values, action=action, outcome="refused")


def times(values: str, le: str) -> dict[str, str]:
    return of(
        MAIN,
        "deltadatabase_http_request_duration_seconds_bucket",
        values,
        route="/entity/{schema_id}",
        method="GET",
        le=le,
    )


JOB = {"job": "main-worker"}
CASES: dict[str, Case] = {
    "DeltaDatabaseDown": Case(of(MAIN, "up", "1x4 0x9"), MAIN, 4, 8),
    "DeltaDatabaseWorkerDown": Case(of(WORKER, "up", "1x4 0x9") | of(MAIN, "up", "1x20"), WORKER, 6, 9),
    "DeltaDatabaseNotReady": Case(of(MAIN, "deltadatabase_ready", "1x4 0x9"), MAIN, 5, 8),
    "DeltaDatabaseNoWorker": Case(
        of(MAIN, "deltadatabase_members", "1x4 0x9", state="available")
        | of(MAIN, "deltadatabase_members", "0x20", state="draining"),
        MAIN,
        4,
        8,
    ),
    "DeltaDatabaseWorkerNotMember": Case(of(WORKER, "deltadatabase_worker_member", "1x4 0x9"), WORKER, 6, 9),
    "DeltaDatabaseWorkersLost": Case(
        of(MAIN, "deltadatabase_member_losses_total", "0x4 0+1x12"), MAIN, 6, 14
    ),
    "DeltaDatabaseForeignWriter": Case(
        of(MAIN, "deltadatabase_closed", "0x4 1x9", reason="foreign_writer"),
        MAIN | {"reason": "foreign_writer"},
        4,
        6,
    ),
    "DeltaDatabaseStoreGone": Case(
        of(MAIN, "deltadatabase_closed", "0x4 1x9", reason="store_gone"),
        MAIN | {"reason": "store_gone"},
        4,
        6,
    ),
    "DeltaDatabaseIntegrityFailure": Case(
        of(WORKER, "deltadatabase_integrity_failures_total", "0x4 1x9"), WORKER, 4, 6
    ),
    "DeltaDatabaseStoreErrors": Case(
        store("0x4 0+2x20", "unavailable") | store("0+100x24", "ok"), {"job": "proc-worker"}, 4, 14
    ),
    "DeltaDatabaseStoreFull": Case(
        store("0x4 1x9", "full"), WORKER | {"kind": "put", "outcome": "full"}, 4, 6
    ),
    "DeltaDatabaseSlow": Case(
        times("0+100x5 500x30", "0.5") | times("0+100x40", "1") | times("0+100x40", "+Inf"),
        {"method": "GET"},
        6,
        20,
    ),
    "DeltaDatabaseErrors": Case(http("0x4 1x9", "500"), MAIN | {"code": "500"}, 4, 6),
    "DeltaDatabaseOutcomeUnknown": Case(http("0x4 1x9", "504"), MAIN | {"code": "504"}, 4, 6),
    "DeltaDatabaseOverloaded": Case(
        http("0x4 0+10x20", "503") | http("0+100x24", "200") | of(MAIN, "deltadatabase_ready", "1x24"),
        JOB,
        4,
        14,
    ),
    "DeltaDatabaseRotationBlocked": Case(of(MAIN, "deltadatabase_rotation_blocked", "0x4 1x9"), MAIN, 4, 6),
    "DeltaDatabaseRefusedRequests": Case(
        refused("0x4 0+300x30", "login") | refused("0x30", "request_refused"), JOB, 6, 20
    ),
    "DeltaDatabaseWorkerRefused": Case(
        refused("0x4 1x9", "worker_refused"), MAIN | {"action": "worker_refused", "outcome": "refused"}, 4, 6
    ),
    "DeltaDatabaseCertificateExpires": Case(
        # The clock of promtool begins at 0: a week and five minutes after that it expires.
        of(MAIN, "deltadatabase_tls_certificate_expiry_timestamp_seconds", "605100x20"),
        MAIN,
        4,
        6,
    ),
}


def written(folder: Path, alert: str, rule: dict[str, Any], rules_file: str) -> str:
    """Write promtool's test of one alert; gives its name."""
    case = CASES[alert]
    firing = {
        "exp_labels": case.labels | rule["labels"],
        "exp_annotations": rule["annotations"],
    }
    test = {
        "rule_files": [rules_file],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
                "alert_rule_test": [
                    {"eval_time": f"{case.quiet}m", "alertname": alert, "exp_alerts": []},
                    {"eval_time": f"{case.loud}m", "alertname": alert, "exp_alerts": [firing]},
                ],
            }
        ],
    }
    (folder / "test.yml").write_text(yaml.safe_dump(test))
    return "test.yml"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_fires_when_it_should(rule: dict[str, Any], tmp_path: Path) -> None:
    ran = promtool("test", "rules", written(tmp_path, rule["alert"], rule, str(ALERTS)), folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("alert", "right", "wrong"),
    [
        ("DeltaDatabaseStoreErrors", "> 0.01", "> 0.5"),
        ("DeltaDatabaseOverloaded", 'code="503"', 'code="429"'),
        ("DeltaDatabaseRotationBlocked", "== 1", ">= 0"),
        ("DeltaDatabaseNotReady", "for: 1m", "for: 30m"),
    ],
)
def test_a_wrong_rule_is_found(alert: str, right: str, wrong: str, tmp_path: Path) -> None:
    text = ALERTS.read_text()
    begin = text.index(f"alert: {alert}\n")
    changed = text[:begin] + text[begin:].replace(right, wrong, 1)
    (tmp_path / "alerts.yml").write_text(changed)
    rule = next(rule for rule in rules() if rule["alert"] == alert)
    ran = promtool("test", "rules", written(tmp_path, alert, rule, "alerts.yml"), folder=tmp_path)
    assert ran.returncode != 0


def test_every_alert_has_a_case() -> None:
    assert list(CASES) == [rule["alert"] for rule in rules()]


def test_promtool_accepts_rules_and_configuration(tmp_path: Path) -> None:
    for kind, file in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        ran = promtool("check", kind, file, folder=MONITORING)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    # Debian's build knows no Kubernetes; what is done with the pods that it would find can be checked.
    text = (MONITORING / "prometheus.kubernetes.yml").read_text()
    configuration = yaml.safe_load(text)
    assert configuration["scrape_configs"][0].pop("kubernetes_sd_configs")[0]["role"] == "pod"
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text())
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    ran = promtool("check", "config", "prometheus.yml", folder=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
