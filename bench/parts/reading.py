"""Reads: beside the baselines, over connections, at fixed rates, of many sizes and of many entities."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, Final

from bench import peers, servers, workloads
from bench.load import Request
from bench.programs import Server
from bench.session import SMALLEST_CACHE, Session

CONNECTIONS: Final = (1, 4, 16, 64, 256)
RATES: Final = {"GET random": (1000, 2000, 4000), "PUT overwrite": (250, 500, 1000)}
"""Arrival rates: the same in each run, so that latencies can be compared, and within what Vegeta can send."""
SAMPLE: Final = 20_000
FEW: Final = 1000
IMPORT_LINES: Final = 100


def against_peers(session: Session) -> dict[str, Any]:
    """One hot document at half of the connections, and a thousand at all of them."""
    hot, random = workloads.reads(1), workloads.reads()
    half = session.connections // 2
    hot_name, random_name = f"GET hot, {half} connections", f"GET random, {session.connections} connections"
    with ExitStack() as stack:
        bare = stack.enter_context(servers.bare(session.place("bare"), workloads.DOCUMENT_BYTES))
        relay = stack.enter_context(servers.relay(session.place("relay"), workloads.DOCUMENT_BYTES))
        embedded = stack.enter_context(servers.embedded(session.place("embedded"), metrics=False))
        cluster = stack.enter_context(servers.cluster(session.place("cluster")))
        etcd, kinto = stack.enter_context(session.peers())
        workloads.fill(embedded)
        workloads.fill(cluster[0])
        todo = [
            session.http(hot_name, [bare], hot, connections=half),
            session.http(hot_name, [embedded], hot, connections=half, against=bare.name),
            session.http(random_name, [bare], random),
            session.http(random_name, relay, random, against=bare.name),
            session.http(random_name, [embedded], random, against=bare.name),
            session.http(random_name, cluster, random, who="main + 1 worker", against=bare.name),
        ]
        if etcd is not None:
            reads = peers.etcd_reads()
            todo += [
                session.http(hot_name, [etcd], reads[:1], connections=half, against=bare.name),
                session.http(random_name, [etcd], reads, against=bare.name),
            ]
        if kinto is not None:
            todo.append(session.http(random_name, [kinto], peers.kinto_reads(), against=bare.name))
        rows = session.rows(todo)
        damaged = sum(workloads.damaged(server) for server in (embedded, cluster[0]))
    return {"rows": rows, "damaged": damaged}


def connections(session: Session) -> dict[str, Any]:
    """GET and PUT from one connection to many."""
    with ExitStack() as stack:
        bare = stack.enter_context(servers.bare(session.place("bare"), workloads.DOCUMENT_BYTES))
        embedded = stack.enter_context(servers.embedded(session.place("embedded"), metrics=False))
        cluster = stack.enter_context(servers.cluster(session.place("cluster")))
        workloads.fill(embedded)
        workloads.fill(cluster[0])
        todo = []
        for count in CONNECTIONS:
            get, put = f"GET random, {count} connections", f"PUT overwrite, {count} connections"
            reads, writes = workloads.reads(), workloads.writes()
            todo += [
                session.http(get, [bare], reads, connections=count),
                session.http(get, [embedded], reads, connections=count),
                session.http(get, cluster, reads, who="main + 1 worker", connections=count),
                session.http(put, [embedded], writes, connections=count),
                session.http(put, cluster, writes, who="main + 1 worker", connections=count),
            ]
        return {"rows": session.rows(todo, share=0.34)}


def latency(session: Session) -> dict[str, Any]:
    """GET and PUT at rates far below and near what the database can do."""
    with ExitStack() as stack:
        fleet: dict[str, tuple[Server, ...]] = {
            "deltadb serve": (
                stack.enter_context(servers.embedded(session.place("embedded"), metrics=False)),
            ),
            "main + 1 worker": stack.enter_context(servers.cluster(session.place("cluster"))),
        }
        for members in fleet.values():
            workloads.fill(members[0])
        requests = {"GET random": workloads.reads(), "PUT overwrite": workloads.writes()}
        todo = [
            session.http(f"{what} at {rate}/s", members, requests[what], who=name, rate=rate)
            for what, rates in RATES.items()
            for rate in rates
            for name, members in fleet.items()
        ]
        return {"rows": session.rows(todo)}


def sizes(session: Session) -> dict[str, Any]:
    """GET and PUT of small and large documents."""
    with ExitStack() as stack:
        bare = stack.enter_context(servers.bare(session.place("bare"), workloads.DOCUMENT_BYTES))
        todo = []
        for label, size in workloads.SIZES.items():
            count = min(workloads.DOCUMENTS, (32 << 20) // size)
            place = session.place(f"embedded-{size}")
            embedded = stack.enter_context(servers.embedded(place, "-memory"))
            workloads.fill(embedded, count, size)
            reads = workloads.reads(count)
            todo += [
                session.http(f"GET {label}", [bare], [Request("GET", f"/?{size}")]),
                session.http(f"GET {label}", [embedded], reads, against=bare.name),
                session.http(f"PUT {label}", [embedded], workloads.writes(count, size)),
            ]
        return {"rows": session.rows(todo, share=0.34)}


def many(session: Session) -> dict[str, Any]:
    """GETs among very many entities beside the same among a thousand."""
    flags = (SMALLEST_CACHE, "-meta-sidecar=false")
    step = max(1, session.entities // SAMPLE)
    with ExitStack() as stack:
        few, much = (
            stack.enter_context(servers.embedded(session.place(name), *flags, name=f"{count:,} entities"))
            for name, count in (("few", FEW), ("many", session.entities))
        )
        _import(few, FEW)
        _import(much, session.entities)
        todo = [
            session.http("GET random, not cached", [few], workloads.reads(FEW)),
            session.http(
                "GET random, not cached",
                [much],
                workloads.reads(session.entities)[::step],
                against=few.name,
            ),
        ]
        return {"rows": session.rows(todo)}


def _import(server: Server, count: int) -> None:
    """Write entities the fast way."""

    def chunks() -> Iterator[bytes]:
        for first in range(0, count, IMPORT_LINES):
            yield b"".join(
                b'{"key":"%s","document":%s}\n' % (workloads.key(n).encode(), workloads.document(n))
                for n in range(first, min(count, first + IMPORT_LINES))
            )

    with closing(http.client.HTTPConnection("127.0.0.1", server.port)) as calls:
        calls.request("POST", f"/import/{workloads.SCHEMA_ID}", body=chunks(), encode_chunked=True)
        answer = calls.getresponse()
        content = answer.read()
    if answer.status != 200 or b'"failed":0' not in content.replace(b" ", b""):
        raise RuntimeError(f"the import failed: {content[:300]!r}")
