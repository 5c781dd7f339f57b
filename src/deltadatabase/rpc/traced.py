"""Both ends of a command as spans. Each exists only where traces are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, final

import msgspec

from deltadatabase.model import Command, Result
from deltadatabase.rpc.link import Handler
from deltadatabase.telemetry.tracing import Tracing


class Closable(Protocol):
    """A link to a worker that can be cut."""

    lost: asyncio.Event
    local: bool

    @property
    def queued(self) -> int: ...

    def cached(self, command: Command) -> Result | None: ...

    async def call(self, command: Command) -> Result: ...

    def close(self) -> Coroutine[None, None, None]: ...


@final
class TracedLink:
    """Sends the present span along with each command, also to a worker in this process."""

    local = False

    def __init__(self, inner: Closable, traces: Tracing) -> None:
        self.lost = inner.lost
        self._inner = inner
        self._traces = traces

    @property
    def queued(self) -> int:
        """Commands that wait to be sent."""
        return self._inner.queued

    def cached(self, command: Command) -> Result | None:
        """Nothing: each command gets its span."""
        return None

    async def call(self, command: Command) -> Result:
        """Have the worker execute a command. Raises DeltaError."""
        with self._traces.asking(f"send {command.op.name}", {"deltadatabase.shard": command.shard}):
            sent = msgspec.structs.replace(command, traceparent=self._traces.traceparent())
            return await self._inner.call(sent)

    def close(self) -> Coroutine[Any, Any, None]:
        """Cut the link."""
        return self._inner.close()


@final
class TracedHandler:
    """Executes each command in a span of the trace that it came with. Fulfils ``Handler``."""

    def __init__(self, inner: Handler, traces: Tracing) -> None:
        self._inner = inner
        self._traces = traces

    def fast(self, command: Command) -> Result | None:
        """See ``Handler``: a span only of what is answered here."""
        result = self._inner.fast(command)
        if result is not None:
            with self._traces.serving(_name(command), command.traceparent, _about(command, cached=True)):
                pass
        return result

    async def execute(self, command: Command) -> Result:
        """See ``Handler``."""
        with self._traces.serving(_name(command), command.traceparent, _about(command, cached=False)):
            return await self._inner.execute(command)


def _name(command: Command) -> str:
    return f"execute {command.op.name}"


def _about(command: Command, *, cached: bool) -> dict[str, str | int | bool]:
    return {
        "deltadatabase.shard": command.shard,
        "deltadatabase.request_id": command.request_id,
        "deltadatabase.cached": cached,
    }
