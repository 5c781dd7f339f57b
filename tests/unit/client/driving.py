"""Drives the steps of a call with answers that a test has written down, in time that stands still."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from support.clocks import FakeClock, SeededRandom

from deltadatabase.client.requests import Response
from deltadatabase.client.retrying import RetryPolicy
from deltadatabase.client.steps import END, Apply, Emit, Means, Open, Read, Send, Sleep, Steps, Take


class Driver:
    """Answers steps from scripts, and remembers what was asked.

    Args:
        replies: of ``Send`` and ``Open``, in order.
        blocks: of ``Read``, in order.
        source: of ``Take``.
    """

    def __init__(
        self,
        *replies: Any,
        blocks: Iterable[Any] = (),
        source: Iterable[Any] = (),
        give_up_after_s: float = 60.0,
    ) -> None:
        self.clock = FakeClock()
        self.means = Means(self.clock, SeededRandom(), RetryPolicy(give_up_after_s))
        self.requests: list[Any] = []
        self.slept: list[float] = []
        self.emitted: list[Any] = []
        self._replies = iter(replies)
        self._blocks = iter(blocks)
        self._source = iter(source)

    def run(self, steps: Steps[Any]) -> Any:
        """Run to the end; return the result."""
        reply: Any = None
        while True:
            try:
                step = steps.send(reply)
            except StopIteration as stop:
                return stop.value
            reply = self._reply(step)

    def _reply(self, step: Any) -> Any:
        match step:
            case Send(request) | Open(request):
                self.requests.append(request)
                return next(self._replies)
            case Read():
                return next(self._blocks)
            case Sleep(seconds):
                self.slept.append(seconds)
                self.clock.advance(seconds)
                return None
            case Take():
                return next(self._source, END)
            case Apply(function, value):
                return function(value)
            case Emit(value):
                self.emitted.append(value)
                return None


def ok(body: bytes = b"", status: int = 200, **headers: str) -> Response:
    """A good answer; ``_`` in names of headers is a dash."""
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def refused(status: int, code: str = "", **headers: str) -> Response:
    """An answer with a problem."""
    body = b'{"error":"%b","detail":"so it is","request_id":"r1","status":%d}' % (code.encode(), status)
    return ok(body, status, **headers)
