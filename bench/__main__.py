"""``python -m bench``: the short benchmark."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench import report, servers, workloads
from bench.load import Generator, Loop, Wrk
from bench.report import Round, Run

RESULTS = Path(__file__).with_name("results")
SETTLE_S = 1.0

DESCRIPTION = """\
Measure the database as a user runs it: main-worker with one proc-worker, and `deltadb serve`, each on
a directory of its own in a temporary folder, beside two floors: the same HTTP server with nothing
behind it (GET), and one file after the other written, synced and renamed (PUT).

Everything runs at once and the workloads take turns, round by round, so that a slow moment of the
machine meets all of them. Compare the ratios, not the rates, with another run."""

EPILOG = """\
A Markdown report goes to stdout, progress to stderr. Exit code 1: some request failed or some
document came back damaged; 2: bad arguments, or wrk is missing.

examples:
  just bench
  just bench -rounds=9 -save
  just bench -generator=loop -rounds=1 -seconds=1 -warm-up=0 -starts=1"""


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = parse(sys.argv[1:])
    if options.generator == "wrk" and not Wrk.installed():
        say("wrk is missing: apt-get install wrk (or -generator=loop, which is slower than what it measures)")
        return 2
    # Inherited by every server and generator: results of machines of different size stay comparable.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cpus])
    # By default it would end this process alone, and leave the servers running.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="deltadb-bench-", dir=options.folder) as folder:
        run = measure(options, Path(folder))
    data = report.as_data(run)
    print(report.markdown(data))
    files = [options.json] if options.json else []
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        files.append(RESULTS / f"{data['time'][:10]}-{data['commit']}.json")
    for file in files:
        file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        say(f"written: {file}")
    return 1 if run.errors or run.damaged else 0


def measure(options: argparse.Namespace, folder: Path) -> Run:
    """Everything, in about ``6 · rounds · seconds`` seconds and half a minute."""
    load_before = os.getloadavg()[0]
    start_s = []
    for number in range(options.starts):
        start_s.append(servers.start_time_s(folder / f"start-{number}"))
        say(f"deltadb serve was ready after {start_s[-1]:.2f} s")
    generator: Generator = Wrk() if options.generator == "wrk" else Loop()
    with ExitStack() as stack:
        bare = stack.enter_context(servers.bare(folder / "bare", workloads.DOCUMENT_BYTES))
        embedded = stack.enter_context(servers.embedded(folder / "embedded"))
        cluster = stack.enter_context(servers.cluster(folder / "cluster"))
        time.sleep(SETTLE_S)
        databases = (*cluster, embedded)
        idle_mib = {server.name: server.rss_mib() for server in databases}
        for server in (embedded, cluster[0]):
            workloads.fill(server)
        todo = workloads.all_workloads(
            generator,
            connections=options.connections,
            bare=bare,
            embedded=embedded,
            cluster=cluster,
            folder=folder / "files",
        )
        if options.warm_up:
            for workload in todo:
                workload.run(options.warm_up)
        measured: list[list[Round]] = [[] for _ in todo]
        for number in range(options.rounds):
            for turn in range(len(todo)):
                # Another one goes first in each round: none always follows the same one's leftovers.
                index = (number + turn) % len(todo)
                workload = todo[index]
                before_s = {server.name: server.cpu_s() for server in workload.servers}
                load = workload.run(options.seconds)
                used_s = {server.name: server.cpu_s() - before_s[server.name] for server in workload.servers}
                measured[index].append(Round(load, used_s))
                say(f"round {number + 1} of {options.rounds}: {workload.name:<34} {load.rate:>9,.0f}/s")
        loaded_mib = {server.name: server.rss_mib() for server in databases}
        damaged = sum(workloads.damaged(server) for server in (embedded, cluster[0]))
    return Run(
        settings={
            "generator": options.generator,
            "connections": options.connections,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "documents": workloads.DOCUMENTS,
            "document_bytes": workloads.DOCUMENT_BYTES,
        },
        rounds=list(zip(todo, measured, strict=True)),
        start_s=start_s,
        idle_mib=idle_mib,
        loaded_mib=loaded_mib,
        damaged=damaged,
        load_average=(load_before, os.getloadavg()[0]),
    )


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; exits with code 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="just bench",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )

    def number(name: str, default: int, text: str, least: int = 1) -> None:
        parser.add_argument(
            f"-{name}",
            type=lambda given: _at_least(least, given),
            default=default,
            metavar="N",
            help=f"{text} ({default})",
        )

    number("rounds", 5, "rounds")
    number("seconds", 4, "length of one workload in one round")
    number("warm-up", 1, "seconds of each workload before the first round", least=0)
    number("connections", 64, "HTTP connections, each with one request under way")
    number("cpus", 2, "processors that everything shares, the generator included")
    number("starts", 5, "starts of `deltadb serve` to time")
    parser.add_argument(
        "-generator",
        choices=("wrk", "loop"),
        default="wrk",
        help="what makes the load: wrk, or a loop in Python for smoke tests (wrk)",
    )
    parser.add_argument(
        "-folder",
        type=Path,
        metavar="DIR",
        help="where the temporary folder goes: the disk under test",
    )
    parser.add_argument("-json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument("-save", action="store_true", help="write the result under bench/results/")
    # As in the programs, --name is -name.
    return parser.parse_args([given[given.startswith("--") :] for given in arguments])


def say(line: str) -> None:
    """Tell how it goes."""
    print(line, file=sys.stderr, flush=True)


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} on")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
