"""Commands on their way: to the present owner, again where that is safe, and judged when they return.

What keeps it safe: a reply counts only while the term it was asked under is still the shard's (I6);
a read that lost its owner is sent again; a write is sent again only after an answer that says it was
certainly not applied, otherwise its write id is looked up in the store by the present owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from deltadatabase.clock import Clock
from deltadatabase.errors import (
    DeltaError,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from deltadatabase.gateway.listings import share_of
from deltadatabase.gateway.moves import Moves
from deltadatabase.limits import (
    BATCH_IN_FLIGHT_MAX,
)
from deltadatabase.model import Command, Op, Result
from deltadatabase.placement.ring import shard_of

_WRITES: Final = frozenset({Op.PUT, Op.PATCH, Op.DELETE})
READ_LOSSES_MAX: Final = 3
RESEND_CODES: Final = frozenset({"link_down", "not_owner"})
"""Codes of ``Unavailable`` that a look at the present owner can cure."""


class Sending(Moves):
    """Sends commands to workers.

    Args:
        clock: monotonic time for deadlines.
        timeout_ms: time for one request of a client.
        move_hold_s: for how long requests wait at the most while their shard moves.
    """

    def __init__(self, *, clock: Clock, timeout_ms: int, move_hold_s: float) -> None:
        super().__init__(clock=clock, move_hold_s=move_hold_s)
        self._timeout_s = timeout_ms / 1000
        self._next_link = 0
        #: Writes of unknown outcome that were looked for.
        self.lookups = 0
        #: Called when an entity with a term was met that this main worker never issued.
        self.on_foreign_term: Callable[[int], None] = lambda term: None

    async def _read(self, command: Command) -> Result:
        """Send a command that changes nothing until a reply counts or the time is up."""
        deadline = self._clock.monotonic_s() + self._timeout_s
        losses = 0
        while True:
            try:
                result, current = await self._send(command, deadline)
            except OutcomeUnknown as exc:
                losses += 1
                if losses >= READ_LOSSES_MAX:
                    # Perhaps the request itself is what workers die of.
                    raise Unavailable("the workers were lost while they had this request") from exc
                await self._pause(deadline, exc)
            except Unavailable as exc:
                if exc.code not in RESEND_CODES:
                    raise
                await self._pause(deadline, exc)
            else:
                if current:
                    return result

    async def ask_owners(self, command: Command) -> Sequence[Result]:
        """Send a LIST to every owner, each about its own shards; all answers are of one table of owners.

        Raises:
            Unavailable: a shard has no owner, or they did not answer in time.
        """
        deadline = self._clock.monotonic_s() + self._timeout_s
        losses = 0
        while True:
            self.check_open()
            placement = self._bound()
            terms = tuple(placement.terms)
            by_owner = {owner: [0] * placement.shards for owner in placement.owners if owner is not None}
            for shard, owner in enumerate(placement.owners):
                if owner is None:
                    raise Unavailable("no worker is there for some of the entities", code="no_worker")
                by_owner[owner][shard] = terms[shard]
            left_ms = int((deadline - self._clock.monotonic_s()) * 1000)
            if left_ms <= 0:
                raise Unavailable("the workers did not answer in time", code="timeout")
            number = share_of(command.number, len(by_owner))
            outcomes = await gather(
                [
                    self._links[owner].call(
                        msgspec.structs.replace(command, terms=tuple(own), number=number, timeout_ms=left_ms)
                    )
                    for owner, own in by_owner.items()
                ]
            )
            if self._closures or tuple(placement.terms) != terms:
                continue
            failed = [outcome for outcome in outcomes if isinstance(outcome, DeltaError)]
            if not failed:
                return [outcome for outcome in outcomes if isinstance(outcome, Result)]
            for error in failed:
                if isinstance(error, OutcomeUnknown):
                    losses += 1
                elif not (isinstance(error, Unavailable) and error.code in RESEND_CODES):
                    raise error
            if losses >= READ_LOSSES_MAX:
                raise Unavailable("the workers were lost while they had this request") from failed[0]
            await self._pause(deadline, failed[0])

    async def _write(self, command: Command) -> Result:
        """Send a write until it is certainly applied or certainly not, or the time is up."""
        deadline = self._clock.monotonic_s() + self._timeout_s
        try:
            while True:
                try:
                    result, current = await self._send(command, deadline)
                except Unavailable as exc:
                    if exc.code not in RESEND_CODES:
                        raise
                    await self._pause(deadline, exc)
                except DeltaError as exc:
                    if exc.certain:
                        raise
                    return await self._resolve(command, deadline, exc)
                else:
                    if current:
                        if self.observer is not None:
                            self.observer.written(command, result)
                        return result
                    if result.found:
                        return await self._resolve(command, deadline, None)
                    # A delete that met nothing changed nothing: ask the present owner.
        except BaseException as exc:
            # A client that goes away counts, too: what it sent is under way.
            if self.observer is not None and not (isinstance(exc, DeltaError) and exc.certain):
                self.observer.uncertain(command)
            raise

    async def _resolve(self, command: Command, deadline: float, cause: DeltaError | None) -> Result:
        """Let the present owner look for the write in the store.

        Raises:
            OutcomeUnknown: it isn't there, but may still land; or nobody could look.
        """
        unknown = OutcomeUnknown("the write may or may not have been stored; read before you try again")
        lookup = msgspec.structs.replace(
            command, op=Op.RESOLVE, document=b"", if_match=None, if_none_match=None, validated=False
        )
        self.lookups += 1
        while True:
            try:
                result, current = await self._send(lookup, deadline)
            except (Unavailable, Overloaded, OutcomeUnknown):
                try:
                    await self._pause(deadline, unknown)
                except Unavailable:
                    raise unknown from cause
            except DeltaError:
                raise unknown from cause
            else:
                if current and result.found:
                    if self.observer is not None:
                        # It was applied; but others may have written since.
                        self.observer.uncertain(command)
                    return msgspec.structs.replace(result, created=_surely_created(command, result))
                if current:
                    raise unknown from cause

    async def _send(self, command: Command, deadline: float) -> tuple[Result, bool]:
        """Send a command once, to the present owner.

        Returns:
            The result, and whether it counts: the shard's term is still the one it was asked under.

        Raises:
            DeltaError: of the worker or the link, if it counts; NotOwner where it does not
                (a certain failure under a term that has passed says nothing of the present).
            OutcomeUnknown: the router closed while a worker had a write. What the worker says of
            it then was perhaps concluded from a store that did not hold the database.
        """
        self.check_open()
        closings = self._closings
        placement = self._placement
        if placement is None:
            raise Unavailable("no worker has joined", code="no_worker")
        shard = shard_of(command.schema_id, command.key, placement.shards)
        while (hold := self._held.get(shard)) is not None:
            await self._wait_held(hold)
        owner = placement.owners[shard]
        if owner is None:
            raise Unavailable("no worker is there for this entity", code="no_worker")
        term = placement.terms[shard]
        left_ms = int((deadline - self._clock.monotonic_s()) * 1000)
        if left_ms <= 0:
            raise Unavailable("the workers did not answer in time", code="timeout")
        self._in_flight[shard] += 1
        try:
            result = await self._links[owner].call(
                msgspec.structs.replace(command, shard=shard, term=term, timeout_ms=left_ms)
            )
        except DeltaError as exc:
            if isinstance(exc, NotOwner) and exc.term > placement.epoch:
                self.on_foreign_term(exc.term)
            if exc.code == "link_down":
                raise  # It never left.
            if command.op in _WRITES and self._closings != closings:
                raise OutcomeUnknown("service was closed while the write was under way") from exc
            if exc.certain and not isinstance(exc, NotOwner) and not self._counts(shard, term):
                raise NotOwner("owner changed meanwhile") from exc
            raise
        finally:
            self._in_flight[shard] -= 1
            if shard in self._held and not self._in_flight[shard]:
                self._quiet.set()
        if command.op in _WRITES and self._closings != closings:
            raise OutcomeUnknown("service was closed while the write was under way")
        return result, self._counts(shard, term)

    async def any_worker(self, command: Command) -> Result:
        """Send a command that concerns no entity to one worker after the other until one answers.

        Raises:
            Unavailable: ``no_worker``.
            OutcomeUnknown: a change was sent and its answer lost.
        """
        self.check_open()
        links = list(self._links.values())
        self._next_link += 1
        deadline = self._clock.monotonic_s() + self._timeout_s
        for attempt in range(len(links)):
            left_ms = int((deadline - self._clock.monotonic_s()) * 1000)
            if left_ms <= 0:
                raise Unavailable("the workers did not answer in time", code="timeout")
            link = links[(self._next_link + attempt) % len(links)]
            try:
                return await link.call(msgspec.structs.replace(command, timeout_ms=left_ms))
            except OutcomeUnknown:
                if command.op in (Op.SCHEMA_PUT, Op.SCHEMA_DELETE):
                    raise
            except Unavailable as exc:
                if exc.code not in RESEND_CODES:
                    raise
        raise Unavailable("no worker has joined", code="no_worker")


async def gather(calls: list[Awaitable[Result]]) -> list[Result | DeltaError]:
    """Await all, a bounded number at a time; errors of the tree are results here."""
    gate = asyncio.Semaphore(BATCH_IN_FLIGHT_MAX)

    async def one(call: Awaitable[Result]) -> Result | DeltaError:
        async with gate:
            try:
                return await call
            except DeltaError as exc:
                return exc

    return list(await asyncio.gather(*(one(call) for call in calls)))


def _surely_created(command: Command, found: Result) -> bool:
    """Whether a write that was found in an entity's history has created it; the history does not say."""
    return command.op is Op.PUT and (found.version == 1 or command.if_none_match == ("*",))
