"""Time limits for the hot path: many at once for the price of one timer.

``asyncio.timeout`` starts and stops a timer of the event loop for each request, and hardly one of
them ever rings. Here a limit is an entry in a dictionary, looked at a few times a second.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

TICK_S: Final = 0.05
"""So much later than asked for a limit may be noticed."""


class Deadlines:
    """Limits of one event loop, in which it is used."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[float, Callable[[], object]]] = {}
        self._numbers = itertools.count()
        self._ticking = False

    def add(self, seconds: float, passed: Callable[[], object]) -> int:
        """Have ``passed`` called once in so many seconds, or up to ``TICK_S`` later; returns its number."""
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        self._waiting[number] = (loop.time() + seconds, passed)
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK_S, self._tick, loop)
        return number

    def remove(self, number: int) -> None:
        """Forget a limit; it may have passed."""
        self._waiting.pop(number, None)

    def pass_all(self) -> None:
        """Let every limit pass now."""
        waiting, self._waiting = self._waiting, {}
        for _, passed in waiting.values():
            passed()

    def within(self, seconds: float) -> Limit:
        """Limit what a task does in a ``with`` block, as ``asyncio.timeout`` does."""
        return Limit(self, seconds)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        for number in [number for number, (at_s, _) in self._waiting.items() if at_s <= now_s]:
            # One that has passed may take others with it.
            _, passed = self._waiting.pop(number, (0.0, _nothing))
            passed()
        self._ticking = bool(self._waiting)
        if self._ticking:
            loop.call_later(TICK_S, self._tick, loop)


class Limit:
    """A ``with`` block that raises ``TimeoutError`` when its time is over. Made by ``Deadlines.within``."""

    __slots__ = ("_cancelling", "_deadlines", "_number", "_seconds", "_task", "passed")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        #: Its time was over before the block ended.
        self.passed = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._number = self._deadlines.add(self._seconds, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.remove(self._number)
        # Somebody else may have cancelled the task at the same time: that goes on.
        if (
            self.passed
            and self._task.uncancel() <= self._cancelling
            and kind is not None
            and issubclass(kind, asyncio.CancelledError)
        ):
            raise TimeoutError from error

    def _pass(self) -> None:
        self.passed = True
        self._task.cancel()


def _nothing() -> None:
    pass
