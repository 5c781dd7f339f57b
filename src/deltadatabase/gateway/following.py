"""Following the changes of a schema: from the log where it reaches back far enough, else from the store.

At least once, and no gap: a state that is current when a reader has come to the end was delivered to it.
Of one entity versions only rise.

A **catch-up** serves positions that the log does not cover: those from before a start of the main
worker, and of readers that were away too long. It walks the schema's listing, tombstones included,
reads through their owners the entities that the store says were written since, less a margin for clocks
that differ, and goes on in the log from the place that was noted before the walk. A put that was under
way when the main worker was lost may land after the walk has passed; so for some time after a start a
position also says that the store is to be looked through once more when that time is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from deltadatabase.clock import Clock, Random
from deltadatabase.errors import Corrupt, Invalid, NotFound, Unavailable
from deltadatabase.gateway.changes import Change, ChangeLog
from deltadatabase.gateway.ports import Listing
from deltadatabase.gateway.positions import (
    CatchUp,
    Live,
    Position,
    bad_token,
    changes_gone,
    decode,
    encode,
)
from deltadatabase.gateway.unsure import UnsureWrites
from deltadatabase.limits import (
    CATCH_UP_EXTRA_S,
    CATCH_UP_SLICE_S,
    CATCH_UPS_MAX,
    CHANGES_CHECKS_S,
    CHANGES_KEPT_S,
    CHANGES_MARGIN_S,
    CHANGES_SETTLE_S,
    CLOCK_SKEW_MAX_S,
    FEED_BATCH_BYTES_MAX,
    FEED_DOCUMENT_READS_MAX,
    FEED_READS_MAX,
    LIST_PAGE_MAX,
    REQUEST_TIMEOUT_MS,
)
from deltadatabase.model import Command, ListedEntity, Op, Result
from deltadatabase.storage.paths import unescape_key

_KEPT_MS: Final = int(CHANGES_KEPT_S * 1000)
_MARGIN_MS: Final = int(CHANGES_MARGIN_S * 1000)
_IN_FLIGHT_MS: Final = int(CLOCK_SKEW_MAX_S * 1000) + REQUEST_TIMEOUT_MS
_EXTRA_MS: Final = int(CATCH_UP_EXTRA_S * 1000)


class Entities(Protocol):
    """Reads entities through their owners (``gateway.forwarding.Router``). Raises DeltaError."""

    async def state(
        self, schema_id: str, key: str, *, with_document: bool = False, fresh: bool = False
    ) -> Result:
        """An entity or its tombstone, whose ``etag`` is "". Raises NotFound where there is neither."""
        ...

    async def resolve(self, schema_id: str, key: str, write_id: bytes) -> Result:
        """Find out in a fresh store read whether the entity remembers this write: ``found``."""
        ...


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One change as it is delivered.

    Attributes:
        change: the state.
        position: the place after it.
        document: where documents were asked for and there is one.
        damaged: the entity fails its integrity check: its present state is not known.
    """

    change: Change
    position: Position
    document: bytes | None = None
    damaged: bool = False


class Batch(msgspec.Struct, frozen=True):
    """What one look brought.

    Attributes:
        deliveries: the changes.
        position: the place after all of them.
        more: there may be more at once; else it is worth while to wait.
    """

    deliveries: Sequence[Delivery]
    position: Position
    more: bool


class Following:
    """The change feeds of a database. Must be used in one event loop.

    Args:
        entities: where states and documents are read.
        listing: what is stored.
        database_id: of the database that is served; "" before it is known.
        clock: wall time for positions, monotonic time.
        random: names the log.
        checks_s: when writes of unknown outcome are looked for.
        settle_s: for how long after a start puts of before may land.

    Attributes:
        log: what the router saw.
        unsure: writes that are looked after.
        open: feeds that wait or stream now.
        delivered: changes delivered since the start.
        catch_ups: catch-ups begun since the start.
    """

    def __init__(
        self,
        entities: Entities,
        listing: Listing,
        database_id: Callable[[], str],
        *,
        clock: Clock,
        random: Random,
        log: ChangeLog | None = None,
        checks_s: Sequence[float] = CHANGES_CHECKS_S,
        settle_s: float = CHANGES_SETTLE_S,
    ) -> None:
        self._entities = entities
        self._listing = listing
        self._database_id = database_id
        self._clock = clock
        self._settle_s = settle_s
        self._walks = asyncio.Semaphore(CATCH_UPS_MAX)
        self._document_reads = asyncio.Semaphore(FEED_DOCUMENT_READS_MAX)
        self.log = log or ChangeLog(clock=clock, random=random)
        self.unsure = UnsureWrites(self._look, on_overflow=self.log.begin_anew, checks_s=checks_s)
        self.open = 0
        self.delivered = 0
        self.catch_ups = 0

    # -- what the router tells ---------------------------------------------------------

    def written(self, command: Command, result: Result) -> None:
        """A write was answered."""
        if not self.log.follows(command.schema_id):
            return
        if result.repeated:
            # What it did then; others may have written since.
            self.unsure.add(command.schema_id, command.key, command.write_id)
            return
        deleted = command.op is Op.DELETE
        if deleted and not result.found:
            return
        self.log.note(
            command.schema_id,
            command.key,
            result.version,
            "" if deleted else result.etag,
            result.updated_ms,
            deleted=deleted,
        )

    def uncertain(self, command: Command) -> None:
        """A write ended otherwise, and may have been applied or be applied yet."""
        self.unsure.add(command.schema_id, command.key, command.write_id)

    def reopened(self) -> None:
        """The store was away and is back, perhaps with other contents."""
        self.log.begin_anew()

    async def close(self) -> None:
        """End what goes on in the background, and let all who wait return."""
        self.log.close()
        await self.unsure.close()

    # -- positions ---------------------------------------------------------------------

    def now(self, schema_id: str) -> Live:
        """The place after everything that has happened so far; the schema is followed from here on."""
        self.log.follow(schema_id)
        at_ms = self._clock.wall_ms()
        return Live(self.log.incarnation, self.log.sequence, at_ms, 0 if self._settled() else at_ms)

    def token(self, schema_id: str, position: Position) -> str:
        """The token of a position. Raises Unavailable while no worker has joined."""
        return encode(position, self._database(), schema_id)

    def position(self, schema_id: str, token: str) -> Position:
        """The position of a token.

        Raises:
            Invalid: ``bad_token``.
            Gone: ``changes_gone``: another database's.
            Unavailable: no worker has joined yet.
        """
        position = decode(token, self._database(), schema_id)
        live = position if isinstance(position, Live) else position.then
        times = [live.at_ms, live.again_ms]
        if isinstance(position, CatchUp):
            times.append(position.since_ms)
        here = live.incarnation == self.log.incarnation
        if max(times) > self._clock.wall_ms() + _MARGIN_MS or (here and live.sequence > self.log.sequence):
            raise bad_token("the token is of a time that has not come yet")
        return position

    def _database(self) -> str:
        database_id = self._database_id()
        if not database_id:
            raise Unavailable("no worker has joined", code="no_worker")
        return database_id

    def _settled(self) -> bool:
        return self._clock.monotonic_s() >= self.log.began_s + self._settle_s

    # -- reading -----------------------------------------------------------------------

    async def read(self, schema_id: str, position: Position, limit: int, *, documents: bool = False) -> Batch:
        """Give the changes after a position, as far as they are known, at most ``limit``.

        Raises:
            Gone: ``changes_gone``: the position is too old.
            Unavailable, Overloaded: something is not there now; the same call may be repeated.
        """
        self.log.follow(schema_id)
        position = self._place(schema_id, position)
        if isinstance(position, CatchUp):
            async with self._walks:
                batch = await self._catch_up(schema_id, position, limit, documents)
        else:
            batch = await self._from_log(schema_id, position, limit, documents)
        self.delivered += len(batch.deliveries)
        return batch

    async def wait(self, schema_id: str, position: Position, timeout_s: float) -> None:
        """Return once there may be changes after ``position``, or time is up."""
        if isinstance(position, CatchUp) or position.incarnation != self.log.incarnation:
            return
        if position.again_ms:
            left_s = self.log.began_s + self._settle_s - self._clock.monotonic_s()
            timeout_s = max(0.0, min(timeout_s, left_s))
        await self.log.wait(schema_id, position.sequence, timeout_s)

    def _place(self, schema_id: str, position: Position) -> Position:
        """Where to read for this position: in the log, or on a walk over the store."""
        now_ms = self._clock.wall_ms()
        if isinstance(position, CatchUp):
            if position.since_ms < now_ms - _KEPT_MS - _EXTRA_MS:
                raise changes_gone("this catch-up took too long")
            return position
        covered = (
            position.incarnation == self.log.incarnation
            and self.log.after(schema_id, position.sequence, 0) is not None
        )
        again = position.again_ms != 0 and self._settled()
        if covered and not again:
            return position
        since_ms = position.again_ms or position.at_ms
        if since_ms < now_ms - _KEPT_MS:
            raise changes_gone("changes are kept for an hour")
        self.catch_ups += 1
        then = msgspec.structs.replace(position, again_ms=0) if covered else self.now(schema_id)
        return CatchUp(since_ms, "", then)

    async def _from_log(self, schema_id: str, position: Live, limit: int, documents: bool) -> Batch:
        found = self.log.after(schema_id, position.sequence, limit)
        assert found is not None, "it was covered just now"
        changes, complete = found
        head = Live(position.incarnation, self.log.sequence, self._clock.wall_ms(), position.again_ms)
        placed = [
            (change, Live(position.incarnation, change.sequence, change.noted_ms, position.again_ms))
            for change in changes
        ]
        if not documents:
            deliveries = [Delivery(change, place) for change, place in placed]
        else:
            deliveries, size = [], 0
            for start in range(0, len(placed), FEED_READS_MAX):
                chunk = placed[start : start + FEED_READS_MAX]
                for read in await asyncio.gather(
                    *(self._with_document(schema_id, change, place) for change, place in chunk)
                ):
                    deliveries.append(read)
                    size += len(read.document or b"")
                    if size > FEED_BATCH_BYTES_MAX:
                        break  # What was read behind it is let go: the client may take its time.
                if size > FEED_BATCH_BYTES_MAX:
                    complete = complete and len(deliveries) == len(placed)
                    break
        if complete:
            return Batch(deliveries, head, more=False)
        return Batch(deliveries, deliveries[-1].position, more=True)

    async def _with_document(self, schema_id: str, change: Change, place: Position) -> Delivery:
        if change.deleted:
            return Delivery(change, place)
        try:
            async with self._document_reads:
                result = await self._entities.state(schema_id, change.key, with_document=True)
        except Corrupt:
            return Delivery(change, place, damaged=True)
        except NotFound:
            # Neither the entity nor its tombstone: somebody removed the object behind our back.
            gone = msgspec.structs.replace(change, etag="", deleted=True)
            return Delivery(gone, place)
        self._note(schema_id, change.key, result)
        state = _state(change.key, result)
        return Delivery(state, place, None if state.deleted else result.document)

    async def _catch_up(self, schema_id: str, position: CatchUp, limit: int, documents: bool) -> Batch:
        deadline_s = self._clock.monotonic_s() + CATCH_UP_SLICE_S
        after, deliveries, size = position.after, list[Delivery](), 0
        while True:
            page = await self._listing.list(schema_id, after=after, limit=LIST_PAGE_MAX, deleted=True)
            wanted = [
                listed for listed in page.entities if listed.updated_ms >= position.since_ms - _MARGIN_MS
            ]
            while wanted:
                chunk = wanted[: min(FEED_READS_MAX, limit - len(deliveries))]
                del wanted[: len(chunk)]
                read = await asyncio.gather(
                    *(self._stored(schema_id, listed, position, documents) for listed in chunk)
                )
                for listed, delivery in zip(chunk, read, strict=True):
                    after = listed.name
                    if delivery is not None:
                        deliveries.append(delivery)
                        size += len(delivery.document or b"")
                        if size > FEED_BATCH_BYTES_MAX:
                            break
                if len(deliveries) >= limit or size > FEED_BATCH_BYTES_MAX:
                    return Batch(deliveries, msgspec.structs.replace(position, after=after), more=True)
            if not page.next:
                return Batch(deliveries, position.then, more=True)
            after = page.next
            if self._clock.monotonic_s() >= deadline_s:
                return Batch(deliveries, msgspec.structs.replace(position, after=after), more=True)

    async def _stored(
        self, schema_id: str, listed: ListedEntity, position: CatchUp, documents: bool
    ) -> Delivery | None:
        """Read what the listing showed; None for what is no entity (any more)."""
        place = msgspec.structs.replace(position, after=listed.name)
        try:
            key = unescape_key(listed.name)
        except Invalid:
            return None
        # What was put late may be newer than what its owner remembers.
        fresh = listed.updated_ms > self._clock.wall_ms() - _MARGIN_MS
        try:
            async with self._document_reads:
                result = await self._entities.state(schema_id, key, with_document=documents, fresh=fresh)
        except NotFound:
            return None
        except Corrupt:
            return Delivery(Change(0, key, 0, "", listed.updated_ms, deleted=False), place, damaged=True)
        if result.updated_ms > position.then.at_ms - _IN_FLIGHT_MS:
            # The answers to this write and to one before it may be on their way to the log yet.
            self._note(schema_id, key, result)
        state = _state(key, result)
        return Delivery(state, place, result.document if documents and not state.deleted else None)

    async def _look(self, schema_id: str, key: str, write_id: bytes) -> bool:
        """Read an entity afresh and note its state; whether the write with this id is in it."""
        if not self.log.follows(schema_id):
            return False
        applied = (await self._entities.resolve(schema_id, key, write_id)).found
        try:
            self._note(schema_id, key, await self._entities.state(schema_id, key))
        except NotFound:
            pass
        return applied

    def _note(self, schema_id: str, key: str, result: Result) -> None:
        """Let the log know of a state that was read: no reader may meet an older one after it."""
        self.log.note(schema_id, key, result.version, result.etag, result.updated_ms, deleted=not result.etag)


def _state(key: str, result: Result) -> Change:
    return Change(0, key, result.version, result.etag, result.updated_ms, not result.etag)
