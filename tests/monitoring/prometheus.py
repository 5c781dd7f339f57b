"""A real Prometheus on loopback, and ``promtool``. Both come from Debian's package ``prometheus``."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from support.ports import free_port

INSTALL = "apt-get install --no-install-recommends prometheus"


def program(name: str) -> str:
    """Path of ``prometheus`` or ``promtool``. Without it a test is skipped; where ``CI`` is set, it fails."""
    found = shutil.which(name)
    if found is None:
        missing = f"no {name} program: {INSTALL}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``promtool``."""
    return subprocess.run(
        [program("promtool"), *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str

    def api(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API; its error is one of the test."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """Series that a query gives now, those without a number left out."""
        return [
            series
            for series in self.api("query", query=expression)["result"]
            if series["value"][1] not in ("NaN", "+Inf")
        ]

    def wait(self, expression: str, timeout_s: float = 30.0) -> None:
        """Wait until a query gives something."""
        deadline = time.monotonic() + timeout_s
        while not self.query(expression):
            assert time.monotonic() < deadline, f"no data in {timeout_s} s: {expression}"
            time.sleep(0.2)


@contextlib.contextmanager
def running(folder: Path, configuration: dict[str, Any]) -> Iterator[Prometheus]:
    """Run one with a configuration; its data lie in ``folder``."""
    folder.mkdir(exist_ok=True)
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[
                -2000:
            ]
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/-/ready").status_code == 200:
                    break
            time.sleep(0.1)
        yield Prometheus(url)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
