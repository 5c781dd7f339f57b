"""What the router knows of a worker: a link that carries commands, local or remote alike.

``stream.WorkerStream`` and ``local.LocalLink`` implement ``Link``; the worker's engine is the
``Handler`` behind both.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from deltadatabase.errors import DeltaError, Internal, LinkLost, OutcomeUnknown, Overloaded, Unavailable
from deltadatabase.model import Command, Op, Result

_log = logging.getLogger(__name__)

#: The commands that may change the store: cut short, their outcome is unknown.
WRITES: Final = frozenset({Op.PUT, Op.PATCH, Op.DELETE, Op.SCHEMA_PUT, Op.SCHEMA_DELETE, Op.RESERVE_EPOCHS})


class Handler(Protocol):
    """Executes the commands of one worker."""

    def fast(self, command: Command) -> Result | None:
        """Answer at once if no I/O is needed (a cached read); None sends it to ``execute``.

        Raises DeltaError.
        """
        ...

    async def execute(self, command: Command) -> Result:
        """Answer with whatever it takes. Raises DeltaError.

        May be cancelled when nobody waits for the answer any more; a put once issued must
        be shielded here.
        """
        ...


class Link(Protocol):
    """One worker, as the router uses it.

    Attributes:
        lost: set once the link carries nothing any more, whether it broke or was closed.
        local: the worker is in this process, so that ``cached`` may answer.
    """

    lost: asyncio.Event
    local: bool

    @property
    def in_flight(self) -> int:
        """Number of calls that wait for their answer."""
        ...

    @property
    def queued(self) -> int:
        """Number of those that have not been sent yet."""
        ...

    def cached(self, command: Command) -> Result | None:
        """Answer a read at once, if nothing has to be waited for; else None. Raises DeltaError."""
        ...

    async def call(self, command: Command) -> Result:
        """Have the worker execute ``command`` within its ``timeout_ms``.

        Raises:
            Overloaded: too many calls, or too many bytes of them, are in flight; not sent.
            TooLarge: the command does not fit one message; not sent.
            Unavailable: ``link_down``, the link is lost and this was never sent; ``timeout``,
                no answer in time to a command that changes nothing, or to one never sent.
            OutcomeUnknown: ``timeout``, no answer in time to a command that may change the store.
            LinkLost: the link broke or was closed while the worker had the command.
            DeltaError: the worker's own answer.
        """
        ...

    async def close(self) -> None:
        """End the link; calls in flight fail with ``LinkLost``. May be repeated."""
        ...


def timed_out(op: Op, *, sent: bool) -> DeltaError:
    """Return the error of a call whose time has run out."""
    if sent and op in WRITES:
        return OutcomeUnknown("the worker did not answer in time", code="timeout")
    return Unavailable("the worker did not answer in time", code="timeout")


def link_down() -> DeltaError:
    """Return the error of a call that certainly never reached the worker."""
    return Unavailable("the link to the worker is down", code="link_down")


def link_lost() -> DeltaError:
    """Return the error of a call that the worker may have."""
    return LinkLost("the link to the worker broke")


def overloaded() -> DeltaError:
    """Return the error of a call past the bounds of a link."""
    return Overloaded("too many requests are in flight")


def internal(exc: Exception, request_id: str = "") -> DeltaError:
    """Return what a caller may know of a mistake of ours; log its class alone.

    An exception's text may quote a document.
    """
    _log.error("a command failed unexpectedly error=%s request_id=%s", type(exc).__name__, request_id)
    return Internal("the command failed unexpectedly")
