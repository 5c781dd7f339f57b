"""What every server program does alike: run until a signal."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Final

import uvloop

from deltadatabase.clock import SystemClock
from deltadatabase.settings import Address
from deltadatabase.telemetry.logging import get_logger, toggle_debug

GC_THRESHOLDS: Final = (10_000, 20, 50)

log = get_logger(__name__)
clock = SystemClock()


def run(program: Callable[[asyncio.Event], Coroutine[None, None, None]]) -> int:
    """Run a program until it ends by itself or SIGTERM or SIGINT sets its event; return 0.

    SIGUSR1 switches the log level to ``debug``, and back.

    Raises:
        StartupError: the program's own.
    """

    async def main() -> None:
        _spare_the_collector()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGUSR1, _toggle_debug)
        await program(stop)

    uvloop.run(main())
    return 0


def _toggle_debug() -> None:
    level = toggle_debug()
    log.warning("the log level was changed by a signal", log_level=level)


def _spare_the_collector() -> None:
    """Keep the garbage collector from walking over what lives as long as the process.

    Requests make few cycles; with the defaults a noticeable part of each request's time went into
    looking at modules and caches again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def address_text(address: Address) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
