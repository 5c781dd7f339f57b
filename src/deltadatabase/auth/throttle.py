"""Bounds how many failed attempts a minute each source may make. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final, final

FAILURES_MAX: Final = 20
WINDOW_S: Final = 60.0
#: Sources remembered; the one that failed longest ago is forgotten first.
SOURCES_MAX: Final = 10_000


@final
class FailureThrottle:
    """Remembers each source's failures of the last minute, in bounded memory."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, sources: Iterable[str], now_s: float) -> float:
        """Seconds until all of ``sources`` may fail again; 0 when they may now."""
        return max((self._wait_s(source, now_s) for source in sources), default=0.0)

    def add(self, sources: Iterable[str], now_s: float) -> None:
        """Record a failure that all of ``sources`` share."""
        for source in sources:
            self._failures.setdefault(source, deque(maxlen=FAILURES_MAX)).append(now_s)
            self._failures.move_to_end(source)
        while len(self._failures) > SOURCES_MAX:
            self._failures.popitem(last=False)

    def _wait_s(self, source: str, now_s: float) -> float:
        failures = self._failures.get(source)
        if failures is None or len(failures) < FAILURES_MAX:
            return 0.0
        return max(0.0, failures[0] + WINDOW_S - now_s)
