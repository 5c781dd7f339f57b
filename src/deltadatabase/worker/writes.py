"""Writes on their way: queued per entity, so that those which wait are committed together.

While one put of an entity is under way, its next writes gather here. Then they go as one group:
each is decided on what the one before it leaves (``engine.Plan``), one object is put, and every
answer leaves after that put. A hot entity so takes many writes for each round trip to the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from deltadatabase.errors import DeltaError, OutcomeUnknown, Overloaded, Unavailable
from deltadatabase.limits import MERGED_WRITES_MAX
from deltadatabase.model import Command, Op, Result
from deltadatabase.worker.cache import Name
from deltadatabase.worker.checking import Checked
from deltadatabase.worker.engine import Change, Decision, Plan, Unchanged, etag_of
from deltadatabase.worker.locks import EntityLocks

_UNCHECKED: Final = Checked("")


class PendingWrite:
    """One write, from its arrival to its answer. Must be made in the event loop that answers it.

    ``change`` is what a PATCH does to the document that it meets, ``checked`` how its schema's check went.
    """

    __slots__ = ("answer", "change", "checked", "command", "deadline_s", "queue_us", "queued_s")

    def __init__(
        self,
        command: Command,
        queued_s: float,
        change: Change | None = None,
        checked: Checked | None = None,
    ) -> None:
        self.command = command
        self.change = change
        self.checked = checked or _UNCHECKED
        self.queued_s = queued_s
        self.deadline_s = queued_s + command.timeout_ms / 1000
        self.queue_us = 0
        self.answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def succeed(self, result: Result) -> None:
        """Answer, unless nobody waits any more."""
        if not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: Exception) -> None:
        """Answer with a failure, unless there is an answer or nobody waits any more."""
        if not self.answer.done():
            self.answer.set_exception(error)


class WriteQueue:
    """Lets each entity's writes through in groups, under the entity's lock.

    Args:
        locks: one change at a time for an entity; reads hold them, too.
        commit: commits a group and answers each of its writes; called with the lock held.
        waiting_max: past so many writes of one entity, further ones are turned away.
    """

    def __init__(
        self,
        locks: EntityLocks,
        commit: Callable[[Name, Sequence[PendingWrite]], Awaitable[None]],
        *,
        waiting_max: int,
    ) -> None:
        self._locks = locks
        self._commit = commit
        self._waiting_max = waiting_max
        self._waiting: dict[Name, deque[PendingWrite]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, name: Name, write: PendingWrite) -> Result:
        """Queue a write and wait for its answer; it goes on when the caller goes away.

        Raises:
            Overloaded: too many writes wait for this entity.
            DeltaError: as ``commit`` answers it.
        """
        waiting = self._waiting.get(name)
        if waiting is None:
            waiting = self._waiting[name] = deque()
            task = asyncio.create_task(self._work(name, waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif len(waiting) >= self._waiting_max:
            raise Overloaded("too many writes wait for this entity", code="entity_busy")
        waiting.append(write)
        return await write.answer

    @property
    def waiting(self) -> int:
        """Writes that wait for their turn; also from another thread."""
        return sum(map(len, self._waiting.copy().values()))

    async def settle(self, timeout_s: float) -> None:
        """Wait until no write is under way any more, at most ``timeout_s`` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def _work(self, name: Name, waiting: deque[PendingWrite]) -> None:
        group: list[PendingWrite] = []
        try:
            while waiting:
                async with self._locks.hold(name, bounded=False):
                    group = [waiting.popleft() for _ in range(min(len(waiting), MERGED_WRITES_MAX))]
                    await self._commit(name, group)
        finally:
            # Nothing is left here unless this task was cancelled.
            del self._waiting[name]
            for write in group:
                write.fail(OutcomeUnknown("the worker stopped while it had this write"))
            for write in waiting:
                write.fail(Unavailable("the worker stopped"))


class Attempt:
    """What one group has done so far.

    Attributes:
        writes: those that count, in order.
        term: of all of them.
        deadline_s: when the last of them gives up.
        plan: what is being put, once that is decided.
        open: a put of ``plan`` went out that may have landed, or may land yet.
        seal_us, store_us: where the time went, microseconds.
    """

    __slots__ = ("deadline_s", "open", "plan", "seal_us", "store_us", "term", "writes")

    def __init__(self, writes: Sequence[PendingWrite]) -> None:
        self.writes = writes
        self.term = writes[0].command.term
        self.deadline_s = max(write.deadline_s for write in writes)
        self.plan: Plan | None = None
        self.open = False
        self.seal_us = 0
        self.store_us = 0

    def succeed(self) -> None:
        """Answer each write as planned: the plan is committed, or changes nothing."""
        assert self.plan is not None
        for write, outcome in zip(self.writes, self.plan.outcomes, strict=True):
            if isinstance(outcome, DeltaError):
                write.fail(outcome)
            else:
                write.succeed(self._result(write, outcome))

    def fail(self, error: Exception) -> None:
        """Answer each write with what is certain about it after ``error``."""
        if not self.open or not isinstance(error, DeltaError):
            for write in self.writes:
                write.fail(error)
            return
        assert self.plan is not None
        for write, outcome in zip(self.writes, self.plan.outcomes, strict=True):
            if isinstance(outcome, DeltaError):
                # Not applied either way; but the state that refuses it may never come to be.
                write.fail(Unavailable("the store did not confirm an earlier write in time"))
            else:
                write.fail(OutcomeUnknown("the store did not confirm the write in time"))

    def _result(self, write: PendingWrite, outcome: Decision) -> Result:
        if isinstance(outcome, Unchanged):
            return Result(
                version=outcome.version,
                etag=outcome.etag,
                updated_ms=outcome.updated_ms,
                found=outcome.found,
                repeated=outcome.repeated,
                created=outcome.created,
                document=outcome.document,
                schema_hash=write.checked.schema_hash,
                validate_us=write.checked.spent_us,
                queue_us=write.queue_us,
                store_us=self.store_us,
            )
        header = outcome.header
        return Result(
            version=header.version,
            etag="" if header.tombstone else etag_of(header.version, header.write_id),
            updated_ms=header.updated_ms,
            document=outcome.document if write.command.op is Op.PATCH else b"",
            created=outcome.created,
            found=True,
            number=int(write.command.op is Op.RESEAL),
            schema_hash=write.checked.schema_hash,
            validate_us=write.checked.spent_us,
            queue_us=write.queue_us,
            seal_us=self.seal_us,
            store_us=self.store_us,
        )
