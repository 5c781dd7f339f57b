"""What deploy/monitoring says: its queries, and the names of metrics in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from deltadatabase.gateway import metrics as gateway
from deltadatabase.telemetry.metrics import PROCESS_FAMILIES, Family, Kind
from deltadatabase.worker import metrics as worker

ROOT: Final = Path(__file__).parents[2]
MONITORING: Final = ROOT / "deploy" / "monitoring"
ALERTS: Final = MONITORING / "alerts.yml"
DASHBOARD: Final = MONITORING / "grafana" / "dashboards" / "deltadatabase.json"
FAMILIES: Final = (*PROCESS_FAMILIES, *gateway.FAMILIES, *worker.FAMILIES)
OTHERS: Final = frozenset(
    {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "up"}
)
"""Names that Prometheus and its client library export."""
_OWN: Final = re.compile(r"\b(?:deltadatabase|process|python)_\w+")


def rules() -> list[dict[str, Any]]:
    """Every alert rule."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> Iterator[tuple[str, str]]:
    """Title and query of everything on the dashboard."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def unknown_names(query: str) -> set[str]:
    """Metrics that a query names and no program exports."""
    return set(_OWN.findall(query)) - exported() - OTHERS


def exported() -> set[str]:
    """Names of all series that the programs export."""
    return {name for family in FAMILIES for name in series_of(family)}


def series_of(family: Family) -> set[str]:
    """Names of a family's series."""
    if family.kind is Kind.HISTOGRAM:
        return {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
    return {family.name}
