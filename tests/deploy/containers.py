"""Containers as local processes: what Compose files and manifests say, with addresses on loopback.

Nothing is corrected on the way. A name must be that of a service, a port one that its container
listens on, a path below a mounted volume, a secret one that was made: else the stand-in fails as the
container would.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from support.certificates import Authority
from support.discretion import MARKER
from support.programs import Program, Programs, free_port

from deltadatabase.errors import Unavailable
from deltadatabase.rpc.health import check_health

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
ENTRYPOINT: Final = DEPLOY / "docker" / "entrypoint.sh"
DOCKERFILE: Final = DEPLOY / "docker" / "Dockerfile"
LISTENERS: Final = ("-rest-addr", "-grpc-addr", "-metrics-addr")
POD_IP: Final = "pod-ip.invalid"
NOWHERE: Final = "127.0.0.1:1"
"""Where nobody listens: what a wrong name or port leads to."""
_ADDRESS: Final = re.compile(r"(?P<host>[A-Za-z0-9.-]*):(?P<port>[0-9]+)")


@dataclass(frozen=True, kw_only=True)
class Container:
    """One container as a file describes it.

    Attributes:
        service: the name that others know it by.
        instance: tells containers of one service apart; the host's name.
        arguments: for the image's entry point.
        environ: variables, secrets filled in.
        mounts: path in the container to name of the volume.
        names: ports by name.
    """

    service: str
    instance: str
    arguments: Sequence[str]
    environ: Mapping[str, str]
    mounts: Mapping[str, str]
    names: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Host:
    """Runs containers as processes and maps their addresses and paths.

    Attributes:
        programs: starts the processes.
        folder: holds volumes.
        services: ports of a name that lead to a container: (service, port) to the container's port.
        elsewhere: addresses of what runs outside, such as the store: (name, port) to ``host:port``.
    """

    programs: Programs
    folder: Path
    services: Mapping[tuple[str, int], int]
    elsewhere: dict[tuple[str, int], str] = field(default_factory=dict)
    _ports: dict[tuple[str, int], int] = field(default_factory=dict)
    _first: dict[str, str] = field(default_factory=dict)
    running: dict[str, Program] = field(default_factory=dict)

    def start(self, container: Container) -> Program:
        """Start a container's process through the image's entry point."""
        program, *arguments = container.arguments
        for name in ("-rest-addr", "-grpc-addr"):
            needed = program != "deltadb" or name == "-rest-addr"
            if needed and not (program == "proc-worker" and name == "-rest-addr"):
                assert any(argument.startswith(f"{name}=") for argument in arguments), f"{program}: no {name}"
        self._first.setdefault(container.service, container.instance)
        mapped = [self._flag(container, argument) for argument in arguments]
        running = self.programs.start(program, *mapped, environ=self.environ(container))
        self.running[container.instance] = running
        return running

    def environ(self, container: Container) -> dict[str, str]:
        """The variables of a process in a container: the image's, then its own."""
        given = {**image_environ(), **container.environ}
        mapped = {name: self._value(container, value) for name, value in given.items()}
        # In the container this default of `deltadb health` is its own REST listener.
        mapped.setdefault("DELTADB_URL", f"http://127.0.0.1:{self.port(container, 8080)}")
        # A listener on all interfaces, which loopback stands for here, is never in dev mode.
        mapped.setdefault("DELTADB_DEV", "false")
        return {**mapped, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def execute(self, container: Container, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command inside a container."""
        return subprocess.run(
            [self._value(container, argument) for argument in command],
            cwd=self.folder,
            env=self.environ(container) | {"HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def port(self, container: Container, port: int) -> int:
        """The loopback port that stands for a port of this container."""
        return self._port(container.instance, port)

    def published(self, service: str, port: int) -> str:
        """Where a port of a service is reached from outside; the file must say that it is."""
        inside = self.services.get((service, port))
        assert inside is not None, f"nobody answers at {service}:{port}"
        return f"127.0.0.1:{self._port(self._first[service], inside)}"

    def listens(self, instance: str) -> bool:
        """Whether anybody answers on a port of this container. Cheaper than to ask for its health."""
        ports = [port for (owner, _), port in self._ports.items() if owner == instance]
        for port in ports:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    return True
        return False

    # -- mapping -----------------------------------------------------------------------

    def _port(self, instance: str, port: int) -> int:
        return self._ports.setdefault((instance, port), free_port())

    def _flag(self, container: Container, argument: str) -> str:
        name, equals, value = argument.partition("=")
        if name in LISTENERS and equals:
            host, _, port = value.rpartition(":")
            # Others reach a listener on all interfaces only.
            reachable = host in ("", "0.0.0.0")
            return f"{name}=127.0.0.1:{self.port(container, int(port)) if reachable else free_port()}"
        return name + equals + self._value(container, value) if equals else self._value(container, argument)

    def _value(self, container: Container, text: str) -> str:
        if text.startswith("/") and not text.startswith(str(ROOT)):
            return str(self.path(container, text))
        return _ADDRESS.sub(lambda found: self._address(container, found), text)

    def _address(self, container: Container, found: re.Match[str]) -> str:
        host, port = found["host"], int(found["port"])
        if host in (POD_IP, "127.0.0.1", "localhost"):
            return f"127.0.0.1:{self.port(container, port)}"
        if (host, port) in self.elsewhere:
            return self.elsewhere[host, port]
        if (host, port) in self.services and host in self._first:
            return f"127.0.0.1:{self._port(self._first[host], self.services[host, port])}"
        return found[0] if re.fullmatch(r"[0-9.]*", host) else NOWHERE

    def path(self, container: Container, path: str) -> Path:
        """Where a container's path lies. Outside every volume nothing may be written."""
        if path.startswith("/usr/local/bin/deltadb-"):
            return DEPLOY / "docker" / f"{path.removeprefix('/usr/local/bin/deltadb-')}.sh"
        for mount, volume in container.mounts.items():
            if path == mount or path.startswith(f"{mount}/"):
                inside = self.folder / "volumes" / volume
                inside.mkdir(parents=True, exist_ok=True)
                return inside / path.removeprefix(mount).lstrip("/")
        return self.read_only / path.lstrip("/")

    def check_read_only(self) -> None:
        """Fail if a container wrote where no volume is mounted."""
        written = [str(path.relative_to(self.read_only)) for path in self.read_only.rglob("*")]
        assert not written, f"the root file system is read-only: {written}"

    @property
    def read_only(self) -> Path:
        """The root file system of every container."""
        return self.folder / "read-only"


def image_environ() -> dict[str, str]:
    """The variables of the image that name paths."""
    text = DOCKERFILE.read_text()
    return dict(re.findall(r"^\s*(?:ENV )?(DELTADB_[A-Z_]+)=(\S+?)(?: \\)?$", text, re.MULTILINE))


# -- probes ----------------------------------------------------------------------------


def passes(
    probe: Callable[[], bool], timeout_s: float = 30.0, *, ended: Callable[[], bool] = lambda: False
) -> bool:
    """Repeat a probe until it succeeds, as an orchestrator does, or its program has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and not ended():
        if probe():
            return True
        time.sleep(0.1)
    return False


def http_probe(url: str) -> bool:
    """Whether an HTTP probe succeeds; like the kubelet it takes any certificate."""
    try:
        return httpx.get(url, timeout=3.0, verify=False).status_code in range(200, 400)
    except httpx.TransportError:
        return False


def grpc_probe(port: int, service: str) -> bool:
    """Whether a gRPC probe succeeds."""
    try:
        return check_health(f"127.0.0.1:{port}", service, timeout_s=3.0)
    except Unavailable:
        return False


def store_and_read(url: str, admin_key: str, *, verify: Path | bool = False) -> None:
    """Put a document and get it back, byte for byte."""
    document = f'{{"text":  "{MARKER}"}}'
    with httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {admin_key}"}, verify=verify, timeout=20.0
    ) as client:
        assert client.put("/entity/notes", content=f'{{"first": {document}}}').json()["status"] == "ok"
        read = client.get("/entity/notes", params={"key": "first"})
        assert (read.status_code, read.text) == (200, document)


def certificates(folder: Path) -> None:
    """Write what a secret of cert-manager's holds, for the DNS name main-worker."""
    authority = Authority()
    pair = authority.issue(["main-worker"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (("tls.crt", pair.cert), ("tls.key", pair.key), ("ca.crt", authority.cert)):
        (folder / name).write_bytes(data)
