"""``deltadb serve`` as a process that may be killed and come back at the same place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.programs import Program, Programs, free_port, programs, wait_until_ready


@dataclass
class Served:
    """One server with its directory, on a port that stays."""

    programs: Programs
    flags: tuple[str, ...]
    port: int = field(default_factory=free_port)
    _program: Program | None = None

    @property
    def url(self) -> str:
        """The REST API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def program(self) -> Program:
        """The process."""
        assert self._program is not None
        return self._program

    def start(self, *, wait: bool = True) -> Served:
        """Start it, and wait until it serves data."""
        self._program = self.programs.start(
            "deltadb", "serve", f"-rest-addr=127.0.0.1:{self.port}", *self.flags
        )
        if wait:
            wait_until_ready(self.url, self._program)
        return self

    def restart(self) -> None:
        """Kill it as a crash does, and start it again."""
        self.program.kill()
        self.start()


@contextlib.contextmanager
def served(folder: Path, *flags: str) -> Iterator[Served]:
    """A running server; its entities are in ``folder``."""
    folder.mkdir(exist_ok=True)
    with programs(folder) as started:
        yield Served(started, flags or (f"-data={folder / 'db'}",)).start()
