"""What is measured: documents of 1 KiB, read and written at random, and the floors beside them.

Expected cost of one request: GET is one hop to the worker and back and no store call, its cache
holds everything; PUT is the hop, one sealed object and its sync, shared by commits in flight
together. The floors do as little as anybody could: the same HTTP server with nothing behind it,
and one file after the other written, synced and renamed.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load import Generator, Load, Request
from bench.servers import Server
from bench.stats import percentile

DOCUMENTS = 1000
DOCUMENT_BYTES = 1024
FILL_BATCH = 100
SCHEMA_ID = "bench"
SCHEMA = {
    "type": "object",
    "required": ["id", "from", "sent_at", "text"],
    "properties": {
        "id": {"type": "integer"},
        "from": {"type": "string"},
        "sent_at": {"type": "string", "format": "date-time"},
        "text": {"type": "string", "maxLength": 4096},
    },
}


@dataclass(frozen=True)
class Workload:
    """Something to repeat.

    Attributes:
        name: stable, for reports.
        baseline: name of the workload it is compared with; None for a floor itself.
        servers: processes that do the work.
        run: does it for some seconds.
    """

    name: str
    baseline: str | None
    servers: tuple[Server, ...]
    run: Callable[[int], Load]


def key(number: int) -> str:
    """Key of a document."""
    return f"message-{number:04}"


def document(number: int) -> bytes:
    """A JSON document of exactly ``DOCUMENT_BYTES`` bytes."""
    fields = {"id": number, "from": f"user:{number % 97}", "sent_at": "2026-01-01T00:00:00Z", "text": ""}
    padding = DOCUMENT_BYTES - len(json.dumps(fields))
    text = (f"{number} is the number of this message. " * 40)[:padding]
    return json.dumps(fields | {"text": text}).encode()


def reads() -> list[Request]:
    """A GET of each document."""
    return [Request("GET", f"/entity/{SCHEMA_ID}?key={key(number)}") for number in range(DOCUMENTS)]


def writes() -> list[Request]:
    """A PUT of each document."""
    return [
        Request("PUT", f"/entity/{SCHEMA_ID}", b'{"%s": %s}' % (key(number).encode(), document(number)))
        for number in range(DOCUMENTS)
    ]


def fill(server: Server) -> None:
    """Put the schema and all documents."""
    puts = [Request("PUT", f"/schema/{SCHEMA_ID}", json.dumps(SCHEMA).encode())]
    for first in range(0, DOCUMENTS, FILL_BATCH):
        members = (
            b'"%s": %s' % (key(number).encode(), document(number))
            for number in range(first, min(first + FILL_BATCH, DOCUMENTS))
        )
        puts.append(Request("PUT", f"/entity/{SCHEMA_ID}", b"{%s}" % b", ".join(members)))
    list(server.ask(*puts))


def damaged(server: Server) -> int:
    """How many documents do not come back byte for byte."""
    return sum(found != document(number) for number, found in enumerate(server.ask(*reads())))


def durable_files(folder: Path, seconds: int) -> Load:
    """Write, sync and rename one file of a document's size after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    content = document(0)
    latencies_ms: list[float] = []
    cpu_s, began_s = time.process_time(), time.perf_counter()
    now_s = began_s
    while now_s < began_s + seconds:
        number = len(latencies_ms) % DOCUMENTS
        temporary = folder / f"{number}.tmp"
        with temporary.open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        temporary.replace(folder / key(number))
        ended_s = time.perf_counter()
        latencies_ms.append((ended_s - now_s) * 1000)
        now_s = ended_s
    latencies_ms.sort()
    return Load(
        requests=len(latencies_ms),
        errors=0,
        seconds=now_s - began_s,
        p50_ms=percentile(latencies_ms, 50),
        p99_ms=percentile(latencies_ms, 99),
        cpu_s=time.process_time() - cpu_s,
    )


def all_workloads(
    generator: Generator,
    *,
    connections: int,
    bare: Server,
    embedded: Server,
    cluster: tuple[Server, Server],
    folder: Path,
) -> list[Workload]:
    """Every workload over the running servers; ``folder`` is for the floor of writing."""

    def http(
        name: str, baseline: str | None, servers: tuple[Server, ...], requests: Sequence[Request]
    ) -> Workload:
        run = functools.partial(generator.run, servers[0].port, requests, connections=connections)
        return Workload(name, baseline, servers, lambda seconds: run(seconds=seconds))

    get, put = reads(), writes()
    get_floor, put_floor = "GET, bare ASGI on granian", "write+fsync+rename loop"
    return [
        http(get_floor, None, (bare,), get),
        http("GET, deltadb serve", get_floor, (embedded,), get),
        http("GET, main-worker + 1 proc-worker", get_floor, cluster, get),
        Workload(put_floor, None, (), functools.partial(durable_files, folder)),
        http("PUT, deltadb serve", put_floor, (embedded,), put),
        http("PUT, main-worker + 1 proc-worker", put_floor, cluster, put),
    ]
