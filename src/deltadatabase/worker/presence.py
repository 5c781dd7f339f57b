"""A worker's sign of life in the store, by which ``deltadb scrub`` knows that it may not work offline.

Two flags, as in Dekker's algorithm (decision 0022). A worker marks its presence **first** and then
reads ``cluster/database.json``; the scrub sets the maintenance flag there **first** and then looks at
the marks. Of the two writes one is confirmed first, and the store's reads are as new as its
confirmed writes. If it was the mark, the scrub sees it and gives up; if it was the flag, the worker
sees it and does not serve. So never do both go on.

The mark is renewed every 10 minutes. A worker whose mark could not be renewed for 20 minutes
issues no puts any more, and the scrub counts on that when it judges an old mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn, final

import msgspec

from deltadatabase.clock import Clock, Random
from deltadatabase.errors import DeltaError, NotFound, OutcomeUnknown, StartupError, Unavailable
from deltadatabase.limits import PRESENCE_INTERVAL_S, PRESENCE_RETRY_S, PRESENCE_VALID_S
from deltadatabase.storage.base import Store, When
from deltadatabase.storage.database import read_database, refuse_maintenance
from deltadatabase.storage.paths import presence_path
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.worker.ports import Lease

log = get_logger(__name__)


@final
class Presence:
    """Keeps one worker's mark in one store.

    Args:
        store: an open store.
        worker_id: configured name of the worker.
        clock: for the age of the mark.
        random: makes each mark's bytes new, so that every store takes it for a change.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        store: Store,
        worker_id: str,
        *,
        clock: Clock,
        random: Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._path = presence_path(worker_id)
        self._clock = clock
        self._random = random
        self._sleep = sleep
        self._marked_s = float("-inf")
        self._pending_s = float("-inf")

    async def mark(self) -> None:
        """Mark the presence; confirmed by the store when this returns.

        It counts only after ``confirm``: the flag has to be read in between.

        Raises:
            Unavailable: it is not certain that the store took it.
            StoreFull: there is no room for it.
        """
        # Counted from before the put: the object's own time is never earlier than that.
        started_s = self._clock.monotonic_s()
        mark = msgspec.json.encode({"mark": self._random(8).hex()})
        try:
            await self._store.put(self._path, mark, When.ALWAYS)
        except OutcomeUnknown:
            raise Unavailable("the store did not confirm the worker's sign of life") from None
        self._pending_s = started_s

    def confirm(self) -> None:
        """Let the last mark count: since then ``cluster/database.json`` was read, and without the flag."""
        self._marked_s = max(self._marked_s, self._pending_s)

    def fresh(self) -> bool:
        """Whether the mark is young enough for the worker to issue puts."""
        return self._clock.monotonic_s() - self._marked_s < PRESENCE_VALID_S

    async def keep(self) -> NoReturn:
        """Renew the mark for as long as this runs.

        Raises:
            StartupError: ``store_refused``: a scrub works offline, since it found no mark young
                enough: this worker was stopped or cut off for more than an hour.
        """
        while True:
            # One interval after the last mark, whoever made that one.
            waited_s = self._clock.monotonic_s() - self._marked_s
            await self._sleep(min(max(PRESENCE_INTERVAL_S - waited_s, PRESENCE_RETRY_S), PRESENCE_INTERVAL_S))
            if self._clock.monotonic_s() - self._marked_s < PRESENCE_INTERVAL_S:
                continue
            try:
                # Before anything is written: the store may have been emptied, or not be mounted.
                refuse_maintenance(await read_database(self._store))
                await self.mark()
                refuse_maintenance(await read_database(self._store))
                self.confirm()
            except NotFound:
                log.warning("the database's description is gone")
            except StartupError:
                raise
            except DeltaError as exc:
                log.warning("the sign of life was not renewed; it is tried again", code=exc.code)


@final
class PresentLease:
    """A lease that also asks for a young mark. Fulfils ``worker.ports.Lease``."""

    def __init__(self, lease: Lease, presence: Presence) -> None:
        self._lease = lease
        self._presence = presence

    @property
    def membership(self) -> int:
        return self._lease.membership

    def holds(self) -> bool:
        return self._lease.holds() and self._presence.fresh()
