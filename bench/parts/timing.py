"""What one request costs: where its time goes, and what it asks of the store."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import Any, Final

from bench import servers, stores, workloads
from bench.load import Request
from bench.programs import Server
from bench.session import SMALLEST_CACHE, Session
from bench.workloads import JSON, MERGE_PATCH, SCHEMA_ID, document, members, resource

EACH_ROUND: Final = 8
SETTLE_READS: Final = 3


def cost(session: Session) -> dict[str, Any]:
    """Each operation on a directory, and on S3 where there is one."""
    tables = {}
    with ExitStack() as stack:
        backends: dict[str, tuple[str, ...]] = {"directory": ()}
        if session.with_s3:
            weed = stack.enter_context(stores.seaweedfs(session.place("weed")))
            backends["SeaweedFS"] = weed.flags("timing")
        for name, flags in backends.items():
            tables[name] = _table(session, name, flags)
    return {"operations": tables}


def _table(session: Session, name: str, flags: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    times = EACH_ROUND * session.rounds
    # Meta files are written after the answer, and would be counted with other operations.
    plain = ("-meta-sidecar=false",)
    with servers.cluster(session.place(name), *flags, worker_flags=(*flags, *plain)) as (main, worker):
        workloads.fill(main)
        for what, requests in _operations(times).items():
            rows.append(_row(what, main, worker, requests))
    # Another database on the same store would be a stranger in it: after the first one has ended.
    place = session.place(f"{name}-cacheless")
    flags = tuple(flag.replace("-timing", "-misses") for flag in flags)
    with servers.cluster(place, *flags, worker_flags=(*flags, *plain, SMALLEST_CACHE)) as (main, worker):
        workloads.fill(main)
        rows.append(_row("GET /entity, not cached", main, worker, workloads.reads(times)))
        rows.append(_row("GET /entities, not cached", main, worker, _resources("GET", times)))
        rows.append(_row("PUT /entity, not cached", main, worker, workloads.writes(times)))
    return rows


def _operations(times: int) -> dict[str, list[Request]]:
    new = [Request("PUT", f"/entity/{SCHEMA_ID}", b'{"t%d": %s}' % (n, document(n))) for n in range(times)]
    deletes = [Request("DELETE", f"/entity/{SCHEMA_ID}?key=t{n}") for n in range(times)]
    created = [Request("PUT", f"/entities/{SCHEMA_ID}/u{n}", document(n), JSON) for n in range(times)]
    gone = [Request("DELETE", f"/entities/{SCHEMA_ID}/u{n}") for n in range(times)]
    patches = [Request("PATCH", resource(n), b'{"seen": 1}', MERGE_PATCH) for n in range(times)]
    return {
        "GET /entity": workloads.reads(times),
        "PUT /entity, new": new,
        "PUT /entity, overwrite": workloads.writes(times),
        "PUT /entity, 10 documents": [
            Request("PUT", f"/entity/{SCHEMA_ID}", members(range(10 * n, 10 * n + 10), 1024))
            for n in range(times)
        ],
        "DELETE /entity": deletes,
        "GET /entities": _resources("GET", times),
        "PUT /entities, new": created,
        "PUT /entities, overwrite": _resources("PUT", times),
        "PATCH /entities": patches,
        "DELETE /entities": gone,
        "POST /batch, 10 requests": workloads.batches(10)[:times],
        "GET /entities, a page of 100": workloads.lists(100) * SETTLE_READS,
    }


def _resources(method: str, times: int) -> list[Request]:
    return [
        Request(method, resource(n), document(n) if method == "PUT" else b"", JSON if method == "PUT" else "")
        for n in range(times)
    ]


def _row(what: str, main: Server, worker: Server, requests: list[Request]) -> dict[str, Any]:
    before = worker.store_requests()
    found: dict[str, list[float]] = {}
    for headers, _ in main.answers(*requests):
        for name, ms in steps_of(headers["server-timing"]).items():
            found.setdefault(name, []).append(ms)
    asked = worker.store_requests() - before
    return {
        "operation": what,
        "steps_ms": {name: statistics.median(seen) for name, seen in found.items()},
        "store_requests": {kind: count / len(requests) for kind, count in sorted(asked.items())},
    }


def steps_of(header: str) -> dict[str, float]:
    """The entries of a ``Server-Timing`` header, in milliseconds."""
    entries = (entry.strip().partition(";dur=") for entry in header.split(","))
    return {name: float(ms) for name, _, ms in entries}
