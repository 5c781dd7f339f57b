"""Short runs on real processes, and one that must find a planted bug."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

TESTS = Path(__file__).parents[1]


def chaos(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the harness as ``just chaos`` does; exit code, figures and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "-json", str(folder / "figures.json"), *arguments],
        env={**os.environ, "PYTHONPATH": str(TESTS), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = done.stdout + done.stderr
    figures = folder / "figures.json"
    assert figures.exists(), said
    return done.returncode, json.loads(figures.read_bytes()), said


# With these seeds both kinds of workers are killed early on, and no outage is a long one.


def test_nothing_is_lost_on_s3(tmp_path):
    code, figures, said = chaos(tmp_path, "-store", "s3", "-minutes", "0.6", "-seed", "1708")
    assert (code, figures["verdict"]) == (0, "passed"), said
    assert (figures["violations"], figures["lost"]) == (0, 0)
    assert figures["faults_made"] >= 3, said
    assert figures["rate_before_a_fault_min"] >= 100
    assert (figures["recovery_s"]["max"] or 0.0) < figures["recovery_s"]["goal"]
    assert figures["requests_hit_by_the_proxy"], said


def test_nothing_is_lost_on_a_directory(tmp_path):
    code, figures, said = chaos(tmp_path, "-store", "directory", "-minutes", "0.5", "-seed", "15")
    assert (code, figures["verdict"]) == (0, "passed"), said
    assert (figures["violations"], figures["lost"]) == (0, 0)
    assert figures["faults_made"] >= 3, said
    assert figures["rate_before_a_fault_min"] >= 100
    assert (figures["recovery_s"]["max"] or 0.0) < figures["recovery_s"]["goal"]


def test_a_planned_move_fails_no_request(tmp_path):
    code, figures, said = chaos(tmp_path, "-planned", "-store", "directory", "-minutes", "0", "-seed", "1")
    assert (code, figures["failed_during_planned_moves"]) == (0, 0), said
    assert figures["faults"] == {"rolling-restart": 1, "scale-down": 1, "scale-up": 1}
    assert set(figures["answers"]) <= {"delete 200", "get 200", "get 404", "put 200"}, said


def test_a_planted_bug_is_found(tmp_path):
    code, figures, said = chaos(
        tmp_path, "-plant", "lost-reply-acknowledged", "-store", "s3", "-minutes", "1", "-seed", "1"
    )
    assert (code, figures["verdict"]) == (1, "failed"), said
    assert figures["violations"] > 0, said
    assert figures["found_after_s"] is not None
    kept = [path.name for path in tmp_path.rglob("*.txt")]
    assert {"history.txt", "violations.txt"} <= set(kept)
