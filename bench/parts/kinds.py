"""Every kind of request, and every way to run the database."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

from bench import servers, stores, workloads
from bench.session import SMALLEST_CACHE, Session

TOGETHER: Final = 10
PAGE: Final = 100
WORKERS: Final = (1, 2, 4)


def operations(session: Session) -> dict[str, Any]:
    """Reads, writes, patches, batches and lists, in memory and on a directory."""
    with ExitStack() as stack:
        todo = []
        for backend, flags in (("memory", ("-memory",)), ("directory", ())):
            server = stack.enter_context(servers.embedded(session.place(backend), *flags))
            cacheless = stack.enter_context(
                servers.embedded(session.place(f"{backend}-cacheless"), *flags, SMALLEST_CACHE)
            )
            workloads.fill(server)
            workloads.fill(cacheless)
            everything = [
                ("GET hot", server, workloads.reads(1), 1),
                ("GET random", server, workloads.reads(), 1),
                ("GET miss", cacheless, workloads.reads(), 1),
                ("PUT new", server, workloads.new_writes(), 1),
                ("PUT overwrite", server, workloads.writes(), 1),
                ("PUT hot key", server, workloads.writes(1), 1),
                ("80 % GET, 20 % PUT", server, workloads.mixed(), 1),
                (f"PUT of {TOGETHER}", server, workloads.together(TOGETHER), TOGETHER),
                (f"POST /batch of {TOGETHER}", server, workloads.batches(TOGETHER), TOGETHER),
                ("PATCH", server, workloads.patches(), 1),
                (f"list, page of {PAGE}", server, workloads.lists(PAGE), 1),
            ]
            todo += [
                session.http(what, [asked], requests, who=backend, each=each)
                for what, asked, requests, each in everything
            ]
        return {"rows": session.rows(todo, share=0.34)}


def topologies(session: Session) -> dict[str, Any]:
    """One process, and a main worker with one, two and four workers; memory, directory and S3."""
    requests = {
        "GET random": workloads.reads(),
        "PUT overwrite": workloads.writes(),
        "80 % GET, 20 % PUT": workloads.mixed(),
    }
    with ExitStack() as stack:
        weed = stack.enter_context(stores.seaweedfs(session.place("weed")))
        fleet: list[tuple[str, tuple[servers.Server, ...]]] = [
            ("serve, memory", (stack.enter_context(servers.embedded(session.place("memory"), "-memory")),)),
            ("serve, directory", (stack.enter_context(servers.embedded(session.place("directory"))),)),
            (
                "serve, SeaweedFS",
                (stack.enter_context(servers.embedded(session.place("s3"), *weed.flags("serve"))),),
            ),
        ]
        for count in WORKERS:
            name = f"main + {count}, directory"
            fleet.append(
                (name, stack.enter_context(servers.cluster(session.place(f"main-{count}"), workers=count)))
            )
        flags = weed.flags("cluster")
        there = servers.cluster(session.place("main-s3"), *flags, workers=2, worker_flags=flags)
        fleet.append(("main + 2, SeaweedFS", stack.enter_context(there)))
        for _, members in fleet:
            workloads.fill(members[0])
        todo = [
            session.http(what, members, each, who=name)
            for what, each in requests.items()
            for name, members in fleet
        ]
        return {"rows": session.rows(todo, share=0.34)}
