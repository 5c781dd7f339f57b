"""``python -m bench.metrics_cost``: what metrics cost a request, as processor time of the server.

The same ``deltadb serve -memory`` runs several times at once and they take turns, so that a slow moment
of the machine meets all of them: without -metrics-addr, with it (and scraped every second), and with
``-before DIR`` also another source tree (``git worktree add DIR COMMIT``; give its ``src``). In memory, so
that nothing hides behind a disk: on a directory or S3 a PUT costs more and the same is added to it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from bench import servers, workloads
from bench.native import Wrk

CONNECTIONS = 32


def main() -> None:
    """Measure and print the medians, and their ratios to the first variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-before", type=Path)
    parser.add_argument("-rounds", type=int, default=7)
    parser.add_argument("-seconds", type=int, default=3)
    options = parser.parse_args()
    metrics_port = servers.free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deltadb-metrics-")))

        def start(name: str, *flags: str, source: Path | None = None) -> servers.Server:
            return stack.enter_context(
                servers.embedded(folder / name, "-memory", *flags, source=source, metrics=False)
            )

        variants = {"before": start("before", source=options.before)} if options.before else {}
        variants["without"] = start("without")
        variants["with"] = start("with", f"-metrics-addr=127.0.0.1:{metrics_port}")
        end = threading.Event()
        scraping = threading.Thread(target=scrape, args=(metrics_port, end))
        scraping.start()
        stack.callback(scraping.join)
        stack.callback(end.set)
        for server in variants.values():
            workloads.fill(server)
        loads = {"GET": workloads.reads(), "PUT": workloads.writes()}
        found: dict[tuple[str, str], list[float]] = {}
        for number in range(options.rounds + 1):
            names = list(variants)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                for method, requests in loads.items():
                    server = variants[name]
                    before_s = server.cpu_s()
                    load = Wrk().run(server.port, requests, connections=CONNECTIONS, seconds=options.seconds)
                    assert not load.errors
                    if number:  # The first round warms up.
                        used_us = (server.cpu_s() - before_s) / load.requests * 1e6
                        found.setdefault((method, name), []).append(used_us)
        for method in loads:
            base = found[method, next(iter(variants))]
            for name in variants:
                used = found[method, name]
                ratio = statistics.median(mine / other for mine, other in zip(used, base, strict=True))
                print(
                    f"{method} {name:8} {statistics.median(used):7.1f} us of CPU a request, ratio {ratio:.3f}"
                )


def scrape(port: int, end: threading.Event) -> None:
    """Ask for the metrics every second."""
    while not end.wait(1.0):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read()


if __name__ == "__main__":
    main()
