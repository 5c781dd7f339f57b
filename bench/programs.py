"""Running programs: started and ended here, measured through ``/proc`` (Linux)."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Request

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.005
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STORE_REQUESTS = re.compile(r'^deltadatabase_store_requests_total\{kind="(\w+)",.*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """One running program.

    Attributes:
        name: shown in reports.
        pid: its process.
        port: of its HTTP listener; 0 without one.
        metrics_port: of its metrics; 0 without them.
        headers: of every request to it.
    """

    name: str
    pid: int
    port: int
    metrics_port: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    def rss_mib(self) -> float:
        """Resident memory, pages shared with other processes included."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError(f"{self.name} has ended")

    def cpu_s(self) -> float:
        """Processor time used so far (proc(5): utime and stime)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def store_requests(self) -> Counter[str]:
        """Requests to its store so far, by kind; empty where it has no metrics.

        Settling a read is left out: it is none on S3, and a sync of a folder in a directory.
        """
        found: Counter[str] = Counter()
        if self.metrics_port:
            metrics = Server(self.name, self.pid, self.metrics_port)
            (text,) = metrics.ask(Request("GET", "/metrics"))
            for kind, count in _STORE_REQUESTS.findall(text.decode()):
                if kind != "settle":
                    found[kind] += int(float(count))
        return found

    def ask(self, *requests: Request) -> Iterator[bytes]:
        """Send requests, one after the other, and give the body of each answer.

        Raises:
            RuntimeError: an answer is not 2xx.
        """
        for _, content in self.answers(*requests):
            yield content

    def answers(self, *requests: Request) -> Iterator[tuple[Mapping[str, str], bytes]]:
        """As ``ask``, with the headers, whose names are in lower case."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            for method, path, body, kind in requests:
                headers = {**self.headers, **({"content-type": kind} if kind else {})}
                connection.request(method, path, body or None, headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status // 100 != 2:
                    raise RuntimeError(f"{self.name}: {method} answered {answer.status}: {content[:300]!r}")
                yield {name.lower(): value for name, value in answer.headers.items()}, content


@contextlib.contextmanager
def running(
    name: str,
    folder: Path,
    command: Sequence[str | Path],
    port: int,
    *,
    ready: str | Callable[[Server], object] = "/readyz",
    metrics_port: int = 0,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start a program in the environment of this one, less the variables that are settings of it.

    ``ready`` is a path that answers 2xx then, or a check that raises until then; without a port nobody waits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env={**kept, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(name, process.pid, port, metrics_port)
    started = not port
    try:
        if port:
            wait_for(server, ready, process)
        started = True
        yield server
    except Exception:
        # Otherwise it is not this one that failed.
        if not started or process.poll() is not None:
            print(f"--- {name} wrote:\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(
    server: Server,
    ready: str | Callable[[Server], object],
    process: subprocess.Popen[bytes] | None = None,
) -> None:
    """Return when a server is ready.

    Raises:
        RuntimeError: it ended.
    """
    deadline_s = time.perf_counter() + START_TIMEOUT_S
    while True:
        try:
            if callable(ready):
                ready(server)
            else:
                list(server.ask(Request("GET", ready)))
        except (OSError, http.client.HTTPException, RuntimeError):
            if process is not None and process.poll() is not None:
                raise RuntimeError(f"{server.name} ended with {process.returncode}") from None
            if time.perf_counter() > deadline_s:
                raise
            time.sleep(POLL_S)
        else:
            return


def free_port() -> int:
    """A TCP port on which nobody listens now.

    It is below those that the system gives to outgoing connections, and below those of the tests
    (``tests/support/ports.py``), so that neither takes it before the server does.
    """
    while True:
        port = random.randrange(12_000, 20_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
