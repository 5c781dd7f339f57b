"""How long a long-running transfer tries again what cannot be served at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from deltadatabase.clock import Clock
from deltadatabase.errors import DeltaError, NotOwner, OutcomeUnknown, Overloaded, Unavailable
from deltadatabase.limits import (
    IMPORT_PATIENCE_S,
    IMPORT_TRIES_MAX,
    RETRY_PAUSE_FIRST_S,
    RETRY_PAUSE_LAST_S,
)

T = TypeVar("T")

_PASSING: Final = (Unavailable, Overloaded, NotOwner, OutcomeUnknown)
"""What time may cure. ``OutcomeUnknown`` among them: callers repeat only what may be repeated."""


class Patience:
    """Tries calls again as long as others of the same transfer succeed, or a bounded time past that.

    Time counts from the last answer of any call: a store that is down is waited for once, not for
    each of a million lines.

    Args:
        clock: monotonic time.
        patience_s: how long none may succeed.
        pause_s: before the first repeat; doubled up to ``limits.RETRY_PAUSE_LAST_S``.
    """

    def __init__(
        self, clock: Clock, patience_s: float = IMPORT_PATIENCE_S, pause_s: float = RETRY_PAUSE_FIRST_S
    ) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._pause_s = pause_s
        self._answered_s = clock.monotonic_s()

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of ``attempt``, which may be awaited many times.

        Raises:
            DeltaError: its own, once it is none that time may cure or time is up.
        """
        pause_s = self._pause_s
        for _ in range(IMPORT_TRIES_MAX - 1):
            try:
                result = await attempt()
            except _PASSING:
                if self._clock.monotonic_s() - self._answered_s > self._patience_s:
                    raise
            except DeltaError:
                self._answered_s = self._clock.monotonic_s()
                raise
            else:
                self._answered_s = self._clock.monotonic_s()
                return result
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_PAUSE_LAST_S)
        return await attempt()
