"""Memory of each process, idle and after very many requests; and how long a start takes."""

from __future__ import annotations

import time
from typing import Any, Final

from bench import servers, workloads
from bench.session import Session, say
from bench.stats import spread

CACHE_MIB: Final = 64
SETTLE_S: Final = 1.0
STARTS: Final = 5
STEPS: Final = 10


def growth(session: Session) -> dict[str, Any]:
    """Nineteen GETs to one PUT, until the number of requests is reached; the memory after each tenth."""
    requests = workloads.reads() * 19 + workloads.writes()
    with servers.cluster(session.place("cluster"), worker_flags=(f"-cache-bytes={CACHE_MIB}MiB",)) as members:
        time.sleep(SETTLE_S)
        names = [server.name for server in members]
        samples = [_sample(members, 0)]
        workloads.fill(members[0])
        done = errors = 0
        while done < session.requests:
            load = session.generator.run(
                members[0].port, requests, connections=session.connections, seconds=session.seconds
            )
            done += load.requests
            errors += load.errors
            if done >= len(samples) * session.requests / STEPS:
                samples.append(_sample(members, done))
                say(f"  {done:>9,} requests: " + ", ".join(f"{samples[-1][name]:.0f} MiB" for name in names))
    return {"cache_mib": CACHE_MIB, "errors": errors, "processes": names, "samples": samples}


def starts(session: Session) -> dict[str, Any]:
    """From the start of ``deltadb serve`` on an empty directory until it is ready."""
    seconds = [servers.start_time_s(session.place("start")) for _ in range(min(STARTS, session.rounds))]
    return {"start_s": spread(seconds)._asdict() | {"all": seconds}}


def _sample(members: tuple[servers.Server, ...], requests: int) -> dict[str, Any]:
    return {"requests": requests, **{server.name: server.rss_mib() for server in members}}
