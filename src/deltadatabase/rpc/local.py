"""The link to a worker in the same process: no messages, the same deadlines and errors."""

from __future__ import annotations

import asyncio

from deltadatabase import limits
from deltadatabase.deadlines import Deadlines
from deltadatabase.errors import DeltaError
from deltadatabase.model import Command, Result
from deltadatabase.rpc import link
from deltadatabase.rpc.link import Handler


class LocalLink:
    """A ``Link`` to ``handler`` itself. Must be made in the event loop that uses it.

    Commands run in their callers' tasks: closing cancels them all, and only what the
    handler shields runs on.
    """

    local = True

    def __init__(self, handler: Handler) -> None:
        self.lost = asyncio.Event()
        self._handler = handler
        self._deadlines = Deadlines()
        self._in_flight = 0
        self._pending_bytes = 0

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def queued(self) -> int:
        return 0

    def cached(self, command: Command) -> Result | None:
        if self.lost.is_set() or self._in_flight >= limits.STREAM_IN_FLIGHT_MAX:
            return None
        return self._fast(command)

    async def call(self, command: Command) -> Result:
        if self.lost.is_set():
            raise link.link_down()
        if command.timeout_ms <= 0:
            raise link.timed_out(command.op, sent=False)
        size = len(command.document)
        if (
            self._in_flight >= limits.STREAM_IN_FLIGHT_MAX
            or self._pending_bytes + size > limits.STREAM_IN_FLIGHT_BYTES_MAX
        ):
            raise link.overloaded()
        result = self._fast(command)
        return result if result is not None else await self._execute(command, size)

    def _fast(self, command: Command) -> Result | None:
        try:
            return self._handler.fast(command)
        except DeltaError:
            raise
        except Exception as exc:  # noqa: BLE001  # a handler's mistake is an answer
            raise link.internal(exc, command.request_id) from None

    async def _execute(self, command: Command, size: int) -> Result:
        deadline = self._deadlines.within(command.timeout_ms / 1000)
        self._in_flight += 1
        self._pending_bytes += size
        try:
            with deadline:
                return await self._handler.execute(command)
        except DeltaError:
            raise
        except Exception as exc:  # noqa: BLE001  # a handler's mistake is an answer
            if not deadline.passed:
                raise link.internal(exc, command.request_id) from None
            if self.lost.is_set():
                raise link.link_lost() from None
            raise link.timed_out(command.op, sent=True) from None
        finally:
            self._in_flight -= 1
            self._pending_bytes -= size

    async def close(self) -> None:
        self.lost.set()
        self._deadlines.pass_all()
