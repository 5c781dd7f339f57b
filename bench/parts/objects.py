"""S3 under the database, beside obstore alone on the same store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Final

from bench import servers, stores, workloads
from bench.programs import Server
from bench.raw import Raw, raw
from bench.rounds import Row, Workload
from bench.session import SMALLEST_CACHE, Session

RAW: Final = "obstore alone"
GATEWAY: Final = "bare gateway"
PLAIN: Final = "deltadb serve"
META: Final = "deltadb serve, meta files"


@contextmanager
def endpoints(session: Session) -> Iterator[Iterator[stores.S3]]:
    """Each S3 server that there is, running while it is looked at."""

    def each() -> Iterator[stores.S3]:
        with stores.seaweedfs(session.place("weed")) as store:
            yield store
        session.lacks(f"RustFS: not measured ({session.tools.why('rustfs')})")
        if session.tools.minio is None:
            session.lacks(f"MinIO: not measured ({session.tools.why('minio')})")
        else:
            with stores.minio(session.place("minio"), session.tools.minio) as store:
                yield store
        if session.s3 is not None:
            session.s3.make_bucket()
            yield session.s3

    found = each()
    try:
        yield found
    finally:
        found.close()


def near(session: Session) -> dict[str, Any]:
    """Every kind of request, on each store."""
    rows: list[Row] = []
    with endpoints(session) as found:
        for store in found:
            rows += _on(session, store, overwrites=True)
    return {"rows": rows}


def far(session: Session) -> dict[str, Any]:
    """New keys and misses, on the first store and behind a proxy."""
    with (
        stores.seaweedfs(session.place("weed")) as near_by,
        stores.delayed(session.place("proxy"), near_by) as store,
    ):
        return {"rows": _on(session, store, overwrites=False)}


def _on(session: Session, store: stores.S3, *, overwrites: bool) -> list[Row]:
    with ExitStack() as stack:
        beside = stack.enter_context(raw(store))

        def database(name: str, *flags: str) -> Server:
            server = stack.enter_context(
                servers.embedded(session.place(name), *store.flags(name), *flags, name=name)
            )
            workloads.fill(server)
            return server

        gateway = stack.enter_context(
            servers.gateway(session.place("gateway"), workloads.DOCUMENT_BYTES, store)
        )
        plain = database("plain", "-meta-sidecar=false")
        meta = database("meta")
        cacheless = database("cacheless", "-meta-sidecar=false", SMALLEST_CACHE)
        new, known = workloads.new_writes(), workloads.writes()

        def mine(what: str, server: Server, requests: list[Any], who: str = PLAIN) -> Workload:
            name = f"{what}, {store.name}"
            return session.http(
                name,
                [server],
                requests,
                who=who,
                against=RAW,
                beside=store.servers,
                meta_files=server is meta,
            )

        def theirs(what: str, kind: str) -> Workload:
            return _raw_workload(session, store, beside, f"{what}, {store.name}", kind)

        todo = [
            theirs("PUT new", "put"),
            mine("PUT new", gateway, new, GATEWAY),
            mine("PUT new", plain, new),
            mine("PUT new", meta, new, META),
            theirs("GET miss", "get"),
            mine("GET miss", gateway, workloads.reads(), GATEWAY),
            mine("GET miss", cacheless, workloads.reads()),
        ]
        if overwrites:
            todo += [
                theirs("PUT overwrite", "overwrite"),
                mine("PUT overwrite", plain, known),
                theirs("PUT hot key", "sequential"),
                mine("PUT hot key", plain, known[:1]),
            ]
        return session.rows(todo)


def _raw_workload(session: Session, store: stores.S3, beside: Raw, what: str, kind: str) -> Workload:
    def run(seconds: float) -> Any:
        load = beside.run(
            kind, size=workloads.DOCUMENT_BYTES, connections=session.connections, seconds=seconds
        )
        return replace(load, cpu_s=0.0)  # It is no generator but what is measured.

    return Workload(what, RAW, run, servers=(beside.server, *store.servers))
