"""The only place that reads a clock or draws randomness; both arrive elsewhere as arguments."""

from __future__ import annotations

import io
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_DRAWN_BYTES: Final = 4096
_LAST_MS: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


class Clock(Protocol):
    """Time, as the system sees it."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


class Random(Protocol):
    """Source of unpredictable bytes."""

    def __call__(self, size: int, /) -> bytes:
        """Return ``size`` bytes."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    # The function itself: it is asked a dozen times for each request.
    monotonic_s = staticmethod(time.monotonic)


class SystemRandom:
    """The operating system's randomness, drawn in pieces of a few kilobytes.

    A system call for each salt would let go of the interpreter's lock, and a request then waits
    until another thread gives it back. No byte is handed out twice, to whatever thread or process.
    """

    def __init__(self) -> None:
        self._drawn = io.BytesIO()
        os.register_at_fork(after_in_child=self._draw)

    def __call__(self, size: int, /) -> bytes:
        if size > _DRAWN_BYTES:
            return os.urandom(size)
        # One call both takes the bytes and moves on, so that threads cannot get the same ones.
        while len(taken := self._drawn.read(size)) < size:
            self._draw()
        return taken

    def _draw(self) -> None:
        self._drawn = io.BytesIO(os.urandom(_DRAWN_BYTES))


system_random: Random = SystemRandom()


def rfc3339(wall_ms: int) -> str:
    """A wall-clock time as RFC 3339 text in UTC, with milliseconds.

    That has years of four digits: what is stored for a time beyond them, after damage or by a
    clock gone wild, is shown as the first or the last moment that can be written.
    """
    moment = _EPOCH + timedelta(milliseconds=min(max(wall_ms, _FIRST_MS), _LAST_MS))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
