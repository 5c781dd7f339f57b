from __future__ import annotations

from deltadatabase.auth.throttle import FAILURES_MAX, SOURCES_MAX, WINDOW_S, FailureThrottle


def test_the_limit_holds_within_the_window_only() -> None:
    throttle = FailureThrottle()
    for second in range(FAILURES_MAX):
        assert throttle.wait_s(["a"], float(second)) == 0
        throttle.add(["a"], float(second))
    now_s = float(FAILURES_MAX)
    assert throttle.wait_s(["a"], now_s) == WINDOW_S - now_s
    assert throttle.wait_s(["b"], now_s) == 0
    assert throttle.wait_s(["b", "a"], now_s) > 0
    assert throttle.wait_s(["a"], WINDOW_S) == 0
    throttle.add(["a"], WINDOW_S)
    assert throttle.wait_s(["a"], WINDOW_S) == 1.0


def test_memory_is_bounded_and_the_oldest_source_goes_first() -> None:
    throttle = FailureThrottle()
    for _ in range(FAILURES_MAX):
        throttle.add(["old", "busy"], 0.0)
    for number in range(SOURCES_MAX - 1):
        throttle.add([str(number)], 1.0)
        if number == 0:
            throttle.add(["busy"], 1.0)
    assert throttle.wait_s(["old"], 1.0) == 0
    assert throttle.wait_s(["busy"], 1.0) > 0
