"""``python -m bench.transfers``: import and export beside plain PUTs, with the memory that each takes."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.load import Request
from bench.native import Wrk
from bench.servers import Server, embedded

PUT_CONNECTIONS = 64
TOGETHER = 100
TOGETHER_CONNECTIONS = 2
PUT_KEYS = 2000
SAMPLE_S = 0.05
CHUNK_LINES = 64


class Figure(NamedTuple):
    """One row of the report."""

    name: str
    documents: int
    seconds: float
    cpu_s: float
    rss_before_mib: float
    rss_peak_mib: float


@contextlib.contextmanager
def watched(server: Server) -> Iterator[list[float]]:
    """Sample the resident memory; the list grows meanwhile."""
    seen = [server.rss_mib()]
    ends = threading.Event()

    def sample() -> None:
        while not ends.wait(SAMPLE_S):
            seen.append(server.rss_mib())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield seen
    finally:
        ends.set()
        thread.join()


def document(number: int, size: int) -> bytes:
    """A document of ``size`` bytes, different for each number."""
    head = b'{"number":%d,"text":"' % number
    return head + (b"%d " % number * size)[: size - len(head) - 2] + b'"}'


def puts(server: Server, size: int, seconds: int) -> Figure:
    """One document in each request."""
    requests = [
        Request("PUT", "/entity/puts", b'{"k%d":%b}' % (number, document(number, size)))
        for number in range(PUT_KEYS)
    ]
    return _loaded("PUT, one document each", server, requests, PUT_CONNECTIONS, seconds, 1)


def puts_together(server: Server, size: int, seconds: int) -> Figure:
    """Many documents in each request."""
    requests = [
        Request(
            "PUT",
            "/entity/together",
            b"{%b}"
            % b",".join(
                b'"k%d":%b' % (number, document(number, size)) for number in range(first, first + TOGETHER)
            ),
        )
        for first in range(0, PUT_KEYS * 5, TOGETHER)
    ]
    name = f"PUT, {TOGETHER} documents each"
    return _loaded(name, server, requests, TOGETHER_CONNECTIONS, seconds, TOGETHER)


def _loaded(
    name: str, server: Server, requests: list[Request], connections: int, seconds: int, each: int
) -> Figure:
    before_s = server.cpu_s()
    with watched(server) as rss:
        load = Wrk().run(server.port, requests, connections=connections, seconds=seconds)
    if load.errors:
        raise RuntimeError(f"{load.errors} errors")
    return Figure(name, load.requests * each, load.seconds, server.cpu_s() - before_s, rss[0], max(rss))


def imported(server: Server, count: int, size: int) -> Figure:
    """All documents in one import."""

    def chunks() -> Iterator[bytes]:
        for first in range(0, count, CHUNK_LINES):
            yield b"".join(
                b'{"key":"k%d","document":%b}\n' % (number, document(number, size))
                for number in range(first, min(count, first + CHUNK_LINES))
            )

    before_s, began_s = server.cpu_s(), time.perf_counter()
    with (
        watched(server) as rss,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as calls,
    ):
        calls.request("POST", "/import/moved", body=chunks(), encode_chunked=True)
        report = json.loads(calls.getresponse().read())
    if report.get("imported") != count:
        raise RuntimeError(f"not all was imported: {report}"[:500])
    seconds = time.perf_counter() - began_s
    return Figure("import", count, seconds, server.cpu_s() - before_s, rss[0], max(rss))


def exported(server: Server, count: int, pause_s: float = 0.0) -> Figure:
    """All documents in one export; with a pause a chunk, the client is a slow one."""
    before_s, began_s = server.cpu_s(), time.perf_counter()
    lines = 0
    with (
        watched(server) as rss,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as calls,
    ):
        calls.request("GET", "/export/moved")
        answer = calls.getresponse()
        while piece := answer.read(1 << 18):
            lines += piece.count(b"\n")
            time.sleep(pause_s)
    if lines != count:
        raise RuntimeError(f"not all was exported: {lines}")
    seconds = time.perf_counter() - began_s
    name = "export, slow reader" if pause_s else "export"
    return Figure(name, count, seconds, server.cpu_s() - before_s, rss[0], max(rss))


def main() -> int:
    """Run it; a table goes to stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-documents", type=int, default=100_000, help="to move (default 100000)")
    parser.add_argument("-bytes", type=int, default=1024, help="of each (default 1024)")
    parser.add_argument("-seconds", type=int, default=8, help="of each kind of PUTs (default 8)")
    parser.add_argument("-memory", action="store_true", help="a store in memory instead of a directory")
    parser.add_argument("-folder", type=Path, help="where the directory is made (default: a temporary one)")
    parser.add_argument(
        "-serve", default="", help="more flags of deltadb serve, such as -serve=-cache-bytes=1MiB"
    )
    options = parser.parse_args()
    flags = [*options.serve.split(), *(["-memory"] if options.memory else [])]
    with (
        tempfile.TemporaryDirectory(prefix="deltadb-bench-", dir=options.folder) as folder,
        embedded(Path(folder), *flags) as server,
    ):
        figures = []
        for figure in (
            lambda: puts(server, options.bytes, options.seconds),
            lambda: puts_together(server, options.bytes, options.seconds),
            lambda: imported(server, options.documents, options.bytes),
            lambda: exported(server, options.documents),
            lambda: puts(server, options.bytes, options.seconds),
            lambda: exported(server, options.documents, 0.01),
        ):
            figures.append(figure())
            print(figures[-1], file=sys.stderr, flush=True)
    print("| | documents | documents/s | CPU µs a document | RSS before, MiB | RSS peak, MiB |")
    print("|---|---|---|---|---|---|")
    for row in figures:
        print(
            f"| {row.name} | {row.documents} | {row.documents / row.seconds:.0f} | "
            f"{row.cpu_s / row.documents * 1e6:.0f} | {row.rss_before_mib:.0f} | {row.rss_peak_mib:.0f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
