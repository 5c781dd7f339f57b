"""The programs that are measured, as a user starts them, and the floor of HTTP beside them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from bench.load import Request
from bench.programs import Server as Server
from bench.programs import free_port as free_port
from bench.programs import running, wait_for
from bench.stores import S3


@contextlib.contextmanager
def bare(folder: Path, document_bytes: int) -> Iterator[Server]:
    """The baseline: an ASGI application that does nothing, on the same HTTP server."""
    port = free_port()
    command = [sys.executable, "-m", "bench.bare", str(port), str(document_bytes)]
    with running("bare ASGI", folder, command, port, ready="/") as server:
        yield server


@contextlib.contextmanager
def relay(folder: Path, document_bytes: int) -> Iterator[tuple[Server, Server]]:
    """The baseline of a hop: the same application, which fetches each answer from a second process."""
    port, echo_port = free_port(), free_port()
    command = [sys.executable, "-m", "bench.relay"]
    size = str(document_bytes)
    with running("echo", folder / "echo", [*command, str(echo_port), size], 0) as echo:
        near = [*command, str(port), str(echo_port), size]
        with running("bare relay", folder, near, port, ready="/") as server:
            yield server, echo


@contextlib.contextmanager
def gateway(folder: Path, document_bytes: int, store: S3) -> Iterator[Server]:
    """The baseline of a store behind HTTP: the same application with one obstore call for each answer."""
    port = free_port()
    settings = json.dumps(asdict(store) | {"servers": ()})
    command = [sys.executable, "-m", "bench.gateway", str(port), str(document_bytes), settings]
    with running("bare gateway", folder, command, port, ready="/") as server:
        yield server


@contextlib.contextmanager
def embedded(
    folder: Path,
    *flags: str,
    source: Path | None = None,
    name: str = "deltadb serve",
    metrics: bool = True,
) -> Iterator[Server]:
    """``deltadb serve`` on a directory, with more flags, or of another source tree."""
    port, metrics_port = free_port(), free_port() if metrics else 0
    command = [sys.executable, "-m", "deltadatabase.cli", "deltadb", "serve", f"-rest-addr=127.0.0.1:{port}"]
    command += [f"-data={folder / 'db'}", *flags]
    if metrics:
        command.append(f"-metrics-addr=127.0.0.1:{metrics_port}")
    environ = {"PYTHONPATH": str(source)} if source is not None else {}
    with running(name, folder, command, port, metrics_port=metrics_port, environ=environ) as server:
        yield server


@contextlib.contextmanager
def cluster(
    folder: Path, *flags: str, workers: int = 1, worker_flags: tuple[str, ...] = ()
) -> Iterator[tuple[Server, ...]]:
    """A main worker, with more flags, and proc workers with theirs; on a directory unless told else."""
    rest, control = free_port(), free_port()
    program = [sys.executable, "-m", "deltadatabase.cli"]
    shared = f"-shared-fs={folder / 'db'}"
    main = [*program, "main-worker", "-dev", f"-rest-addr=127.0.0.1:{rest}"]
    main += [f"-grpc-addr=127.0.0.1:{control}", shared, *flags]
    with contextlib.ExitStack() as stack:
        router = stack.enter_context(running("main-worker", folder, main, rest, ready="/livez"))
        members = []
        for number in range(1, workers + 1):
            metrics, name = free_port(), f"proc-{number}"
            proc = [*program, "proc-worker", f"-worker-id={name}", f"-main-addr=127.0.0.1:{control}"]
            proc += [f"-metrics-addr=127.0.0.1:{metrics}", shared, *worker_flags]
            members.append(stack.enter_context(running(name, folder, proc, 0, metrics_port=metrics)))
        wait_for(router, lambda server: _joined(server, workers))
        yield router, *members


def start_time_s(folder: Path) -> float:
    """Seconds from starting ``deltadb serve`` on an empty directory until ``/readyz`` answers 200."""
    began_s = time.perf_counter()
    with embedded(folder):
        return time.perf_counter() - began_s


def use_processors(count: int) -> None:
    """Keep this process and all that it starts on so many: results of different machines stay comparable."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def _joined(server: Server, workers: int) -> None:
    _ready, members = server.ask(Request("GET", "/readyz"), Request("GET", "/admin/workers"))
    available = [each for each in json.loads(members) if each["status"] == "Available"]
    if len(available) < workers:
        raise RuntimeError("not all workers have joined")
