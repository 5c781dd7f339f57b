"""Compose files as Docker Compose itself reads them, run as local processes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import compose
import yaml
from support.programs import Program, Programs, programs
from support.weed import S3Server

from deploy.containers import DEPLOY, ENTRYPOINT, Container, Host, passes, store_and_read

FOLDER: Final = DEPLOY / "docker-compose"
OURS: Final = ("main-worker", "proc-worker", "deltadb")
HEALTH_S: Final = 20.0
PATIENCE_S: dict[str, float] = {}
"""Services that a test expects to fail are given less time than HEALTH_S."""


def read(path: Path, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What Docker Compose makes of a file, with only these variables exported. Raises ValueError."""
    done = subprocess.run(
        [
            str(Path(compose.__file__).parent / "docker-compose"),
            *("-f", str(path), "config", "--format", "json"),
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(path.parent), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        raise ValueError(done.stderr)
    model = json.loads(done.stdout)
    assert isinstance(model, dict)
    return model


def with_service(path: Path, name: str, block: str, target: Path) -> Path:
    """Write a copy of a file in which the service ``name`` is exactly ``block``."""
    model = yaml.safe_load(path.read_text())
    model["services"][name] = yaml.safe_load(block)[name]
    target.write_text(yaml.safe_dump(model, sort_keys=False))
    return target


def commented_blocks(path: Path, name: str) -> list[str]:
    """The services ``name`` that stand in a file as comments, ready to be swapped in."""
    blocks: list[str] = []
    within = False
    for line in path.read_text().splitlines():
        within = line == f"#  {name}:" or (within and line.startswith("#   "))
        if within and line == f"#  {name}:":
            blocks.append("")
        if within:
            blocks[-1] += line.removeprefix("#  ") + "\n"
    return blocks


@dataclass
class Composition:
    """The services of one file, running.

    Attributes:
        model: the file as Docker Compose reads it.
        programs: starts the processes.
        stores: stands for the service ``rustfs``: the port that it serves inside, and the server.
    """

    model: dict[str, Any]
    programs: Programs
    stores: tuple[int, S3Server] | None = None
    started: dict[str, list[Container]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        services = self.model["services"]
        ports = {
            (name, port): port
            for name, service in services.items()
            if self._is_ours(service)
            for port in (8080, 50051, 50052, 9090, 9091)
        }
        self.programs.commands = {name: ["sh", str(ENTRYPOINT), name] for name in OURS}
        self.host = Host(self.programs, self.programs.folder, ports)
        if self.stores is not None and "rustfs" in services:
            port, server = self.stores
            self.host.elsewhere["rustfs", port] = server.endpoint.removeprefix("http://")

    def up(self) -> None:
        """Start every service of ours in the order that the file demands; fail if one is not healthy."""
        waiting = {name: each for name, each in self.model["services"].items() if self._is_ours(each)}
        while waiting:
            name, service = next(
                (name, service)
                for name, service in waiting.items()
                if not set(service.get("depends_on") or {}) & set(waiting)
            )
            for needed, how in (service.get("depends_on") or {}).items():
                assert needed in self.model["services"], needed
                if how["condition"] == "service_healthy":
                    self.healthy(needed)
            del waiting[name]
            count = service.get("scale") or (service.get("deploy") or {}).get("replicas") or 1
            self.started[name] = [self._container(name, service, number) for number in range(count)]
            for container in self.started[name]:
                self.host.start(container)
        for name in self.started:
            self.healthy(name)
        self.host.check_read_only()

    def healthy(self, name: str) -> None:
        """Wait for the health checks of a service's containers."""
        kind, *command = self.model["services"][name]["healthcheck"]["test"]
        assert kind == "CMD", "an image without a shell could not run it"
        for container in self.started[name]:
            program = self.host.running[container.instance]
            patience_s = PATIENCE_S.get(name, HEALTH_S)
            ended = partial(_has_ended, program)
            passes(partial(self.host.listens, container.instance), patience_s, ended=ended)
            well = passes(partial(self._is_well, container, command), patience_s, ended=ended)
            assert well, f"{name} is not healthy: {program.output[-2000:]}"

    def admin_key(self, service: str) -> str:
        """Print the admin key by the command that the file's head gives."""
        done = self.host.execute(self.started[service][0], ["deltadb", "admin-key"])
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def serves(self, service: str) -> None:
        """Store and read a document through the published port 8080."""
        published = {str(port["published"]): port for port in self.model["services"][service]["ports"]}
        inside = published["8080"]["target"]
        store_and_read(f"http://{self.host.published(service, inside)}", self.admin_key(service))
        self.host.check_read_only()

    def _is_well(self, container: Container, command: Sequence[str]) -> bool:
        return self.host.execute(container, command).returncode == 0

    @staticmethod
    def _is_ours(service: Mapping[str, Any]) -> bool:
        return "deltadatabase" in str(service["image"])

    def _container(self, name: str, service: Mapping[str, Any], number: int) -> Container:
        instance = f"{name}-{number + 1}"
        assert service["read_only"] and "/tmp" in service["tmpfs"]
        mounts = {volume["target"]: volume["source"] for volume in service.get("volumes") or []}
        command = service["command"]
        arguments = shlex.split(command) if isinstance(command, str) else list(command)
        if arguments[0] == "proc-worker" and not any(each.startswith("-worker-id=") for each in arguments):
            # The host's name, which Docker makes unique.
            arguments.append(f"-worker-id={instance}")
        return Container(
            service=name,
            instance=instance,
            arguments=arguments,
            environ={key: value or "" for key, value in (service.get("environment") or {}).items()},
            mounts={**mounts, "/tmp": f"tmp-{instance}"},
        )


def _has_ended(program: Program) -> bool:
    return program.process.poll() is not None


@contextmanager
def running(
    folder: Path, model: dict[str, Any], stores: tuple[int, S3Server] | None = None
) -> Iterator[Composition]:
    """Run the services of a file as long as this is entered."""
    with programs(folder) as started:
        composition = Composition(model, started, stores)
        composition.up()
        yield composition
