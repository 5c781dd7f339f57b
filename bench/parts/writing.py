"""Durable writes on a directory."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import Any, Final

from bench import peers, servers, workloads
from bench.rounds import Workload
from bench.session import Session

LOOP: Final = "write+fsync+rename"
SUSTAINED_S: Final = 60


def against_peers(session: Session) -> dict[str, Any]:
    """Overwrites of a thousand documents."""
    what, writes = f"PUT overwrite, {session.connections} connections", workloads.writes()
    with ExitStack() as stack:
        embedded = stack.enter_context(servers.embedded(session.place("embedded"), metrics=False))
        cluster = stack.enter_context(servers.cluster(session.place("cluster"), workers=2))
        etcd, kinto = stack.enter_context(session.peers())
        workloads.fill(embedded)
        workloads.fill(cluster[0])
        todo = [
            _loop(session, what),
            session.http(what, [embedded], writes, against=LOOP, meta_files=True),
            session.http(what, cluster, writes, who="main + 2 workers", against=LOOP, meta_files=True),
        ]
        if etcd is not None:
            todo.append(session.http(what, [etcd], peers.etcd_writes(), against=LOOP))
        if kinto is not None:
            todo.append(
                session.http(what, [kinto], peers.kinto_writes(), who="Kinto, not durable", against=LOOP)
            )
        rows = session.rows(todo)
        damaged = sum(workloads.damaged(server) for server in (embedded, cluster[0]))
    return {"rows": rows, "damaged": damaged}


def sustained(session: Session) -> dict[str, Any]:
    """The same for long enough that what was put off must be done."""
    what, writes = f"PUT overwrite for {SUSTAINED_S} s", workloads.writes()
    with ExitStack() as stack:
        embedded = stack.enter_context(servers.embedded(session.place("embedded"), metrics=False))
        etcd, _ = stack.enter_context(session.peers(kinto=False))
        workloads.fill(embedded)
        todo = [_loop(session, what), session.http(what, [embedded], writes, against=LOOP, meta_files=True)]
        if etcd is not None:
            todo.append(session.http(what, [etcd], peers.etcd_writes(), against=LOOP))
        return {"rows": session.rows(todo, rounds=1, seconds=SUSTAINED_S)}


def _loop(session: Session, what: str) -> Workload:
    return Workload(what, LOOP, functools.partial(workloads.durable_files, session.place("files")))
