"""What repeated measurements say: medians with their range, and ratios within a round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """The middle and the ends of some measurements.

    Attributes:
        median: the middle one.
        low: the least.
        high: the greatest.
    """

    median: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Distance between the ends as a part of the median: how noisy it was."""
        return (self.high - self.low) / self.median if self.median else 0.0


def spread(values: Sequence[float]) -> Spread:
    """Median and range of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(values: Sequence[float], baselines: Sequence[float]) -> Spread:
    """Spread of ``value / baseline`` of each round.

    A slow moment of the machine hits both halves of a round, so this is steadier than
    the ratio of the medians.
    """
    return spread(
        [value / baseline if baseline else 0.0 for value, baseline in zip(values, baselines, strict=True)]
    )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The value below which ``percent`` of the ascending, non-empty ``ordered`` lie."""
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
