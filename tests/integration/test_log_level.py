"""How much a running program logs is changed over REST and by a signal."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
from support.programs import free_port, programs, wait_for, wait_until_ready

pytestmark = pytest.mark.integration


def test_a_level_changes_while_programs_run(tmp_path: Path) -> None:
    rest, control = free_port(), free_port()
    url = f"http://127.0.0.1:{rest}"
    shared = (f"-shared-fs={tmp_path / 'db'}", "-log-level=error")
    with programs(tmp_path) as started:
        main = started.start(
            "main-worker", "-dev", f"-rest-addr=127.0.0.1:{rest}", f"-grpc-addr=127.0.0.1:{control}", *shared
        )
        worker = started.start("proc-worker", f"-main-addr=127.0.0.1:{control}", "-worker-id=one", *shared)
        wait_until_ready(url, main)
        assert "worker joined" not in main.output
        assert httpx.put(f"{url}/admin/log-level", json={"level": "info"}).json() == {"level": "info"}
        assert httpx.get(f"{url}/admin/log-level").json() == {"level": "info"}
        worker.signal(signal.SIGUSR1)
        wait_for(lambda: "log_level=debug" in worker.output, "the worker says that it logs more")
        worker.signal(signal.SIGTERM)
        wait_for(lambda: "worker left" in main.output, "the main worker logs what it did not before")
        assert worker.wait() == 0
        assert "worker drains" in worker.output
