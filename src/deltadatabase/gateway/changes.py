"""The log of changes: what the main worker remembers of the writes that it saw, for those who follow.

The router is the only way to write, and sees each write's reply. For each schema that somebody follows
the log holds the latest state of each changed entity, in the order in which the changes became known.

What it promises:

- A state has a sequence number that is larger than any before. Asked for what came after a number,
  the log gives every later state, or says that it does not reach back so far.
- Of one entity the version only rises. States that were replaced meanwhile are left out.
- It is bounded, and forgets the oldest first; it is empty after a start, after ``begin_anew``, and for
  a schema that nobody followed for an hour. What it does not cover comes from the store (``following``).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter
from typing import Final

import msgspec

from deltadatabase.clock import Clock, Random
from deltadatabase.limits import CHANGES_KEPT_S, CHANGES_NOTED_MAX, CHANGES_SCHEMAS_MAX

INCARNATION_BYTES: Final = 8
_KEPT_MS: Final = int(CHANGES_KEPT_S * 1000)
_TRIM_MS: Final = 60_000
"""The oldest go together, once a minute at most: taking them off one by one would cost more."""
_COMPACT_MIN: Final = 256
_SEQUENCE = attrgetter("sequence")
_NOTED = attrgetter("noted_ms")


class Change(msgspec.Struct, frozen=True, gc=False):
    """A state of an entity.

    Attributes:
        sequence: its place in the log; 0 of what did not come from there.
        key: of the entity.
        version: of the entity; 0 where it could not be read.
        etag: "" of a deleted one.
        updated_ms: commit time, milliseconds since the Unix epoch.
        deleted: it is a tombstone.
        noted_ms: when the router learned of it.
    """

    sequence: int
    key: str
    version: int
    etag: str
    updated_ms: int
    deleted: bool
    noted_ms: int = 0


class _SchemaLog:
    """States of one schema.

    Attributes:
        floor: nothing is known of changes up to this number.
        changes: by sequence, with some that were replaced since.
        latest: of each key.
        used_ms: when somebody followed last.
        news: done when there is a further change.
    """

    __slots__ = ("changes", "floor", "latest", "news", "used_ms")

    def __init__(self, floor: int, used_ms: int) -> None:
        self.floor = floor
        self.changes: list[Change] = []
        self.latest: dict[str, Change] = {}
        self.used_ms = used_ms
        self.news: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.news is not None:
            if not self.news.done():
                self.news.set_result(None)
            self.news = None

    def current(self, changes: Iterable[Change]) -> list[Change]:
        return [change for change in changes if self.latest.get(change.key) is change]

    def compact(self) -> None:
        """Take off what was replaced."""
        if len(self.changes) > 2 * len(self.latest) + _COMPACT_MIN:
            self.changes = self.current(self.changes)

    def forget(self, count: int) -> None:
        """Take off the oldest ``count``."""
        for change in self.current(self.changes[:count]):
            del self.latest[change.key]
        self.floor = max(self.floor, self.changes[count - 1].sequence)
        del self.changes[:count]


class ChangeLog:
    """See the module.

    Args:
        clock: wall time.
        random: names incarnations.
        noted_max: states of all schemas together.
        schemas_max: schemas followed at once; past it the one that waited longest is let go.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        random: Random,
        noted_max: int = CHANGES_NOTED_MAX,
        schemas_max: int = CHANGES_SCHEMAS_MAX,
    ) -> None:
        self._clock = clock
        self._random = random
        self._noted_max = noted_max
        self._schemas_max = schemas_max
        self._logs: dict[str, _SchemaLog] = {}
        self._noted = 0
        self._closed = False
        #: Sequence number of the last state.
        self.sequence = 0
        self.begin_anew()

    @property
    def noted(self) -> int:
        """States that are remembered; also from another thread."""
        return self._noted

    @property
    def closed(self) -> bool:
        """Nobody waits any more."""
        return self._closed

    def begin_anew(self) -> None:
        """Forget everything: something may have been changed that the log was not told of."""
        logs = list(self._logs.values())
        self._logs.clear()
        self._noted = 0
        #: Names the time since the last ``begin_anew``: sequence numbers of another one mean nothing.
        self.incarnation = self._random(INCARNATION_BYTES)
        #: When it began, monotonic seconds.
        self.began_s = self._clock.monotonic_s()
        for log in logs:
            log.wake()

    def close(self) -> None:
        """Let all who wait return, now and later."""
        self._closed = True
        for log in self._logs.values():
            log.wake()

    def follow(self, schema_id: str) -> None:
        """Remember this schema's changes from now on, for an hour at least."""
        now_ms = self._clock.wall_ms()
        log = self._logs.pop(schema_id, None)
        if log is None:
            while self._logs:
                oldest = next(iter(self._logs))
                unused = self._logs[oldest].used_ms < now_ms - _KEPT_MS
                if not unused and len(self._logs) < self._schemas_max:
                    break
                self._drop(oldest)
            log = _SchemaLog(self.sequence, now_ms)
        log.used_ms = now_ms
        self._logs[schema_id] = log

    def follows(self, schema_id: str) -> bool:
        """Whether changes of this schema are remembered."""
        return schema_id in self._logs

    def note(
        self, schema_id: str, key: str, version: int, etag: str, updated_ms: int, *, deleted: bool
    ) -> None:
        """Take note of a committed state. One that is not newer than what is known changes nothing."""
        log = self._logs.get(schema_id)
        if log is None:
            return
        now_ms = self._clock.wall_ms()
        known = log.latest.get(key)
        # Versions begin again once a tombstone was removed, which takes longer than this.
        if known is not None and known.version >= version and known.noted_ms > now_ms - _KEPT_MS:
            return
        self.sequence += 1
        change = Change(self.sequence, key, version, etag, updated_ms, deleted, now_ms)
        log.latest[key] = change
        log.changes.append(change)
        self._noted += 1
        if log.news is not None:
            log.wake()
        if self._noted > self._noted_max or log.changes[0].noted_ms < now_ms - _KEPT_MS - _TRIM_MS:
            self._trim(schema_id, log, now_ms)

    def after(self, schema_id: str, sequence: int, limit: int) -> tuple[list[Change], bool] | None:
        """States that came after ``sequence``, the earliest first, at most ``limit``.

        Returns:
            They, and whether these are all; None where the log does not reach back so far.
        """
        log = self._logs.get(schema_id)
        if log is None or sequence < log.floor:
            return None
        found: list[Change] = []
        changes, latest = log.changes, log.latest
        for index in range(bisect_right(changes, sequence, key=_SEQUENCE), len(changes)):
            change = changes[index]
            if latest.get(change.key) is change:
                if len(found) == limit:
                    return found, False
                found.append(change)
        return found, True

    async def wait(self, schema_id: str, sequence: int, timeout_s: float) -> None:
        """Return once there may be something after ``sequence``, the log was closed, or time is up."""
        log = self._logs.get(schema_id)
        if self._closed or log is None or sequence < log.floor:
            return
        if log.changes and log.changes[-1].sequence > sequence:
            return
        if log.news is None:
            log.news = asyncio.get_running_loop().create_future()
        # Not cancelled at the end of this one's time: others wait for the same.
        await asyncio.wait({log.news}, timeout=timeout_s)

    def _drop(self, schema_id: str) -> None:
        log = self._logs.pop(schema_id)
        self._noted -= len(log.changes)
        log.wake()

    def _trim(self, schema_id: str, log: _SchemaLog, now_ms: int) -> None:
        if log.used_ms < now_ms - _KEPT_MS:
            self._drop(schema_id)
            return
        self._noted -= len(log.changes)
        old = bisect_right(log.changes, now_ms - _KEPT_MS, key=_NOTED)
        if old:
            log.forget(old)
        log.compact()
        self._noted += len(log.changes)
        while self._noted > self._noted_max:
            largest = max(self._logs.values(), key=lambda one: len(one.changes))
            size = len(largest.changes)
            largest.compact()
            if len(largest.changes) < size:
                self._noted -= size - len(largest.changes)
                continue
            count = (len(largest.changes) + 1) // 2
            largest.forget(count)
            self._noted -= count
