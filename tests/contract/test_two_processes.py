"""Real processes on one directory never overwrite each other, also when they are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sim.disk_scenario import Asked, violations
from support.programs import wait_for

from contract.racing_writer import PATHS
from deltadatabase.clock import SystemClock, system_random
from deltadatabase.errors import NotFound
from deltadatabase.storage.local import DirectoryObjects

TESTS = Path(__file__).parents[1]
RUN_S = 3.0
KILLS = 8

pytestmark = pytest.mark.integration


class Writers:
    """Some processes, each replaced by a new one of its kind when it is killed."""

    def __init__(self, folder: Path, *kinds: str) -> None:
        self.data = folder / "data"
        self._logs = folder / "logs"
        self._logs.mkdir()
        self.kinds = kinds
        self._born = 0
        self.processes = [self._start(kind) for kind in kinds]

    def _start(self, kind: str) -> subprocess.Popen[bytes]:
        self._born += 1
        name = f"w{self._born}"
        arguments = (str(self.data), str(self._logs / name), name, kind)
        return subprocess.Popen(
            [sys.executable, "-m", "contract.racing_writer", *arguments],
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )

    def kill(self, number: int) -> None:
        """kill -9, then another in its place."""
        process = self.processes[number]
        wait_for(lambda: self._written(process), "the writer has written")
        assert process.poll() is None, "a writer ended by itself"
        process.kill()
        process.wait()
        self.processes[number] = self._start(self.kinds[number])

    def _written(self, process: subprocess.Popen[bytes]) -> bool:
        log = Path(process.args[4])  # type: ignore[index]
        return any("ok" in part.read_text() for part in self._logs.glob(f"{log.name}.*"))

    def stop(self, number: int, seconds: float) -> None:
        self.processes[number].send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.processes[number].send_signal(signal.SIGCONT)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def asked(self) -> list[Asked]:
        """What all of them asked for, from their logs."""
        found: list[Asked] = []
        for log in sorted(self._logs.iterdir()):
            asked: dict[tuple[str, str], Asked] = {}
            for line in log.read_text().splitlines():
                kind, number, path, *etags = line.split()
                if kind == "ask":
                    named, made = (None if etag == "-" else etag for etag in etags)
                    asked[number, path] = Asked(log.name, path, named, made)
                else:
                    asked[number, path].outcome = kind
            found += asked.values()
        return found


@pytest.fixture
def writers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Writers]:
    writers = Writers(tmp_path, *request.param)
    yield writers
    writers.end()


async def final(data: Path) -> dict[str, str | None]:
    store = DirectoryObjects(data, clock=SystemClock(), random=system_random)
    found: dict[str, str | None] = {}
    for path in PATHS:
        try:
            found[path] = (await store.get(path)).etag
        except NotFound:
            found[path] = None
    await store.close()
    return found


@pytest.mark.parametrize(
    "writers",
    [("directory", "directory"), ("journaled",), ("journaled", "directory")],
    indirect=True,
    ids="-".join,
)
def test_racing_and_killed_processes_keep_each_others_changes(writers: Writers) -> None:
    rng = random.Random(5)
    kills = 0
    while kills < KILLS:
        time.sleep(rng.uniform(0.1, 0.6))
        number = rng.randrange(len(writers.processes))
        if rng.random() < 0.25:
            writers.stop(number, rng.uniform(0.05, 0.3))
        else:
            writers.kill(number)
            kills += 1
    time.sleep(0.5)
    writers.end()
    asked = writers.asked()
    wrong = violations(asked, asyncio.run(final(writers.data)))
    outcomes = [change.outcome for change in asked]
    print(
        {outcome: outcomes.count(outcome) for outcome in set(outcomes)},
        f"{kills} kills, {len({change.process.split('.')[0] for change in asked})} processes wrote",
    )
    assert wrong == []
    # Nothing is proved by what did not happen.
    assert outcomes.count("ok") > 50
    assert outcomes.count("refused") > 5 or len(writers.kinds) == 1
    assert len({change.process.split(".")[0] for change in asked if change.outcome == "ok"}) > 2


@pytest.mark.parametrize("writers", [("no-lock", "no-lock")], indirect=True)
def test_processes_without_a_lock_are_caught(writers: Writers) -> None:
    time.sleep(RUN_S)
    writers.end()
    assert violations(writers.asked(), asyncio.run(final(writers.data)))
