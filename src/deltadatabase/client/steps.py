"""What a call wants done, told step by step to whoever does input and output.

A call is a generator: it yields steps, is sent what each of them gave, and returns its result.
So everything is decided once, for the client that blocks and the one that awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from deltadatabase.client.calls import Call
from deltadatabase.client.problems import error_of
from deltadatabase.client.requests import Failure, Request, Response
from deltadatabase.client.retrying import RetryPolicy, final, may_retry, wait_s
from deltadatabase.clock import Clock, Random
from deltadatabase.errors import DeltaError

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Send a request and read its whole answer: gives ``Response | Failure``."""

    request: Request


@dataclass(frozen=True)
class Open:
    """Send a request and leave the body of a good answer to ``Read``: gives ``Response | Failure``."""

    request: Request


class Read:
    """Read on in the opened answer: gives bytes, None at its proper end, or ``Failure``."""


@dataclass(frozen=True)
class Sleep:
    """Wait so many seconds: gives None."""

    seconds: float


class Take:
    """Take the next item of the caller's source: gives it, or ``END``."""


@dataclass(frozen=True)
class Apply:
    """Call the caller's function: gives its result."""

    function: Callable[[Any], Any]
    value: Any


@dataclass(frozen=True)
class Emit:
    """Hand a value to whoever iterates: gives None."""

    value: Any


END: Final = object()
Step = Send | Open | Read | Sleep | Take | Apply | Emit
Steps = Generator[Step, Any, T]


@dataclass(frozen=True)
class Means:
    """What calls decide by, beside their arguments."""

    clock: Clock
    random: Random
    policy: RetryPolicy

    def chance(self) -> float:
        """A number from 0 to 1."""
        return int.from_bytes(self.random(4), "big") / 2**32

    def name(self) -> str:
        """An idempotency key that nobody else has."""
        return self.random(16).hex()


class Trying:
    """Decides after each failed try of one call: raises, or tells how long to wait.

    Args:
        request: what is tried.
        means: what is decided by.

    Attributes:
        unknown: an earlier try may have been applied.
    """

    def __init__(self, request: Request, means: Means) -> None:
        self._request = request
        self._means = means
        self.unknown = False
        self.restart()

    def restart(self) -> None:
        """Count time and tries anew: there was a success."""
        self._begun_s = self._means.clock.monotonic_s()
        self._attempts = 0

    def failed(self, error: DeltaError, *, forever: bool = False) -> Sleep:
        """Note a failure. Raises the error to end with when there is no further try."""
        self._attempts += 1
        wait = wait_s(self._attempts, error, self._means.chance())
        left_s = self._begun_s + self._means.policy.give_up_after_s - self._means.clock.monotonic_s()
        if not may_retry(self._request, error) or (not forever and wait > left_s):
            raise final(self._request, error, unknown=self.unknown)
        self.unknown = self.unknown or not error.certain
        return Sleep(wait)


def respond(request: Request, means: Means) -> Steps[Response]:
    """Send a request until there is an answer that counts. Raises ``DeltaError``."""
    return (yield from respond_trying(Trying(request, means), request))


def respond_trying(trying: Trying, request: Request) -> Steps[Response]:
    """As ``respond``; ``trying`` tells afterwards what earlier tries may have done."""
    while True:
        outcome: Response | Failure = yield Send(request)
        error = error_of(request, outcome)
        if error is None:
            assert isinstance(outcome, Response)
            return outcome
        yield trying.failed(error)


def single(call: Call[T], means: Means) -> Steps[T]:
    """Do one call; a write gets an idempotency key. Raises ``DeltaError``."""
    call = call.named(means.name())
    response = yield from respond(call.request, means)
    return call.parse(response)
