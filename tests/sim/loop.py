"""An event loop whose time is virtual: nothing waits, everything happens in a seeded order."""

from __future__ import annotations

import asyncio
import logging
import selectors
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import structlog


class _NoWait(selectors.BaseSelector):
    """Stands in for the operating system: nothing ever arrives from outside."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._map: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(
            fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data
        )
        self._map[key.fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._map.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits for something that never happens")
        self._loop.now_s += max(timeout, 0.0)
        return []

    def get_map(self) -> Any:
        return self._map


class SimLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer as soon as nothing is left to do."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        super().__init__(_NoWait(self))

    def time(self) -> float:
        return self.now_s


@contextmanager
def _silent() -> Iterator[None]:
    """Nobody reads the log of a simulated hour, and writing it takes most of the time."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run ``main`` in virtual time to its end, and cancel whatever it left behind."""
    with _silent():
        return _run(main)


def _run(main: Coroutine[Any, Any, Any]) -> Any:
    loop = SimLoop()
    try:
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(main)
        finally:
            # More than once: what is cancelled may begin something to clean up.
            for _ in range(3):
                left = asyncio.all_tasks(loop)
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
