"""``just fuzz``: run the targets in turn; exit code 1 and a file with the input on a finding."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import structlog

from fuzz.engine import Blackbox, Finding, Fuzzer, resident_bytes, shared_memory
from fuzz.plants import PLANTS, planted
from fuzz.targets import TARGETS

SLICE = 500
ADDRESS_SPACE_BYTES = 6 << 30
"""What asks for more than that fails in here, instead of the machine."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="just fuzz",
        description="Hand changed inputs to every parser that faces a network or a stored object. A finding "
        "is written to a file; run it alone with -target NAME -reproduce FILE.",
    )
    parser.add_argument("-minutes", type=float, help="how long, instead of a number of executions")
    parser.add_argument("-iterations", type=int, default=100_000, help="executions of all targets (100000)")
    parser.add_argument("-target", choices=[*TARGETS], action="append", help="only this one; may be repeated")
    parser.add_argument("-seed", type=int, default=0, help="of everything that is drawn (0)")
    parser.add_argument("-folder", type=Path, default=Path("build/fuzz"), help="findings (build/fuzz)")
    parser.add_argument(
        "-keep-going", action="store_true", help="drop a target after its finding, run the others"
    )
    parser.add_argument("-reproduce", type=Path, metavar="FILE", help="run one input of one target")
    parser.add_argument("-plant", choices=[*PLANTS], help="a bug to be found")
    return parser.parse_args()


def main() -> int:
    """Run what is asked for; return the exit code."""
    asked = _arguments()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, most))
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    names = asked.target or [*TARGETS]
    with (
        tempfile.TemporaryDirectory(dir=shared_memory()) as folder,
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(planted(asked.plant))
        fuzzers = []
        for name in names:
            own = Path(folder) / name
            own.mkdir()
            target = TARGETS[name](own)
            stack.callback(target.close)
            blackbox = Blackbox(asked.folder / f"under-way-{name}-{os.getpid()}")
            stack.callback(blackbox.close)
            fuzzers.append(Fuzzer(target, asked.seed, blackbox))
        if asked.reproduce is not None:
            fuzzers[0].target.check(asked.reproduce.read_bytes())
            print("nothing is wrong with it")
            return 0
        return _run(fuzzers, asked)


def _run(fuzzers: list[Fuzzer], asked: argparse.Namespace) -> int:
    begun = time.monotonic()
    until = begun + asked.minutes * 60 if asked.minutes else float("inf")
    left = sys.maxsize if asked.minutes else asked.iterations
    resident = resident_bytes()
    running, found, shown = [*fuzzers], 0, begun
    while running and left > 0 and time.monotonic() < until:
        # An equal time for each, so that the slow ones do not have it all.
        fuzzer = min(running, key=lambda one: one.seconds)
        try:
            left -= fuzzer.run(min(SLICE, left), until)
        except Finding as finding:
            found += 1
            print(f"FOUND {finding}\n  {finding.save(asked.folder)}", flush=True)
            running.remove(fuzzer)
            if not asked.keep_going:
                break
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            total = sum(one.executions for one in fuzzers)
            print(f"{total} executions, {total / (shown - begun):.0f}/s", file=sys.stderr, flush=True)
    for one in fuzzers:
        rate = one.executions / max(one.seconds, 1e-3)
        print(
            f"{one.target.name:18} {one.executions:9} executions {rate:8.0f}/s "
            f"corpus {len(one.corpus):5} steps {len(one.coverage.seen):5}"
        )
    seconds, total = time.monotonic() - begun, sum(one.executions for one in fuzzers)
    print(
        f"{total} executions of {len(fuzzers)} targets in {seconds:.0f} s, {total / seconds:.0f}/s, "
        f"seed {asked.seed}, {found} findings, resident {resident >> 20} MiB before and "
        f"{resident_bytes() >> 20} MiB after"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
