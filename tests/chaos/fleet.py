"""The processes under test and their store."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from integration.cluster import Cluster
from support.programs import Program, Programs, installed
from support.weed import ACCESS_KEY, SECRET_KEY, S3Server, running_weed

from chaos.clients import Broken, Connection, Refused
from chaos.proxy import Proxy

READY_TIMEOUT_S: Final = 60.0
EXITS_MAX: Final = 8
DISK_MIB: Final = 48
REMOUNT_TIMEOUT_S: Final = 2.0


class Impossible(Exception):
    """A fault cannot be made on this machine now; the run goes on without it."""


class NotReady(Exception):
    """The system did not come back in time."""


def commands(plant: str) -> Mapping[str, Sequence[str]]:
    """How the programs are started: as installed, or the workers with a planted bug."""
    worker = [sys.executable, "-m", "chaos.planted", plant] if plant else []
    return {
        "main-worker": (str(installed("main-worker")),),
        "proc-worker": (*worker, "proc-worker") if plant else (str(installed("proc-worker")),),
    }


# -- stores ----------------------------------------------------------------------------


@dataclass
class Bucket:
    """A bucket of a SeaweedFS, behind the proxy."""

    server: S3Server
    proxy: Proxy

    @property
    def flags(self) -> tuple[str, ...]:
        return (
            f"-s3-endpoint=http://127.0.0.1:{self.proxy.port}",
            "-s3-bucket=delta-chaos",
            f"-s3-access-key={ACCESS_KEY}",
            f"-s3-secret-key={SECRET_KEY}",
        )

    async def restart(self, seconds: float, *, kill: bool) -> None:
        """End the server and start it again on the same data."""
        await asyncio.to_thread(self.server.stop, kill=kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.server.start)


@dataclass
class Directory:
    """A directory; ``disk`` is where the small disk of its own is mounted that it lies on."""

    root: Path
    disk: Path | None

    @property
    def flags(self) -> tuple[str, ...]:
        return (f"-shared-fs={self.root}",)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Leave no room inside."""
        ballast = self._disk() / "ballast"
        try:
            _fill(ballast)
            yield
        finally:
            ballast.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def read_only(self) -> AsyncIterator[None]:
        """Refuse writes inside."""
        disk = self._disk()
        deadline = time.monotonic() + REMOUNT_TIMEOUT_S
        # Refused while a file is open for writing, as it is within each commit.
        while not _mount("-o", "remount,ro", str(disk)):
            if time.monotonic() > deadline:
                raise Impossible("the disk was never idle")
            await asyncio.sleep(0.003)
        try:
            yield
        finally:
            while not _mount("-o", "remount,rw", str(disk)):
                await asyncio.sleep(0.05)

    def _disk(self) -> Path:
        if self.disk is None:
            raise Impossible("mounting is not permitted here")
        return self.disk


def _fill(file: Path) -> None:
    """Write until there is no room left."""
    with file.open("wb", buffering=0) as stream:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise


def _mount(*arguments: str) -> bool:
    done = subprocess.run(["mount", *arguments], capture_output=True, check=False)
    return done.returncode == 0


@contextlib.contextmanager
def directory(folder: Path) -> Iterator[Directory]:
    """A directory, on a small disk in memory where mounting is permitted."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and _mount("-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(disk))
    try:
        yield Directory(disk / "db", disk if mounted else None)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(disk)], capture_output=True, check=False)


@contextlib.asynccontextmanager
async def bucket(folder: Path, seed: int) -> AsyncIterator[Bucket]:
    """A bucket on a SeaweedFS of its own."""
    (folder / "weed").mkdir()
    with contextlib.ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, running_weed(folder / "weed"))
        async with Proxy(server.ports["s3"], seed).running() as proxy:
            yield Bucket(server, proxy)


# -- processes -------------------------------------------------------------------------


@dataclass
class Fleet:
    """A main worker and proc workers that come and go.

    Attributes:
        cluster: the processes.
        exits: how processes ended that nobody had ended, or that should have ended with 0.
    """

    cluster: Cluster
    exits: list[str] = field(default_factory=list)
    _names: int = 0

    @classmethod
    def on(cls, programs: Programs, store: Bucket | Directory) -> Fleet:
        return cls(Cluster(programs, store.flags, programs.folder / "state"))

    @property
    def port(self) -> int:
        return self.cluster.rest_port

    @property
    def workers(self) -> list[str]:
        """The ids of all workers that should run."""
        return sorted(self.cluster.workers)

    async def start(self, workers: int) -> None:
        """Start everything. Raises NotReady."""
        self.cluster.start_main()
        for _ in range(workers):
            self.start_worker()
        await self.ready()

    def start_worker(self, worker_id: str = "") -> str:
        """Start a worker; its id."""
        if not worker_id:
            self._names += 1
            worker_id = f"w{self._names}"
        self.cluster.start_worker(worker_id)
        return worker_id

    def kill_worker(self, worker_id: str) -> None:
        self.cluster.workers.pop(worker_id).kill()

    async def stop_worker(self, worker_id: str) -> None:
        """SIGTERM; wait until it has gone."""
        await self._stop(self.cluster.workers.pop(worker_id))

    async def restart_main(self, seconds: float) -> None:
        """Kill -9; start it again on the same state directory."""
        self.cluster.main.kill()
        await asyncio.sleep(seconds)
        self.cluster.start_main()

    @contextlib.contextmanager
    def stopped(self, program: Program) -> Iterator[None]:
        """SIGSTOP it inside."""
        program.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            program.signal(signal.SIGCONT)

    def program(self, worker_id: str) -> Program:
        return self.cluster.workers[worker_id]

    def look_after(self) -> None:
        """Note which processes have ended by themselves, and start others. Raises NotReady."""
        if (code := self.cluster.main.process.poll()) is not None:
            self.exits.append(f"main-worker: exit code {code}")
            self.cluster.start_main()
        for worker_id in self.workers:
            if (code := self.program(worker_id).process.poll()) is not None:
                log = self.cluster.workers.pop(worker_id).log
                self.exits.append(f"proc-worker {worker_id}: exit code {code}, {log.name}")
                if len(self.exits) > EXITS_MAX:
                    raise NotReady(f"workers keep ending by themselves, the last one with code {code}")
                self.start_worker()

    async def ready(self) -> None:
        """Wait until data is served through exactly the workers that should run. Raises NotReady."""
        connection = Connection(self.port)
        deadline = time.monotonic() + READY_TIMEOUT_S
        said = "no answer"
        while time.monotonic() < deadline:
            self.look_after()
            with contextlib.suppress(Refused, Broken):
                answer = await connection.ask("GET", "/readyz", timeout_s=2.0)
                said = answer.body.decode()
                if answer.status == 200 and f'"workers={len(self.workers)}"' in said:
                    connection.close()
                    return
            await asyncio.sleep(0.05)
        connection.close()
        raise NotReady(f"not ready with {len(self.workers)} workers in {READY_TIMEOUT_S:.0f} s: {said}")

    async def stop(self) -> None:
        """End everything with SIGTERM."""
        await asyncio.gather(*(self.stop_worker(worker_id) for worker_id in self.workers))
        await self._stop(self.cluster.main)

    async def _stop(self, program: Program) -> None:
        try:
            code = await asyncio.to_thread(program.stop)
        except AssertionError:
            self.exits.append(f"{program.name}: did not end on SIGTERM, {program.log.name}")
            return
        if code:
            self.exits.append(f"{program.name}: exit code {code} on SIGTERM, {program.log.name}")
