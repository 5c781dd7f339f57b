"""The three programs as real processes, for tests and the demo."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from support.discretion import check_logs
from support.ports import free_port as free_port

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


@dataclass
class Program:
    """One running program.

    Attributes:
        name: of the program, for messages.
        process: the process; stop it by ``stop``.
        log: what it wrote on stdout and stderr.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """Everything it has written so far."""
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to end and return its exit code; kill it if it won't."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} did not end on SIGTERM:\n{self.output[-3000:]}") from None

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.kill()
        self.process.wait()

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> int:
        """Wait until it ends by itself; return its exit code."""
        return self.process.wait(timeout_s)


@dataclass
class Programs:
    """Starts programs, and stops whatever of them is left.

    Attributes:
        folder: working directory of the programs; their logs go there, too.
        environ: variables beside a minimal environment.
        commands: how to start a program, where not as ``python -m deltadatabase.cli NAME``.
    """

    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    started: list[Program] = field(default_factory=list)
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def start(self, program: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Program:
        """Start ``deltadb``, ``main-worker`` or ``proc-worker``."""
        log = self.folder / f"{program}-{len(self.started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self._command(program), *arguments],
                cwd=self.folder,
                env=self._environment(environ),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        running = Program(program, process, log)
        self.started.append(running)
        return running

    def run(
        self, program: str, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one to its end."""
        return subprocess.run(
            [*self._command(program), *arguments],
            cwd=self.folder,
            env=self._environment(environ),
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )

    def stop_all(self) -> None:
        """Stop what still runs; what was started last goes first."""
        for program in reversed(self.started):
            if program.process.poll() is None:
                with contextlib.suppress(AssertionError):
                    program.stop()

    def _command(self, program: str) -> Sequence[str]:
        return self.commands.get(program, (sys.executable, "-m", "deltadatabase.cli", program))

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH", "TMPDIR") if name in os.environ
        }
        return kept | dict(self.environ) | dict(more or {})


def installed(program: str) -> Path:
    """The console script of a program, which is installed beside the interpreter."""
    return Path(sys.executable).parent / program


@contextlib.contextmanager
def programs(
    folder: Path,
    environ: Mapping[str, str] | None = None,
    commands: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Programs]:
    """Start programs in a folder; on the way out stop them all.

    What they wrote must hold no secret, no document and no stack trace.
    """
    started = Programs(folder, environ or {}, commands=commands or {})
    try:
        yield started
    finally:
        started.stop_all()
    check_logs(folder, [program.log for program in started.started])


def wait_until_ready(
    url: str, program: Program, *, workers: int = 1, timeout_s: float = START_TIMEOUT_S
) -> None:
    """Wait until the main worker at ``url`` serves data through this many workers."""
    deadline = time.monotonic() + timeout_s
    last = "no answer"
    while time.monotonic() < deadline:
        if program.process.poll() is not None:
            raise AssertionError(f"{program.name} ended early:\n{program.output[-3000:]}")
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.get(f"{url}/readyz", timeout=2.0)
            last = answer.text
            if answer.status_code == 200 and f"workers={workers}" in answer.text:
                return
        time.sleep(0.05)
    raise AssertionError(f"not ready in {timeout_s} s: {last}\n{program.output[-3000:]}")


def wait_for(condition: Callable[[], object], describe: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until ``condition`` returns something true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"did not happen in {timeout_s} s: {describe}")
