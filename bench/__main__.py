"""``python -m bench``: measure the database beside its baselines."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from bench import report, servers, setup, stores
from bench.load import Generator
from bench.native import Wrk
from bench.paced import Loop
from bench.parts import PARTS, SHORT
from bench.session import Session, say

RESULTS = Path(__file__).with_name("results")

DESCRIPTION = """\
Measure the database as a user runs it, beside what the hardware allows: the same HTTP server with nothing
behind it, one file after the other written, synced and renamed, obstore alone on the same store; and beside
etcd and Kinto where `just bench-setup` has put them.

The workloads of one part take turns, round by round, so that a slow moment of the machine meets all of them.
Compare the ratios, not the rates, with another run."""

EPILOG = """\
A Markdown report goes to stdout, progress to stderr. Exit code 1: some part or some
request failed, or some document came back damaged; 2: bad arguments, or wrk is missing.

examples:
  just bench
  just bench-full -save
  just bench -parts=s3,far -rounds=9
  just bench -parts=memory,many -onto=bench/results/2026-11-28-0123456789ab
  just bench -parts=s3 -s3-endpoint=http://127.0.0.1:9000 -s3-access-key=… -s3-secret-key=… -s3-bucket=bench
  just bench -generator=loop -rounds=1 -seconds=0.3 -warm-up=0"""
PRICE_SOURCE = "Amazon S3 Standard, us-east-1, list price of 2025"


def main() -> int:
    """Run the benchmark; return the exit code."""
    options = parse(sys.argv[1:])
    tools = setup.installed() if options.tools == "all" else setup.Tools()
    generator: Generator = Loop()
    if options.generator == "wrk":
        if not Wrk.installed():
            say(
                "wrk is missing: just bench-setup (or -generator=loop, which is slower than what it measures)"
            )
            return 2
        generator = Wrk(tools.vegeta)
    earlier = None
    if options.onto:
        try:
            earlier = json.loads((options.onto / "result.json").read_bytes())
        except (OSError, ValueError) as exc:
            say(f"there is no report to add to: {exc}")
            return 2
        if earlier["commit"] != report.commit():
            say(f"{options.onto} is of commit {earlier['commit']}: parts of one report are of one commit")
            return 2
    # Inherited by every server and generator: results of machines of different size stay comparable.
    servers.use_processors(options.cpus)
    # By default it would end this process alone, and leave the servers running.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        with tempfile.TemporaryDirectory(prefix="deltadb-bench-", dir=options.folder) as folder:
            data = measure(options, Session(folder=Path(folder), generator=generator, tools=tools))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if earlier is not None:
        data = report.joined(earlier, data, PARTS)
    print(report.markdown(data))
    write(options, data)
    return 1 if data["errors"] or data["damaged"] or data["failed"] else 0


def measure(options: argparse.Namespace, session: Session) -> dict[str, Any]:
    """Every part that was asked for."""
    for name in ("rounds", "seconds", "warm_up", "connections", "entities", "requests"):
        setattr(session, name, getattr(options, name))
    session.with_s3 = options.tools == "all"
    if options.s3_endpoint:
        session.s3 = stores.S3(
            options.s3_name,
            options.s3_endpoint,
            options.s3_access_key,
            options.s3_secret_key,
            # Databases of an earlier run have other keys.
            f"{options.s3_bucket}-{int(time.time())}",
            options.s3_region,
        )
    if options.generator == "wrk" and session.tools.vegeta is None:
        session.lacks(f"Vegeta: a loop in Python sent at fixed rates ({session.tools.why('vegeta')})")
    data = report.environment(session.tools, session.folder)
    load_before, began_s = os.getloadavg()[0], time.perf_counter()
    parts: dict[str, Any] = {}
    failed: list[str] = []
    for name in options.parts:
        part = PARTS[name]
        say(f"{name}: {part.title} ({time.perf_counter() - began_s:.0f} s)")
        try:
            found = part.measure(session)
        except Exception as exc:  # noqa: BLE001 - what was measured before it is worth keeping
            traceback.print_exc()
            failed.append(name)
            session.lacks(f"{part.title}: {exc}")
            continue
        parts[name] = {"title": part.title, "text": part.text, "chart": part.chart, **found}
    rows = [row for part in parts.values() for row in part.get("rows", ())]
    return {
        **data,
        "load_average": (load_before, os.getloadavg()[0]),
        "took_s": time.perf_counter() - began_s,
        "settings": {
            "generator": options.generator,
            **{name: getattr(session, name) for name in ("connections", "rounds", "seconds", "warm_up")},
            "price": {"put": options.price_put, "list": options.price_put, "get": options.price_get}
            | {"source": PRICE_SOURCE},
        },
        "missing": session.missing,
        "parts": parts,
        "failed": failed,
        "errors": sum(row["errors"] for row in rows) + sum(part.get("errors", 0) for part in parts.values()),
        "damaged": sum(part.get("damaged", 0) for part in parts.values()),
    }


def write(options: argparse.Namespace, data: dict[str, Any]) -> None:
    """The files that were asked for."""
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    folder = options.report or options.onto
    if options.save:
        folder = RESULTS / f"{data['time'][:10]}-{data['commit'].rstrip('+')}"
    if folder is None:
        return
    from bench import plots  # Only here: whoever draws nothing needs no library for it.

    folder.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for name, picture in plots.draw(data).items():
        pictures[name] = f"{name}.svg"
        (folder / pictures[name]).write_bytes(picture)
    (folder / "report.md").write_text(report.markdown(data, pictures), encoding="utf-8")
    # For programs; people read the report.
    (folder / "result.json").write_text(json.dumps(data, separators=(",", ":")) + "\n", encoding="utf-8")
    say(f"written: {folder}")


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

    def text(name: str, default: str, text: str) -> None:
        parser.add_argument(f"-{name}", default=default, metavar="TEXT", help=text)

    parser.add_argument(
        "-parts",
        type=_parts,
        default=list(SHORT),
        metavar="NAMES",
        help=f"what to measure, or all: {', '.join(PARTS)} ({','.join(SHORT)})",
    )
    parser.add_argument("-without", type=_parts, default=[], metavar="NAMES", help="what of it to leave out")
    number("rounds", 5, "rounds")
    parser.add_argument(
        "-seconds",
        type=_seconds,
        default=2.0,
        metavar="N",
        help="length of one workload in one round; a third of it for the long tables (2)",
    )
    parser.add_argument(
        "-warm-up",
        type=_seconds,
        default=1.0,
        metavar="N",
        help="seconds of each workload before the first round; wrk runs for whole ones (1)",
    )
    number("connections", 64, "HTTP connections, each with one request under way")
    number("cpus", 2, "processors that everything shares, the generator included")
    number("entities", 1_000_000, "how many are many", least=1000)
    number("requests", 1_000_000, "requests while the memory is watched")
    parser.add_argument(
        "-generator",
        choices=("wrk", "loop"),
        default="wrk",
        help="what makes the load: wrk, or a loop in Python for smoke tests (wrk)",
    )
    parser.add_argument(
        "-tools",
        choices=("all", "none"),
        default="all",
        help="compare with all that is installed, or with nothing but what Python brings (all)",
    )
    parser.add_argument(
        "-folder",
        type=Path,
        metavar="DIR",
        help="where the temporary folder goes: the disk under test",
    )
    text("s3-endpoint", "", "URL of another S3 server to measure in part s3")
    text("s3-name", "S3", "its name in the report (S3)")
    text("s3-bucket", "deltadb-bench", "beginning of the names of the buckets made there (deltadb-bench)")
    text("s3-region", "us-east-1", "its region (us-east-1)")
    text("s3-access-key", "", "who may make buckets there")
    text("s3-secret-key", os.environ.get("S3_SECRET_KEY", ""), "the same; or S3_SECRET_KEY")
    parser.add_argument("-price-put", type=float, default=0.005, metavar="USD", help="of 1000 puts (0.005)")
    parser.add_argument("-price-get", type=float, default=0.0004, metavar="USD", help="of 1000 gets (0.0004)")
    parser.add_argument("-json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument("-report", type=Path, metavar="DIR", help="write report, result and pictures there")
    parser.add_argument(
        "-onto", type=Path, metavar="DIR", help="add the parts to the report of an earlier run, in place"
    )
    parser.add_argument("-save", action="store_true", help="write them under bench/results/")
    # As in the programs, --name is -name.
    options = parser.parse_args([given[given.startswith("--") :] for given in arguments])
    options.parts = [name for name in options.parts if name not in options.without]
    return options


def _parts(text: str) -> list[str]:
    names = list(PARTS) if text == "all" else text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(unknown)}")
    return names


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("must be a number of seconds, an hour at most")
    return seconds


def _at_least(least: int, text: str) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} on")
    return int(text)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
