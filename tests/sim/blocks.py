"""Seeds in blocks, for processes of their own: these cannot import what is in ``__main__``."""

from __future__ import annotations

from dataclasses import dataclass

from sim.scenario import simulate

BLOCK = 50


@dataclass
class Total:
    """What was done so far, in this run and those that it resumes; ``next`` is the first seed not done."""

    next: int = 0
    seeds: int = 0
    operations: int = 0
    merged: int = 0
    removed: int = 0
    seconds: float = 0.0


def run_block(first: int) -> tuple[Total, str]:
    """Run one block of seeds; return its counts, and what is wrong with its first failing seed."""
    total = Total()
    for seed in range(first, first + BLOCK):
        outcome = simulate(seed)
        total.seeds += 1
        total.operations += len(outcome.history)
        total.merged += outcome.merged
        total.removed += outcome.removed
        if outcome.wrong:
            lines = [f"seed {seed} fails:", *outcome.wrong, "history:", *map(str, outcome.history)]
            return total, "\n".join(lines)
    return total, ""
