"""Generators that are programs: wrk as a closed loop, Vegeta at a fixed rate."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.load import SEED, Load, Request, children_cpu_s, fresh_start
from bench.paced import Loop

SCRIPT = Path(__file__).with_name("wrk.lua")


class Wrk:
    """``wrk`` with one thread: by far cheaper than any server measured here.

    It knows no fixed rate: ``vegeta`` is the program for that, or None: a loop in Python.
    """

    def __init__(self, vegeta: Path | None = None) -> None:
        self._paced = Loop() if vegeta is None else Vegeta(vegeta)

    @staticmethod
    def installed() -> bool:
        """True where the program is there."""
        return shutil.which("wrk") is not None

    def run(
        self, port: int, requests: Sequence[Request], *, connections: int, seconds: float, rate: int = 0
    ) -> Load:
        if rate:
            return self._paced.run(port, requests, connections=connections, seconds=seconds, rate=rate)
        with tempfile.NamedTemporaryFile(suffix=".requests") as listing, children_cpu_s() as used_s:
            listing.writelines(
                b"%s %s %s %s\n" % (r.method.encode(), r.path.encode(), (r.type or "-").encode(), r.body)
                for r in requests
            )
            listing.flush()
            done = subprocess.run(
                [
                    *(
                        "wrk",
                        "-t1",
                        f"-c{connections}",
                        f"-d{_whole(seconds)}s",
                        f"-s{SCRIPT}",
                        "--timeout=10s",
                    ),
                    *(f"http://127.0.0.1:{port}/", "--", listing.name, str(SEED), str(fresh_start())),
                ],
                check=True,
                capture_output=True,
                text=True,
            )
        return Load(**json.loads(done.stdout.splitlines()[-1]), cpu_s=used_s[0])


class Vegeta:
    """``vegeta`` on one processor: sends when a request is due, whatever became of those before."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def run(
        self, port: int, requests: Sequence[Request], *, connections: int, seconds: float, rate: int = 0
    ) -> Load:
        order = list(requests)
        random.Random(SEED).shuffle(order)
        with tempfile.TemporaryDirectory(prefix="vegeta-") as folder:
            targets, results = Path(folder) / "targets", Path(folder) / "results"
            targets.write_text("".join(json.dumps(_target(port, each)) + "\n" for each in order))
            with children_cpu_s() as used_s:
                subprocess.run(
                    [
                        *(self._program, "-cpus=1", "attack", "-format=json", f"-targets={targets}"),
                        *(f"-rate={rate}/s", f"-duration={_whole(seconds)}s", f"-connections={connections}"),
                        *(f"-output={results}", "-timeout=10s", "-redirects=-1", "-max-body=0"),
                    ],
                    check=True,
                )
            report = subprocess.run(
                [self._program, "report", "-type=json", results], check=True, capture_output=True
            )
        seen = json.loads(report.stdout)
        times = seen["latencies"]
        return Load(
            requests=seen["requests"],
            errors=round(seen["requests"] * (1 - seen["success"])),
            seconds=(seen["duration"] + seen["wait"]) / 1e9,
            p50_ms=times["50th"] / 1e6,
            p90_ms=times["90th"] / 1e6,
            p99_ms=times["99th"] / 1e6,
            cpu_s=used_s[0],
            target=float(rate),
        )


def _whole(seconds: float) -> int:
    return max(1, round(seconds))


def _target(port: int, request: Request) -> dict[str, object]:
    target: dict[str, object] = {"method": request.method, "url": f"http://127.0.0.1:{port}{request.path}"}
    if request.body:
        target["body"] = base64.b64encode(request.body).decode()
    if request.type:
        target["header"] = {"Content-Type": [request.type]}
    return target
