"""``just sim``: many seeds on all cores; a failing one is printed with its history."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from multiprocessing.pool import AsyncResult
from pathlib import Path

from sim.blocks import BLOCK, Total, run_block


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="just sim",
        description="Run the router, the members and the workers in virtual time under seeded faults, and "
        "check that clients could not tell them from one copy of the data. A seed that fails is printed "
        "with its whole history, exit code 1; run it alone with -first SEED -seeds 1.",
    )
    parser.add_argument("-seeds", type=int, default=1_000, help="how many, rounded up to blocks of 50 (1000)")
    parser.add_argument("-first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("-minutes", type=float, help="as many seeds as run in so many minutes, instead")
    parser.add_argument("-jobs", type=int, default=os.cpu_count() or 1, help="processes (one a core)")
    parser.add_argument("-resume", type=Path, metavar="FILE", help="go on where the run kept in FILE ended")
    return parser.parse_args()


def main() -> int:
    """Run the seeds asked for; return the exit code."""
    asked = _arguments()
    total = Total(next=asked.first)
    if asked.resume is not None and asked.resume.exists():
        total = Total(**json.loads(asked.resume.read_text()))
        print(f"resuming at seed {total.next}, {total.seeds} seeds done", file=sys.stderr)
    before, begun = total.seconds, time.monotonic()
    end = sys.maxsize if asked.minutes else total.next + asked.seeds
    stop = begun + asked.minutes * 60 if asked.minutes else float("inf")
    ahead = 4 * asked.jobs
    with multiprocessing.get_context("spawn").Pool(asked.jobs) as pool:
        # A few ahead for each process, so that the end comes soon after the time is up.
        blocks: deque[AsyncResult[tuple[Total, str]]] = deque()
        starts = _starts(total.next, end, stop)
        while True:
            blocks += [pool.apply_async(run_block, (at,)) for at in islice(starts, ahead - len(blocks))]
            if not blocks:
                break
            done, wrong = blocks.popleft().get()
            total.next += BLOCK
            total.seeds += done.seeds
            total.operations += done.operations
            total.merged += done.merged
            total.removed += done.removed
            total.seconds = before + time.monotonic() - begun
            if wrong:
                print(wrong)
                return 1
            if asked.resume is not None:
                asked.resume.write_text(json.dumps(asdict(total)))
            if sys.stderr.isatty():
                print(f"\r{total.seeds} seeds, next {total.next}", end="", file=sys.stderr)
    print(
        f"{total.seeds} seeds up to {total.next - 1}, {total.operations} operations, {total.merged} merged "
        f"puts, {total.removed} tombstones removed, 0 violations, {total.seeds / total.seconds:.0f} seeds/s"
    )
    return 0


def _starts(first: int, end: int, stop: float) -> Iterator[int]:
    """First seeds of blocks; no more are handed out once the time is up."""
    while first < end and time.monotonic() < stop:
        yield first
        first += BLOCK


if __name__ == "__main__":
    sys.exit(main())
