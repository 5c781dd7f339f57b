"""What a program does not need takes no memory in it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["obstore", "jsonschema_rs", "deltadatabase.worker", "httpx"])
def test_a_main_worker_does_without_the_parts_of_a_proc_worker(module: str) -> None:
    program = f"import deltadatabase.cli.main_worker, sys; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
