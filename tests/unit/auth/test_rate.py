from __future__ import annotations

import pytest

from deltadatabase.auth.rate import RateLimit


def served(limit: RateLimit, now_s: float, tries: int) -> int:
    return sum(limit.take(now_s) == 0 for _ in range(tries))


@pytest.mark.parametrize("rate", [1, 2, 7, 1000, 100_000])
def test_a_seconds_worth_at_once_and_then_the_rate(rate):
    limit = RateLimit(rate)
    assert served(limit, 100.0, 2 * rate) == rate
    assert served(limit, 100.5, 2 * rate) == rate // 2
    assert served(limit, 10_000.0, 3 * rate) == rate


def test_over_a_long_time_the_rate_is_exact():
    limit = RateLimit(10)
    assert sum(served(limit, step / 1000, 1) for step in range(60_000)) == pytest.approx(610, abs=2)


def test_the_wait_that_is_named_is_enough_and_not_too_long():
    limit = RateLimit(4)
    assert served(limit, 0.0, 4) == 4
    wait_s = limit.take(0.0)
    assert wait_s == pytest.approx(0.25)
    assert limit.take(wait_s - 0.01) > 0
    assert limit.take(wait_s) == 0
