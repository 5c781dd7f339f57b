"""Schemathesis over the whole OpenAPI document of a real server, as admin, as reader and as nobody."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from fuzz.plants import PlantedPrograms
from fuzz.sockets import ADMIN_KEY, make_key, serve, still_serves
from fuzz.verdicts import Tally, Watch

RUN_S = 1800.0
CALLERS = ("admin", "reader", "nobody")
_CONFIG = """
[checks]
# All checks are on. This one expects that whatever fits the JSON Schema of a request is accepted. Ours
# say of most texts only that they are texts: keys without control characters, names of at most 100
# printable ones, durations such as 7d, permissions of a closed list, and one of two members of a login are
# rules that the answer of 400 explains. So a 400 is a right answer, too, and so are 412 to a condition and
# 422 to an idempotency key that was drawn before.
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 409, 412, 413, 422, 429]
"""
_IMPORT = """
[[operations]]
include-path = "/import/{schema_id}"
# A line that is none fails alone: the answer is 200, and says so.
checks.negative_data_rejection.expected-statuses = ["2xx", "4xx"]
"""
_HOOKS = """
import json
import schemathesis

@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace")
"""
_GENERATED = re.compile(r"(\d[\d,]*) generated")


def fuzz_openapi(
    started: PlantedPrograms, folder: Path, examples: int, seed: int, callers: tuple[str, ...] = CALLERS
) -> tuple[Tally, float]:
    """Run it once for each caller against one server; ``examples`` is for each operation."""
    tally = Tally()
    program, port = serve(started, folder)
    url = f"http://127.0.0.1:{port}"
    watch = Watch(tally, {"server": program})
    config = folder / "schemathesis.toml"
    config.write_text(_CONFIG + _IMPORT)
    (folder / "lines_of_json.py").write_text(_HOOKS)
    environ = {**os.environ, "SCHEMATHESIS_HOOKS": "lines_of_json", "PYTHONPATH": str(folder)}
    begun = time.monotonic()
    for caller in callers:
        # Made here: the run before may have deleted every key.
        key = make_key(url, "read")[1] if caller == "reader" else {"admin": ADMIN_KEY}.get(caller, "")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
                f"{url}/openapi.json",
                *(("-H", f"Authorization: Bearer {key}") if key else ()),
                *("-c", "all", "-n", str(examples), "--seed", str(seed)),
                *("--no-shrink", "--continue-on-failure", "--no-color", "--warnings", "off"),
            ],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        generated = _GENERATED.search(done.stdout)
        cases = int(generated[1].replace(",", "")) if generated else 0
        tally.sent += cases
        tally.answers[f"{caller} cases"] += cases
        if done.returncode != 0 or not cases:
            tally.found(
                f"as {caller}: exit code {done.returncode}\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
            )
        if caller == callers[0]:
            watch.begin()
    seconds = time.monotonic() - begun
    if watch.alive():
        still_serves(url, tally)
    watch.judge()
    return tally, seconds
