"""``just chaos``: real processes, a real store, faults, and whether anybody could notice."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import uvloop

from chaos.planted import PLANTS
from chaos.report import figures, table, verdict, write_evidence
from chaos.run import RATE_MIN, Options, Record, run
from chaos.schedule import MEANING, kinds_of

EXIT_CODES: Final = {"passed": 0, "failed": 1, "INVALID": 3}

_DESCRIPTION: Final = """\
Break a running DeltaDatabase, again and again, and see whether a client can notice.

A main worker, proc workers and, with -store s3, a SeaweedFS run as processes on loopback;
between workers and SeaweedFS is a proxy that loses, delays, repeats and forges what passes.
Clients write, read and delete through REST all the time, and everything that they see is
recorded. Faults come one after the other from a seeded schedule. At the end every key is read
once more, and the record is judged: does it contradict itself, is an acknowledged write gone?

  just chaos -minutes 10 -store s3           every fault on S3
  just chaos -minutes 5 -store directory     the same on a shared directory
  just chaos -planned -minutes 2             joins, leaves, rolling restarts: no request may fail
  just chaos -plant blind-put -store s3      workers with a bug, to see that it is found
"""

_EPILOG: Final = f"""\
exit codes: 0 passed, 1 something is wrong, 2 bad arguments, 3 INVALID: before some fault less than
{RATE_MIN:.0f} operations a second went through, so that the run proves nothing.

Where something is wrong, the logs, the history and the contradictions are kept in a folder.
"""


def main() -> int:
    """Run it; return the exit code."""
    asked = _parser().parse_args()
    if (faults := _faults(asked)) is None:
        return 2
    options = Options(
        store=asked.store,
        seconds=asked.minutes * 60,
        seed=asked.seed if asked.seed is not None else time.time_ns() % 1_000_000,
        workers=max(2, asked.workers),
        clients=asked.clients,
        rate=asked.rate,
        faults=faults,
        planned=asked.planned,
        plant=asked.plant,
    )
    # So that whoever ends this program also ends what it has started and mounted.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="deltadb-chaos-"))
    keep = True
    try:
        record: Record = uvloop.run(run(options, folder, _say))
        keep = verdict(record) != "passed"
        if keep:
            write_evidence(record, folder)
    except KeyboardInterrupt:
        return 130
    finally:
        _clear_line()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs are kept: {folder}", file=sys.stderr)
    print(table(record))
    for sentence in record.violations[:10]:
        print(sentence)
    if asked.json:
        Path(asked.json).write_text(json.dumps(figures(record), indent=2) + "\n")
    return EXIT_CODES[verdict(record)]


def _parser() -> argparse.ArgumentParser:
    plants = {name: (plant.__doc__ or "").rstrip(".") for name, (plant, _) in PLANTS.items()}
    parser = argparse.ArgumentParser(
        prog="just chaos",
        description=_DESCRIPTION,
        epilog=f"{_EPILOG}\nfaults:\n{_listed(MEANING)}\nbugs for -plant:\n{_listed(plants)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-minutes", type=float, default=2.0, help="how long faults are made (2)")
    parser.add_argument("-store", choices=("s3", "directory"), default="s3", help="s3 is a SeaweedFS (s3)")
    parser.add_argument("-seed", type=int, help="of faults and clients; without it a new one, which is shown")
    parser.add_argument("-workers", type=int, default=3, help="proc workers at first, from 2 on (3)")
    parser.add_argument("-clients", type=int, default=24, help="at work at the same time (24)")
    parser.add_argument("-rate", type=float, default=300.0, help="operations a second, of all together (300)")
    parser.add_argument("-faults", default="", help="only these kinds, with commas between (all)")
    parser.add_argument("-planned", action="store_true", help="1 to 4 workers, a rolling restart, back to 1")
    parser.add_argument(
        "-plant",
        choices=tuple(PLANTS),
        default="",
        metavar="BUG",
        help="give the workers a bug; the run ends when it is found",
    )
    parser.add_argument("-json", metavar="FILE", help="write the figures there, too")
    return parser


def _listed(explained: Mapping[str, str]) -> str:
    return "".join(f"  {name:24} {text}\n" for name, text in explained.items())


def _faults(asked: argparse.Namespace) -> tuple[str, ...] | None:
    """The kinds that are asked for, or that bring the planted bug out; None after a complaint."""
    faults = tuple(filter(None, asked.faults.split(",")))
    known = kinds_of(asked.store, own_disk=True)
    if unknown := [kind for kind in faults if kind not in known]:
        print(
            f"just chaos: not a fault of -store {asked.store}: {', '.join(unknown)} (-h lists all)",
            file=sys.stderr,
        )
        return None
    if asked.plant and not faults:
        _, by_store = PLANTS[asked.plant]
        if asked.store not in by_store:
            print(f"just chaos: this bug is for -store {' or '.join(by_store)}", file=sys.stderr)
            return None
        faults = by_store[asked.store]
    return faults


def _say(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _clear_line() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
