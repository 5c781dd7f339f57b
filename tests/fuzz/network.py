"""``just fuzz-sockets``: real processes under requests and messages; exit code 1 if anything is wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from fuzz import grpc_main, grpc_proc, openapi, sockets
from fuzz.engine import shared_memory
from fuzz.plants import SERVED, planted_programs
from fuzz.verdicts import Tally

HARNESSES: dict[str, tuple[float, Callable[..., tuple[Tally, float]]]] = {
    "http": (0.6, sockets.fuzz_http),
    "grpc-main": (0.15, grpc_main.fuzz_main),
    "grpc-proc": (0.25, grpc_proc.fuzz_proc),
}
"""Each with its share of the requests."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="just fuzz-sockets",
        description="Start real programs, send them requests and messages, half-valid and malformed, and see "
        "whether they answer, live on and stay small. Schemathesis comes last.",
    )
    parser.add_argument(
        "-requests", type=int, default=100_000, help="over raw sockets, all together (100000)"
    )
    parser.add_argument("-examples", type=int, default=60, help="of Schemathesis, for each operation (60)")
    parser.add_argument("-only", choices=[*HARNESSES, "openapi"], action="append", help="may be repeated")
    parser.add_argument("-seed", type=int, default=0, help="of everything that is drawn (0)")
    parser.add_argument("-plant", choices=[*SERVED], default="", help="a bug to be found")
    return parser.parse_args()


def main() -> int:
    """Run what is asked for; return the exit code."""
    asked = _arguments()
    wrong = 0
    for name in asked.only or [*HARNESSES, "openapi"]:
        with (
            tempfile.TemporaryDirectory(dir=shared_memory()) as folder,
            planted_programs(Path(folder), asked.plant) as started,
        ):
            if name == "openapi":
                tally, seconds = openapi.fuzz_openapi(started, Path(folder), asked.examples, asked.seed)
            else:
                share, fuzz = HARNESSES[name]
                tally, seconds = fuzz(started, Path(folder), int(asked.requests * share), asked.seed)
        print(f"{name}: {tally.summary(seconds)}", flush=True)
        wrong += len(tally.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
