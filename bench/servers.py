"""The programs under load: started as a user starts them, measured through ``/proc`` (Linux)."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.load import Request

START_TIMEOUT_S = 60.0
POLL_S = 0.005
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """One running program.

    Attributes:
        name: shown in reports.
        pid: its process.
        port: of its HTTP listener; 0 without one.
    """

    name: str
    pid: int
    port: int

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

    def ask(self, *requests: Request) -> Iterator[bytes]:
        """Send requests, one after the other, and give the body of each answer.

        Raises:
            RuntimeError: an answer is not 200.
        """
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            for method, path, body in requests:
                connection.request(method, path, body or None)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{self.name}: {method} answered {answer.status}: {content[:300]!r}")
                yield content


@contextlib.contextmanager
def bare(folder: Path, document_bytes: int) -> Iterator[Server]:
    """The baseline."""
    port = free_port()
    command = ["-m", "bench.bare", str(port), str(document_bytes)]
    with _running("bare ASGI", folder, command, port, ready="/") as server:
        yield server


@contextlib.contextmanager
def embedded(folder: Path, *flags: str, source: Path | None = None) -> Iterator[Server]:
    """``deltadb serve``, with more flags, or of another source tree."""
    port = free_port()
    command = ["-m", "deltadatabase.cli", "deltadb", "serve", f"-rest-addr=127.0.0.1:{port}"]
    command += [f"-data={folder / 'db'}", *flags]
    with _running("deltadb serve", folder, command, port, source=source) as server:
        yield server


@contextlib.contextmanager
def cluster(folder: Path, *flags: str) -> Iterator[tuple[Server, Server]]:
    """A main worker, with more flags, and one proc worker."""
    rest, control = free_port(), free_port()
    shared = f"-shared-fs={folder / 'db'}"
    main = ["-m", "deltadatabase.cli", "main-worker", "-dev", f"-rest-addr=127.0.0.1:{rest}"]
    proc = ["-m", "deltadatabase.cli", "proc-worker", "-worker-id=proc-1", f"-main-addr=127.0.0.1:{control}"]
    with (
        _running(
            "main-worker",
            folder,
            [*main, f"-grpc-addr=127.0.0.1:{control}", shared, *flags],
            rest,
            ready="/livez",
        ) as router,
        _running("proc-worker", folder, [*proc, shared], 0) as worker,
    ):
        _wait_for(router, "/readyz")
        yield router, worker


def start_time_s(folder: Path) -> float:
    """Seconds from starting ``deltadb serve`` on an empty directory until ``/readyz`` answers 200."""
    began_s = time.perf_counter()
    with embedded(folder):
        return time.perf_counter() - began_s


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


@contextlib.contextmanager
def _running(
    name: str,
    folder: Path,
    arguments: list[str],
    port: int,
    ready: str = "/readyz",
    source: Path | None = None,
) -> Iterator[Server]:
    """Start a program in the environment of this one, less the variables that are settings of it."""
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).parents[1]
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    if source is not None:
        environ["PYTHONPATH"] = str(source)
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=root, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    server = Server(name, process.pid, port)
    try:
        if port:
            _wait_for(server, ready)
        yield server
    except Exception:
        print(f"--- {name} wrote:\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(15.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(server: Server, path: str) -> None:
    deadline_s = time.perf_counter() + START_TIMEOUT_S
    while True:
        try:
            list(server.ask(Request("GET", path)))
        except (OSError, http.client.HTTPException, RuntimeError):
            if time.perf_counter() > deadline_s:
                raise
            time.sleep(POLL_S)
        else:
            return
