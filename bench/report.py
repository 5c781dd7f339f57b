"""A run as data, and as Markdown for people."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.load import Load
from bench.stats import Spread, ratios, spread
from bench.workloads import Workload

ROOT = Path(__file__).parents[1]
BUSY = 0.9
"""A generator that used more than this part of its one processor may have been the limit."""

GET_RATE_GOAL = 8000
IDLE_MIB_GOAL = 250
START_S_GOAL = 2.0


@dataclass(frozen=True)
class Round:
    """One workload in one round.

    Attributes:
        load: what the generator saw.
        server_cpu_s: processor time of each server meanwhile, by its name.
    """

    load: Load
    server_cpu_s: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """Everything that was measured.

    Attributes:
        settings: of this run.
        rounds: of each workload, in the same order.
        start_s: start times of ``deltadb serve``.
        idle_mib: resident memory before anything was stored, by server.
        loaded_mib: the same after the last round.
        damaged: documents that did not come back as they were put.
        load_average: of the machine (1 minute), before and after.
    """

    settings: Mapping[str, Any]
    rounds: Sequence[tuple[Workload, Sequence[Round]]]
    start_s: Sequence[float]
    idle_mib: Mapping[str, float]
    loaded_mib: Mapping[str, float]
    damaged: int
    load_average: tuple[float, float]

    @property
    def errors(self) -> int:
        """Error answers in all rounds."""
        return sum(each.load.errors for _, rounds in self.rounds for each in rounds)


def as_data(run: Run) -> dict[str, Any]:
    """The run as JSON-ready data, with what is needed to repeat it."""
    rates = {workload.name: [each.load.rate for each in measured] for workload, measured in run.rounds}
    workloads = []
    for workload, measured in run.rounds:
        workloads.append(
            {
                "name": workload.name,
                "baseline": workload.baseline,
                "rate": _spread(spread(rates[workload.name])),
                "ratio": _spread(ratios(rates[workload.name], rates[workload.baseline]))
                if workload.baseline
                else None,
                "p50_ms": statistics.median(each.load.p50_ms for each in measured),
                "p99_ms": statistics.median(each.load.p99_ms for each in measured),
                "errors": sum(each.load.errors for each in measured),
                "generator_busy": max(each.load.cpu_s / each.load.seconds for each in measured),
                "server_cpu_us": {
                    server.name: 1e6
                    * sum(each.server_cpu_s[server.name] for each in measured)
                    / max(1, sum(each.load.requests for each in measured))
                    for server in workload.servers
                },
                "rounds": [asdict(each) for each in measured],
            }
        )
    return {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine() | {"load_average": run.load_average},
        "libraries": libraries(),
        "settings": dict(run.settings),
        "workloads": workloads,
        "start_s": _spread(spread(run.start_s)) | {"all": list(run.start_s)},
        "idle_mib": dict(run.idle_mib),
        "loaded_mib": dict(run.loaded_mib),
        "errors": run.errors,
        "damaged": run.damaged,
    }


def markdown(data: Mapping[str, Any]) -> str:
    """``as_data`` as a report of three tables."""
    machine, settings = data["machine"], data["settings"]
    before, after = machine["load_average"]
    lines = [
        f"commit {data['commit']}, {data['time']}",
        f"{machine['cpu']}, {machine['cpus_used']} of {machine['cpus']} processors, {machine['kernel']}",
        f"Python {machine['python']}, load average {before:.1f} before and {after:.1f} after",
        (
            f"{settings['documents']} documents of {settings['document_bytes']} bytes, "
            f"{settings['connections']} connections, {settings['rounds']} rounds of {settings['seconds']} s, "
            f"generator {settings['generator']}"
        ),
        "",
        "| workload | answers/s | of its baseline | p50 ms | p99 ms | generator busy | CPU µs | errors |",
        "|---|--:|--:|--:|--:|--:|---|--:|",
    ]
    for row in data["workloads"]:
        rate, ratio = row["rate"], row["ratio"]
        part = f"{ratio['median']:.0%} ({ratio['low']:.0%}-{ratio['high']:.0%})" if ratio else "baseline"
        busy = "" if row["generator_busy"] < BUSY or not row["server_cpu_us"] else " **the limit**"
        cpu = ", ".join(f"{name} {us:.0f}" for name, us in row["server_cpu_us"].items()) or "-"
        lines.append(
            f"| {row['name']} | {rate['median']:,.0f} ({rate['low']:,.0f}-{rate['high']:,.0f}) | {part} "
            f"| {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {row['generator_busy']:.0%}{busy} | {cpu} "
            f"| {row['errors']} |"
        )
    lines += ["", "| resident memory, MiB | idle | after load |", "|---|--:|--:|"]
    for name, mib in data["idle_mib"].items():
        lines.append(f"| {name} | {mib:.0f} | {data['loaded_mib'][name]:.0f} |")
    lines += ["", "| goal | measured | |", "|---|--:|---|"]
    lines += [f"| {goal} | {value} | {'met' if met else '**missed**'} |" for goal, value, met in goals(data)]
    return "\n".join(lines)


def goals(data: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Each goal, what was measured, and whether it is met."""
    through = next(row for row in data["workloads"] if row["name"].startswith("GET, main-worker"))
    rate = through["rate"]["median"]
    idle = data["idle_mib"]["main-worker"] + data["idle_mib"]["proc-worker"]
    start = data["start_s"]
    failed = data["errors"] + data["damaged"]
    return [
        (f"GET through main and worker > {GET_RATE_GOAL:,}/s", f"{rate:,.0f}/s", rate > GET_RATE_GOAL),
        (f"idle main and worker together < {IDLE_MIB_GOAL} MiB", f"{idle:.0f} MiB", idle < IDLE_MIB_GOAL),
        (
            f"`deltadb serve` ready < {START_S_GOAL:.0f} s after its start",
            f"{start['median']:.2f} s ({start['low']:.2f}-{start['high']:.2f})",
            start["median"] < START_S_GOAL,
        ),
        ("error answers and damaged documents = 0", str(failed), failed == 0),
    ]


def commit() -> str:
    """The commit measured, with a ``+`` if the sources differ from it."""
    try:
        return _git("rev-parse", "--short=12", "HEAD") + "+" * bool(_git("status", "--porcelain", "src"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "cpus_used": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def libraries() -> dict[str, str]:
    """Installed version of everything the product depends on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[^\w-]", requirement)[0] for requirement in project["dependencies"]]
    return {name: importlib.metadata.version(name) for name in names}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _spread(values: Spread) -> dict[str, float]:
    return values._asdict()
