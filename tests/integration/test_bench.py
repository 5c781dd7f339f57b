"""The benchmark, seconds long: it keeps working, and what it drives keeps answering without an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def bench(*arguments, environ=None):
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env=environ or os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_smoke(tmp_path):
    result = tmp_path / "result.json"
    done = bench(
        *("-generator=loop", "-rounds=1", "-seconds=1", "-warm-up=0", "-starts=1", "-connections=8"),
        *(f"-folder={tmp_path}", f"-json={result}"),
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(result.read_text())
    assert data["errors"] == data["damaged"] == 0
    assert len(data["workloads"]) == 6
    for row in data["workloads"]:
        assert row["rate"]["median"] > 0
        assert (row["ratio"] is None) == (row["baseline"] is None)
        assert f"| {row['name']} |" in done.stdout
        assert all(us > 0 for us in row["server_cpu_us"].values())
    assert set(data["idle_mib"]) == {"main-worker", "proc-worker", "deltadb serve"}
    assert "error answers and damaged documents = 0 | 0 | met" in done.stdout
    assert list(tmp_path.iterdir()) == [result]  # the temporary folder is gone


def test_without_wrk_it_says_what_to_do():
    done = bench(environ={**os.environ, "PATH": ""})
    assert done.returncode == 2
    assert "apt-get install wrk" in done.stderr
    assert not done.stdout


def test_a_bad_argument_is_refused():
    done = bench("-rounds=0")
    assert done.returncode == 2
    assert "must be a whole number from 1 on" in done.stderr
