"""The simulation passes on the code as it is, and finds each bug that is planted in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from deltadatabase.errors import Unavailable
from deltadatabase.placement.membership import Placement
from sim.blocks import BLOCK, run_block
from sim.history import Operation, violations
from sim.plants import PLANTS
from sim.scenario import FLAPPING, GRAVES, HOT, REPEATING, SHAPES, first_failure, simulate

SEEDS = 20_000
PART = 500
PLANTED_SEEDS = range(3_000)
"""Enough for each planted bug several times over; the search ends at the first."""
SHAPES_FOR_RARE = {
    "cached_under_the_term_of_its_end": (FLAPPING,),
    "refusal_of_a_lost_merge_told": (HOT,),
    "put_recognised_by_its_last_write": (REPEATING,),
}
"""Needs more seeds among all shapes; ``just sim-long`` has them."""


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_no_violation_in_many_seeds(first: int) -> None:
    """In parts, for as many processes as there are: this is most of what the test run takes."""
    done = 0
    for start in range(first, first + PART, BLOCK):
        total, wrong = run_block(start)
        assert not wrong, wrong
        done += total.seeds
    assert done == PART


def test_the_command_line_runs_the_seeds_that_it_is_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sim", "-first", "100", "-seeds", "200", "-jobs", "2"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "200 seeds up to 299," in done.stdout
    assert "0 violations" in done.stdout


def test_every_shape_does_what_it_is_for() -> None:
    outcomes = [simulate(seed) for seed in range(80)]
    operations = [operation for outcome in outcomes for operation in outcome.history]
    assert sum(outcome.merged for outcome in outcomes) > 50
    assert sum(outcome.removed for outcome in outcomes) > 5
    assert sum(outcome.resealed for outcome in outcomes) > 10
    for kind in ("put", "get", "delete", "seen"):
        assert sum(op.kind == kind and op.outcome == "ok" for op in operations) > 100
    assert sum(op.outcome == "unknown" for op in operations) > 30
    assert sum(op.after is not None and op.outcome == "ok" for op in operations) > 50
    assert sum(len(op.chain) > 3 for op in operations) > 20
    assert sum(outcome.repeated for outcome in outcomes) > 20


@pytest.mark.parametrize("name", PLANTS)
@pytest.mark.filterwarnings("ignore")
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTS[name](monkeypatch)
    found = first_failure(PLANTED_SEEDS, SHAPES_FOR_RARE.get(name, SHAPES))
    assert found is not None
    print(f"{name}: seed {found[0]}: {found[1].wrong[0]}")


def test_epochs_may_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards then wait without an owner, and the next block is reserved meanwhile."""
    monkeypatch.setattr("deltadatabase.gateway.members.EPOCH_BLOCK", 4)
    monkeypatch.setattr("deltadatabase.gateway.moves.EPOCHS_LOW", 2)
    apply, refused = Placement.apply, 0

    def counted(self: Placement, shards: Iterable[int]) -> list[int]:
        nonlocal refused
        try:
            return apply(self, shards)
        except Unavailable:
            refused += 1
            raise

    monkeypatch.setattr(Placement, "apply", counted)
    assert first_failure(range(100)) is None
    assert refused > 50


def test_tombstones_need_their_age() -> None:
    """Longer than any put can be late is enough; none at all is not."""
    shape = replace(
        GRAVES, keys=1, operations=30, think_s=0.15, kinds=(4, 2, 4, 1), late_s=4.0, event_s=0.4,
        tombstone_age_s=9.0,
    )  # fmt: skip
    assert first_failure(range(100), (shape,)) is None
    assert first_failure(range(600), (replace(shape, tombstone_age_s=0.0),)) is not None


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        ([("put", b"1", 0, 1, 1), ("put", b"2", 2, 3, 1)], "two writes got version 1"),
        ([("put", b"1", 0, 1, 1), ("get", b"2", 2, 3, 1)], "never written"),
        ([("put", b"1", 0, 1, 1), ("put", b"2", 2, 3, 2), ("get", b"1", 4, 5, 1)], "older than"),
        ([("put", b"1", 0, 1, 1), ("get", None, 2, 3, 0)], "missing"),
        ([("put", b"2", 0, 1, 2), ("put", b"1", 2, 3, 1)], "taken before it began"),
        ([("get", b"1", 0, 1, 1), ("put", b"1", 2, 3, 1)], "later write"),
        ([("put", b"1", 0, 1, 1), ("put", b"2", 2, 3, 3)], "1 versions up to 3 are missing"),
        ([("put", b"1", 0, 1, 1), ("delete", None, 2, 3, 0), ("get", b"1", 4, 5, 1)], "came back"),
        ([("put", b"1", 0, 1, 1), ("put", b"2", 2, 3, 2), ("seen", None, 4, 5, 1)], "older than"),
        ([("put", b"1", 0, 1, 1), ("get", b"1", 2, 3, 1), ("get", b"1", 4, 5, 2)], "two versions"),
        (
            [
                ("put", b"1", 0, 1, 1),
                ("delete", None, 1, 2, 0),
                ("put", b"2", 3, 4, 3),
                ("get", None, 5, 6, 0),
            ],
            "missing",
        ),
    ],
)
def test_the_checker_sees(operations: list[tuple[str, bytes | None, int, int, int]], says: str) -> None:
    history = [
        Operation(0, "k", kind, value, begin, end, version, "ok")
        for kind, value, begin, end, version in operations
    ]
    assert says in "".join(violations(history))


@pytest.mark.parametrize(
    ("after", "version", "says"), [(1, 3, "another version"), (0, 2, "did not want"), (1, 2, ""), (2, 3, "")]
)
def test_the_checker_judges_conditional_writes(after: int, version: int, says: str) -> None:
    history = [
        Operation(0, "k", "put", b"1", 0, 1, 1, "ok"),
        Operation(1, "k", "put", b"x", 1.5, None, 0, "unknown"),
        Operation(0, "k", "put", b"2", 2, 3, version, "ok", after=after),
    ]
    assert says in "".join(violations(history))
    assert bool(says) == bool(violations(history))


@pytest.mark.parametrize(
    ("version", "chain", "right"),
    [
        (3, (b"1", b"2", b"3"), True),
        (2, (b"1", b"2"), True),
        (3, (b"1", b"3"), False),
        (3, (b"1", b"3", b"2"), False),
        (4, (b"1", b"2", b"3", b"4"), True),
        (4, (b"1", b"2", b"3", b"3"), False),
        (4, (b"4",), True),
        (4, (b"2", b"3", b"4", b"5"), False),
    ],
)
def test_the_checker_judges_patches(version: int, chain: tuple[bytes, ...], right: bool) -> None:
    history = [
        *(Operation(0, "k", "put", b"%d" % n, n, n + 0.5, n, "ok") for n in (1, 2, 3)),
        *(Operation(1, "k", "put", b"%d" % n, 3.5, None, 0, "unknown") for n in (4, 5)),
        Operation(2, "k", "get", chain[-1], 5 if version > 2 else 2.1, 6, version, "ok", chain=chain),
    ]
    assert ("is not what the writes" not in "".join(violations(history))) == right


def test_the_checker_lets_pass_what_one_copy_could_show() -> None:
    history = [
        Operation(0, "k", "put", b"1", 0, 1, 1, "ok"),
        Operation(1, "k", "put", b"2", 0.5, None, 0, "unknown"),
        Operation(2, "k", "get", b"2", 2, 3, 2, "ok"),
        Operation(0, "k", "delete", None, 4, 5, 3, "ok"),
        Operation(2, "k", "get", None, 6, 7, 0, "ok"),
        Operation(1, "k", "put", b"3", 6, None, 0, "refused"),
        Operation(0, "k", "delete", None, 8, 9, 0, "ok"),
    ]
    assert violations(history) == []


def test_a_delete_without_a_version_explains_what_it_can() -> None:
    history = [
        Operation(0, "k", "put", b"1", 0, 1, 1, "ok"),
        Operation(0, "k", "delete", None, 2, 3, 0, "ok"),
        Operation(2, "k", "get", None, 2.5, 2.8, 0, "ok"),
        Operation(1, "k", "put", b"3", 4, 5, 3, "ok"),
        Operation(1, "k", "delete", None, 4.5, 6, 0, "ok"),
        Operation(2, "k", "get", None, 7, 8, 0, "ok"),
    ]
    assert violations(history) == []


def test_many_operations_are_judged_in_little_time() -> None:
    """Not timed: a quadratic checker would not end here."""
    history = [Operation(0, "k", "put", str(n).encode(), n, n + 0.5, n, "ok") for n in range(1, 100_000)]
    history += [
        Operation(1, "k", "get", str(n).encode(), n + 0.6, n + 0.9, n, "ok") for n in range(1, 100_000)
    ]
    assert violations(history) == []


def test_one_seed_is_one_history() -> None:
    for shape in SHAPES:
        for seed in range(6):
            first, second = simulate(seed, (shape,)), simulate(seed, (shape,))
            assert list(map(str, first.history)) == list(map(str, second.history))
