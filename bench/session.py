"""One run of the benchmark: its settings, its tools, and what each part needs of both."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import peers, stores
from bench.load import Generator, Request
from bench.programs import Server
from bench.rounds import Row, Workload, measured
from bench.setup import Tools

META_LAG_S = 3.0
"""A meta file follows its write within two seconds or so."""
SMALLEST_CACHE = "-cache-bytes=1"
"""So small that each read goes to the store."""


@dataclass
class Session:
    """What a part of the benchmark is given.

    Attributes:
        folder: on the disk under test, for everything that is made.
        generator: of the load.
        tools: programs that are there.
        rounds, seconds, warm_up: how often and how long each workload runs.
        connections: HTTP connections, each with one request under way.
        entities: for the part that has many of them.
        requests: for the part that looks for leaks.
        s3: another endpoint that was asked for.
        with_s3: SeaweedFS may be started.
        missing: what the report will lack, and why.
    """

    folder: Path
    generator: Generator
    tools: Tools
    rounds: int = 5
    seconds: float = 2.0
    warm_up: float = 1.0
    connections: int = 64
    entities: int = 1_000_000
    requests: int = 1_000_000
    s3: stores.S3 | None = None
    with_s3: bool = True
    missing: list[str] = field(default_factory=list)
    _folders: Iterator[int] = field(default_factory=itertools.count)

    def place(self, name: str) -> Path:
        """A folder that nothing else has."""
        return self.folder / f"{next(self._folders)}-{name}"

    def rows(
        self, todo: Sequence[Workload], *, share: float = 1.0, rounds: int = 0, seconds: float = 0.0
    ) -> list[Row]:
        """Measure, each for a share of the usual time."""
        return measured(
            todo,
            rounds=rounds or self.rounds,
            seconds=seconds or self.seconds * share,
            warm_up=self.warm_up,
            say=say,
        )

    def http(
        self,
        what: str,
        servers: Sequence[Server],
        requests: Sequence[Request],
        *,
        who: str = "",
        against: str | None = None,
        connections: int = 0,
        rate: int = 0,
        each: int = 1,
        beside: Sequence[Server] = (),
        meta_files: bool = False,
    ) -> Workload:
        """Requests to the first of some servers; those ``beside`` take part in the work.

        With ``meta_files`` they are writes that are followed by such files.
        """
        run = functools.partial(
            self.generator.run,
            servers[0].port,
            requests,
            connections=connections or self.connections,
            rate=rate,
        )
        return Workload(
            what,
            who or servers[0].name,
            lambda seconds: run(seconds=seconds),
            against,
            (*servers, *beside),
            each,
            META_LAG_S if meta_files else 0.0,
        )

    def lacks(self, what: str) -> None:
        """Note that something could not be measured."""
        if what not in self.missing:
            self.missing.append(what)

    @contextmanager
    def peers(self, *, kinto: bool = True) -> Iterator[tuple[Server | None, Server | None]]:
        """etcd and Kinto, running, with all documents in them; None for one that isn't installed."""
        with ExitStack() as stack:
            found: list[Server | None] = [None, None]
            if self.tools.etcd is None:
                self.lacks(f"etcd: not measured ({self.tools.why('etcd')})")
            else:
                found[0] = stack.enter_context(peers.etcd(self.place("etcd"), self.tools.etcd))
            if kinto and self.tools.kinto is None:
                self.lacks(f"Kinto: not measured ({self.tools.why('kinto')})")
            elif kinto and self.tools.kinto is not None:
                found[1] = stack.enter_context(peers.kinto(self.place("kinto"), self.tools.kinto))
            yield found[0], found[1]


def say(line: str) -> None:
    """Tell how it goes."""
    print(line, file=sys.stderr, flush=True)
