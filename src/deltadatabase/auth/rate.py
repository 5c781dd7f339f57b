"""A key's own request rate. Pure: time is an argument."""

from __future__ import annotations

from typing import final


@final
class RateLimit:
    """Allows ``rate_per_s`` requests a second, and as many at once after a second without any.

    The generic cell rate algorithm (ITU-T I.371), a token bucket in one number: the time at which
    the bucket would be full again. Its size is ``rate_per_s``.
    """

    __slots__ = ("_burst_s", "_full_s", "_step_s")

    def __init__(self, rate_per_s: int) -> None:
        self._step_s = 1.0 / rate_per_s
        self._burst_s = (rate_per_s - 1) * self._step_s
        self._full_s = float("-inf")

    def take(self, now_s: float) -> float:
        """Count a request: 0 when it may be served, else the seconds until the next may."""
        full_s = max(self._full_s, now_s)
        wait_s = full_s - now_s - self._burst_s
        if wait_s > 1e-9:
            return wait_s
        self._full_s = full_s + self._step_s
        return 0.0
