"""What the benchmark consists of. Each part starts its own programs, measures, and ends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from bench.parts import kinds, memory, objects, reading, timing, writing
from bench.session import Session

Findings = dict[str, Any]
"""``rows`` of workloads, and whatever else a part has found; ready for JSON."""


class Part(NamedTuple):
    """One of them.

    Attributes:
        title: its heading.
        measure: does it.
        chart: how its rows are drawn: ``ratios``, ``rates``, ``connections``, ``latencies`` or not at all.
        text: what the reader should know.
    """

    title: str
    measure: Callable[[Session], Findings]
    chart: str = ""
    text: str = ""


PARTS: Final[dict[str, Part]] = {
    "get": Part(
        "GET beside the bare ASGI application, etcd and Kinto",
        reading.against_peers,
        "ratios",
        "Documents of 1 KiB; all reads after the first of a key come from the worker's cache.",
    ),
    "put": Part(
        "PUT on a directory beside a loop of write, fsync and rename",
        writing.against_peers,
        "ratios",
        "Documents of 1 KiB, checked against a schema, durable when they are answered. Kinto keeps its "
        "own in memory alone.",
    ),
    "sustained": Part(
        "PUT on a directory for a minute",
        writing.sustained,
        text="The loop, `deltadb serve` and etcd, one after the other, once.",
    ),
    "s3": Part(
        "PUT and GET on S3 beside obstore alone",
        objects.near,
        "ratios",
        "obstore writes the same documents as they are, with as many tasks as there are connections; its "
        "hot key is put again and again by one task. `meta files` is the default with a readable file "
        "beside each entity; the others run with `-meta-sidecar=false`.",
    ),
    "far": Part(
        "PUT and GET on S3, 5 ms away",
        objects.far,
        "ratios",
        "As before, with a proxy that holds each request to the store back for 5 ms, for both.",
    ),
    "connections": Part(
        "Throughput against connections",
        reading.connections,
        "connections",
    ),
    "latency": Part(
        "Latency at fixed arrival rates",
        reading.latency,
        "latencies",
        "Requests are sent when they are due, and a latency counts from then.",
    ),
    "sizes": Part("Sizes of documents", reading.sizes, "rates", "In memory."),
    "kinds": Part("Kinds of requests", kinds.operations, "rates", "`deltadb serve`; one process."),
    "topologies": Part("Topologies and backends", kinds.topologies, "rates"),
    "timing": Part(
        "The cost of one request",
        timing.cost,
        text="Medians of `Server-Timing`, requests one after the other, main + 1 worker.",
    ),
    "memory": Part("Memory", memory.growth, text="Main + 1 worker on a directory, `-cache-bytes=64MiB`."),
    "many": Part(
        "Many entities in a directory",
        reading.many,
        "ratios",
        "Without a cache, so that each GET reads its file.",
    ),
    "starts": Part("Starts", memory.starts),
}
SHORT: Final = ("get", "put", "starts")
"""What `just bench` measures unless it is told else."""
