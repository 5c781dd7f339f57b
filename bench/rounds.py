"""Workloads that take turns: measured round by round, told as rows of a table.

A slow moment of the machine meets all of them, so that ratios within a round are steadier than rates.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.load import Load
from bench.programs import Server
from bench.stats import ratios, spread

SETTLE_S: Final = 1.0
SETTLE_STEP_S: Final = 0.1
FILLED_S: Final = 3.0
"""Meta files of what a database was filled with come when nothing was written for a second or two."""
LAGS_MAX: Final = 2
"""A smoke test of parts of a second need not wait for seconds."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """Something to repeat.

    Attributes:
        what: the operation; those with equal ones are compared.
        who: that does it.
        run: does it for some seconds.
        against: whose rate this one's is divided by; None for a baseline.
        servers: processes that do the work.
        each: documents in one request.
        lag_s: what it causes, such as meta files, is done up to so much later. It runs as long before it is
            measured, so that its figures hold its share of that, and others wait as long after it.
    """

    what: str
    who: str
    run: Callable[[float], Load]
    against: str | None = None
    servers: tuple[Server, ...] = ()
    each: int = 1
    lag_s: float = 0.0


@dataclass(frozen=True)
class Round:
    """One workload in one round.

    Attributes:
        load: what the generator saw.
        server_cpu_s: processor time of each server meanwhile, by its name.
        store_requests: what the database asked of its store meanwhile, by kind.
    """

    load: Load
    server_cpu_s: Mapping[str, float]
    store_requests: Mapping[str, int]


def measured(
    todo: Sequence[Workload], *, rounds: int, seconds: float, warm_up: float, say: Callable[[str], None]
) -> list[Row]:
    """Run each in each round; a row for each."""
    found: list[list[Round]] = [[] for _ in todo]
    servers = list({server.pid: server for workload in todo for server in workload.servers}.values())
    if warm_up:
        for workload in todo:
            workload.run(warm_up)
    time.sleep(FILLED_S)
    for number in range(rounds):
        for turn in range(len(todo)):
            # Another one goes first in each round: none always follows the same one's leftovers.
            index = (number + turn) % len(todo)
            _settle(servers, min(seconds, SETTLE_S))
            one = _round(todo[index], seconds)
            found[index].append(one)
            name = f"{todo[index].what}: {todo[index].who}"
            say(f"  round {number + 1} of {rounds}: {name:<60} {one.load.rate:>9,.0f}/s")
    rates = {
        (workload.what, workload.who): [each.load.rate for each in seen]
        for workload, seen in zip(todo, found, strict=True)
    }
    return [_row(workload, seen, rates) for workload, seen in zip(todo, found, strict=True)]


def _settle(servers: Sequence[Server], limit_s: float) -> None:
    """Let the databases finish what follows their answers, such as meta files, but not for long."""
    deadline_s = time.monotonic() + limit_s
    before = None
    while (
        before != (now := [server.store_requests() for server in servers]) and time.monotonic() < deadline_s
    ):
        before = now
        time.sleep(SETTLE_STEP_S)


def _round(workload: Workload, seconds: float) -> Round:
    lag_s = min(workload.lag_s, LAGS_MAX * seconds)
    if lag_s:
        workload.run(lag_s)
    before = [(server.cpu_s(), server.store_requests()) for server in workload.servers]
    load = workload.run(seconds)
    used_s: dict[str, float] = {}
    asked: Counter[str] = Counter()
    for server, (cpu_s, requests) in zip(workload.servers, before, strict=True):
        used_s[server.name] = server.cpu_s() - cpu_s
        asked += server.store_requests() - requests
    time.sleep(lag_s)
    return Round(load, used_s, dict(asked))


def _row(workload: Workload, seen: Sequence[Round], rates: Mapping[tuple[str, str], Sequence[float]]) -> Row:
    own = rates[workload.what, workload.who]
    base = rates[workload.what, workload.against] if workload.against else None
    requests = max(1, sum(each.load.requests for each in seen))
    kinds = sorted({kind for each in seen for kind in each.store_requests})
    return {
        "what": workload.what,
        "who": workload.who,
        "against": workload.against,
        "each": workload.each,
        "rate": spread(own)._asdict(),
        "ratio": ratios(own, base)._asdict() if base else None,
        "p50_ms": statistics.median(each.load.p50_ms for each in seen),
        "p90_ms": statistics.median(each.load.p90_ms for each in seen),
        "p99_ms": statistics.median(each.load.p99_ms for each in seen),
        "target": seen[0].load.target,
        "errors": sum(each.load.errors for each in seen),
        "generator_busy": max(each.load.busy for each in seen),
        "server_cpu_us": {
            server.name: 1e6 * sum(each.server_cpu_s[server.name] for each in seen) / requests
            for server in workload.servers
        },
        "store_requests": {
            kind: sum(each.store_requests.get(kind, 0) for each in seen) / requests for kind in kinds
        },
        "rounds": [asdict(each) for each in seen],
    }
