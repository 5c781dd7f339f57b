"""The benchmark, seconds long: it keeps working, and what it drives keeps answering without an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
QUICK = ("-generator=loop", "-tools=none", "-rounds=1", "-seconds=0.2", "-warm-up=0", "-connections=8")
STEPS = {
    "GET /entity": {"total", "route"},
    "GET /entities": {"total", "route"},
    "GET /entity, not cached": {"total", "route", "store"},
    "GET /entities, not cached": {"total", "route", "store"},
    "PUT /entity, new": {"total", "route", "validate", "seal", "store"},
    "PUT /entities, new": {"total", "route", "validate", "seal", "store"},
    "PATCH /entities": {"total", "route", "validate", "seal", "store"},
    "DELETE /entity": {"total", "route", "seal", "store"},
    "DELETE /entities": {"total", "route", "seal", "store"},
}


def program(module, *arguments, environ=None):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environ or os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def bench(*arguments, environ=None):
    return program("bench", *arguments, environ=environ)


def test_smoke(tmp_path):
    work, report = tmp_path / "work", tmp_path / "report"
    work.mkdir()
    done = bench(*QUICK, "-parts=get,put,kinds,timing", f"-folder={work}", f"-report={report}")
    assert done.returncode == 0, done.stderr
    data = json.loads((report / "result.json").read_text())
    assert (data["errors"], data["damaged"], data["failed"]) == (0, 0, [])
    text = (report / "report.md").read_text()
    rows = [row for name in ("get", "put", "kinds") for row in data["parts"][name]["rows"]]
    assert len(rows) == 6 + 3 + 22
    for row in rows:
        assert row["rate"]["median"] > 0
        assert (row["ratio"] is None) == (row["against"] is None)
        assert f"| {row['who']} |" in text
        assert all(us > 0 for us in row["server_cpu_us"].values())
    assert "error answers and damaged documents: 0 | 0 | met" in text
    assert "**Incomplete.**" in text and "etcd: not measured" in text and "Kinto: not measured" in text
    for name in ("get", "put", "kinds"):
        assert f"]({name}.svg)" in text
        assert (report / f"{name}.svg").read_bytes().startswith(b"<svg")
    found = {
        row["operation"]: set(row["steps_ms"]) for row in data["parts"]["timing"]["operations"]["directory"]
    }
    for operation, steps in STEPS.items():
        assert found[operation] - {"queue"} == steps, operation
    asked = {(row["what"], row["who"]): row["store_requests"] for row in data["parts"]["kinds"]["rows"]}
    # A new name is created without a look, and what no cache holds is read.
    for what, kind, other in (("PUT new", "put", "get"), ("GET miss", "get", "put")):
        assert asked[what, "memory"][kind] == pytest.approx(1.0, abs=0.3), what
        assert asked[what, "memory"].get(other, 0.0) == pytest.approx(0.0, abs=0.3), what
    assert not list(work.iterdir())  # The temporary folder is gone.
    added = bench(*QUICK, "-parts=starts", "-seconds=0.4", f"-folder={work}", f"-onto={report}")
    assert added.returncode == 0, added.stderr
    both = json.loads((report / "result.json").read_text())
    assert list(both["parts"]) == ["get", "put", "kinds", "timing", "starts"]
    assert both["settings"]["seconds"] == f"{data['settings']['seconds']} and 0.4"
    assert both["settings"]["rounds"] == data["settings"]["rounds"]
    result = str(report / "result.json")
    compared = program("bench.compare", result, result)
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.count("| +0% |") == len(rows)


def test_ended_early_it_leaves_nothing_behind(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *QUICK, "-parts=get", "-rounds=1000", f"-folder={tmp_path}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            while "round 1 " not in process.stderr.readline():
                assert process.poll() is None
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert len(children) == 6
            process.terminate()
            process.stderr.read()
            assert process.wait(60) == 128 + signal.SIGTERM
        finally:
            process.kill()
    # They were waited for.
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert not list(tmp_path.iterdir())


def test_every_module_can_be_loaded():
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "bench").rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    ]
    done = subprocess.run(
        [sys.executable, "-c", f"import importlib; [importlib.import_module(name) for name in {names}]"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_without_wrk_it_says_what_to_do():
    done = bench(environ={**os.environ, "PATH": ""})
    assert done.returncode == 2
    assert "just bench-setup" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        ("-rounds=0", "must be a whole number from 1 on"),
        ("-parts=get,nothing", "no such part: nothing"),
        ("-onto=nowhere", "there is no report to add to"),
    ],
)
def test_a_bad_argument_is_refused(argument, word):
    done = bench(argument)
    assert done.returncode == 2
    assert word in done.stderr


def test_only_results_are_compared(tmp_path):
    other = tmp_path / "other.json"
    other.write_text("{}")
    done = program("bench.compare", str(other), str(other))
    assert done.returncode == 2
    assert "this is no result of the benchmark" in done.stderr
