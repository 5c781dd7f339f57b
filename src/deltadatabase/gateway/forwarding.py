"""The router: finds the owner of each entity, sends it the command, and judges its reply.

The protocol is ARCHITECTURE section 3. What keeps it safe here: a reply counts only while the
term it was asked under is still the shard's (I6); a read that lost its owner is sent again; a
write is sent again only after an answer that says it was certainly not applied, otherwise its
write id is looked up in the store by the present owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from deltadatabase.clock import Clock, Random
from deltadatabase.errors import (
    Conflict,
    DeltaError,
    Invalid,
    Issue,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    PartlyApplied,
    PreconditionRequired,
    Unavailable,
)
from deltadatabase.gateway.listings import Listings, share_of
from deltadatabase.gateway.revisions import Revisions
from deltadatabase.limits import (
    BATCH_IN_FLIGHT_MAX,
    BATCH_ISSUES_MAX,
    DOCUMENT_BYTES_MAX_DEFAULT,
    HELD_REQUESTS_MAX,
    MOVE_HOLD_S,
    REQUEST_TIMEOUT_MS,
    SCHEMA_ROUNDS_MAX,
    WRITE_ID_BYTES,
)
from deltadatabase.model import Command, Op, PatchKind, Result
from deltadatabase.placement.membership import Member, Placement
from deltadatabase.placement.ring import shard_of

_WRITES: Final = frozenset({Op.PUT, Op.PATCH, Op.DELETE})
RETRY_PAUSE_S: Final = 0.02
READ_LOSSES_MAX: Final = 3
FOREIGN_WRITER: Final = "foreign_writer"
STORE_GONE: Final = "store_gone"
RESEND_CODES: Final = frozenset({"link_down", "not_owner"})
"""Codes of ``Unavailable`` that a look at the present owner can cure."""


class Link(Protocol):
    """The way to one worker; ``local``: in this process, so that ``cached`` may answer."""

    local: bool

    def cached(self, command: Command) -> Result | None:
        """Answer a read at once, if nothing has to be waited for; else None. Raises DeltaError."""
        ...

    async def call(self, command: Command) -> Result:
        """Send a command and wait for its answer. Raises DeltaError."""
        ...


class Observer(Protocol):
    """Hears of every write that may have been applied (``following``). No method blocks or raises."""

    def written(self, command: Command, result: Result) -> None:
        """A write was applied, or met nothing to do; the answer leaves now."""
        ...

    def uncertain(self, command: Command) -> None:
        """A write ended otherwise, and was perhaps applied or may be yet."""
        ...

    def reopened(self) -> None:
        """Data are served again; the store may hold others than before."""
        ...


class Router(Listings):
    """Routes commands over the joined workers.

    Args:
        clock: monotonic time for deadlines.
        random: write ids.
        timeout_ms: time for one request of a client.
        document_bytes_max: what a PATCH may make of a document.
        move_hold_s: for how long requests wait at the most while their shard moves.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        random: Random,
        timeout_ms: int = REQUEST_TIMEOUT_MS,
        document_bytes_max: int = DOCUMENT_BYTES_MAX_DEFAULT,
        move_hold_s: float = MOVE_HOLD_S,
    ) -> None:
        self._clock = clock
        self._random = random
        self.revisions = Revisions()
        self._timeout_s = timeout_ms / 1000
        self._document_bytes_max = document_bytes_max
        self._move_hold_s = move_hold_s
        self._placement: Placement | None = None
        self._links: dict[str, Link] = {}
        self._in_flight: list[int] = []
        self._held: dict[int, asyncio.Future[None]] = {}
        self._held_requests = 0
        self._quiet = asyncio.Event()
        self._changed: asyncio.Future[None] | None = None
        self._rebalancing = asyncio.Lock()
        self._next_link = 0
        #: How often a shard got another owner.
        self.moves = 0
        #: Writes of unknown outcome that were looked for.
        self.lookups = 0
        self._closures: dict[str, str] = {}
        self._closings = 0
        #: Hears of writes.
        self.observer: Observer | None = None
        #: Called when an entity with a term was met that this main worker never issued.
        self.on_foreign_term: Callable[[int], None] = lambda term: None
        #: Called when few of the reserved epochs are left.
        self.on_epochs_low: Callable[[], None] = lambda: None

    @property
    def in_flight(self) -> int:
        """Commands on entities that workers have; also from another thread."""
        return sum(self._in_flight)

    @property
    def held_requests(self) -> int:
        """Requests that wait while their shard moves."""
        return self._held_requests

    # -- whether data is served --------------------------------------------------------

    @property
    def closures(self) -> Mapping[str, str]:
        """Why no data is served now: reason codes, each with a sentence; empty while it is."""
        return self._closures

    def close(self, code: str, detail: str) -> None:
        """Serve no data from now on, for one reason more."""
        self._closings += code not in self._closures
        self._closures.setdefault(code, detail)

    def reopen(self, code: str) -> None:
        """Take one reason away; data is served again if it was the only one.

        Every term is raised. What workers read while it held, absence above all, may be in their
        caches and on its way, and must not be taken for the present. For ``store_gone`` alone:
        nothing undoes a second main worker.
        """
        assert code == STORE_GONE
        if self._closures.pop(code, None) is None or self._placement is None:
            return
        self._placement.release()
        self._apply(self._placement.orphans())
        if self.observer is not None:
            self.observer.reopened()

    def check_open(self) -> None:
        """Raise Unavailable while no data is served."""
        if self._closures:
            # The reason that no operator can wait out goes first.
            code = FOREIGN_WRITER if FOREIGN_WRITER in self._closures else next(iter(self._closures))
            raise Unavailable(self._closures[code], code=code)

    # -- placement ---------------------------------------------------------------------

    @property
    def placement(self) -> Placement | None:
        """The table, once a database is bound."""
        return self._placement

    def bind(self, placement: Placement, *, backend: str = "") -> None:
        """Serve one database, on this kind of store, from now on. Called once, before the first ``join``."""
        self._placement = placement
        self.lists_by_owner = backend == "directory"
        self.revisions.begin(placement.epoch)
        self._in_flight = [0] * placement.shards

    async def join(self, member: Member, link: Link) -> None:
        """Let a worker in and move its shards to it, without failing a request."""
        placement = self._bound()
        self._links[member.instance_id] = link
        placement.add(member)
        await self._rebalance()

    async def drain(self, instance_id: str) -> None:
        """Move everything away from a worker that wants to go."""
        self._bound().drain(instance_id)
        await self._rebalance()

    def leave(self, instance_id: str) -> None:
        """End a membership at once: the worker died, or is gone after its drain."""
        placement = self._bound()
        self._links.pop(instance_id, None)
        placement.remove(instance_id)
        self._apply(placement.orphans())

    def retry_orphans(self) -> None:
        """Give shards without an owner away; after epochs ran out and were reserved again."""
        self._apply(self._bound().orphans())

    async def _rebalance(self) -> None:
        """Hold the moving shards' requests, let those in flight end, then raise the terms."""
        async with self._rebalancing:
            placement = self._bound()
            moving = placement.pending()
            if not moving:
                return
            hold: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            for shard in moving:
                self._held[shard] = hold
            try:
                await self._wait_quiet(moving)
                self._apply(moving)
            finally:
                for shard in moving:
                    self._held.pop(shard, None)
                hold.set_result(None)

    async def _wait_quiet(self, shards: list[int]) -> None:
        deadline = self._clock.monotonic_s() + self._move_hold_s
        while busy := [shard for shard in shards if self._in_flight[shard]]:
            left = deadline - self._clock.monotonic_s()
            if left <= 0:
                return  # Safe all the same: late replies are dropped, their writes looked up.
            shards = busy
            self._quiet.clear()
            try:
                async with asyncio.timeout(left):
                    await self._quiet.wait()
            except TimeoutError:
                return

    def _apply(self, shards: list[int]) -> None:
        placement = self._bound()
        try:
            self.moves += len(placement.apply(shards))
        except Unavailable:
            self.on_epochs_low()  # The shards stay without an owner (503) until some are reserved.
        else:
            if placement.epoch_limit - placement.epoch < EPOCHS_LOW:
                self.on_epochs_low()
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    def _bound(self) -> Placement:
        if self._placement is None:
            raise Unavailable("no worker has joined", code="no_worker")
        return self._placement

    # -- entities ----------------------------------------------------------------------

    def cached(self, schema_id: str, key: str, *, request_id: str = "") -> Result | None:
        """Read one entity whose owner has it at hand in this process; None: ask ``get``.

        Nothing is waited for, so the term under which it is asked is still the shard's when it
        answers. Raises NotFound.
        """
        placement = self._placement
        if placement is None or self._closures:
            return None
        shard = shard_of(schema_id, key, placement.shards)
        owner = placement.owners[shard]
        if owner is None or shard in self._held or not self._links[owner].local:
            return None
        command = Command(
            op=Op.GET,
            schema_id=schema_id,
            key=key,
            shard=shard,
            term=placement.terms[shard],
            request_id=request_id,
        )
        try:
            return self._links[owner].cached(command)
        except NotOwner:
            return None

    async def get(
        self,
        schema_id: str,
        key: str,
        *,
        if_none_match: tuple[str, ...] | None = None,
        request_id: str = "",
    ) -> Result:
        """Read one entity. Raises NotFound, Unavailable, Corrupt."""
        command = Command(
            op=Op.GET, schema_id=schema_id, key=key, if_none_match=if_none_match, request_id=request_id
        )
        return await self._read(command)

    async def state(
        self, schema_id: str, key: str, *, with_document: bool = False, fresh: bool = False
    ) -> Result:
        """Read an entity or its tombstone, whose ``etag`` is "".

        Args:
            schema_id: of the entity.
            key: of the entity.
            with_document: bring its document along.
            fresh: do not trust what its owner remembers.

        Raises:
            NotFound: there is neither.
            Unavailable, Corrupt: as for ``get``.
        """
        if fresh:
            await self.resolve(schema_id, key, bytes(WRITE_ID_BYTES))
        unwanted = None if with_document else ("*",)
        return await self._read(
            Command(op=Op.GET, schema_id=schema_id, key=key, if_none_match=unwanted, deleted=True)
        )

    async def put(
        self,
        schema_id: str,
        documents: Mapping[str, bytes],
        *,
        write_ids: Mapping[str, bytes] | None = None,
        request_id: str = "",
    ) -> dict[str, Result]:
        """Write entities; all are validated, under one version of the schema, before any is stored.

        Raises:
            Invalid: a document is refused; nothing was stored.
            PartlyApplied: the store failed part-way; tells the outcome of each key.
        """
        named = write_ids or {}
        if len(documents) == 1:
            ((key, document),) = documents.items()
            return {
                key: await self.put_one(
                    schema_id, key, document, write_id=named.get(key), request_id=request_id
                )
            }
        commands = [
            self._write_command(
                Op.PUT, schema_id, key, document=document, write_id=named.get(key), request_id=request_id
            )
            for key, document in documents.items()
        ]
        pinned = await self._validate_all(commands)
        outcomes = await _gather(
            [
                self._write(msgspec.structs.replace(command, validated=True, schema_hash=pinned))
                for command in commands
            ]
        )
        failed = [outcome for outcome in outcomes if isinstance(outcome, DeltaError)]
        if failed and len(failed) == len(outcomes) and all(error.certain for error in failed):
            raise failed[0]
        if failed:
            cause = next((error for error in failed if not error.certain), failed[0])
            raise PartlyApplied(
                "some of the entities were not stored",
                outcomes={
                    command.key: outcome.version if isinstance(outcome, Result) else outcome.code
                    for command, outcome in zip(commands, outcomes, strict=True)
                },
                cause=cause,
            )
        return {
            command.key: outcome
            for command, outcome in zip(commands, outcomes, strict=True)
            if isinstance(outcome, Result)
        }

    async def put_one(
        self,
        schema_id: str,
        key: str,
        document: bytes,
        *,
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Result:
        """Write one entity, under conditions if any are given.

        Args:
            schema_id: of the entity.
            key: of the entity.
            document: what to write.
            if_match: ETags one of which must be current.
            if_none_match: ETags none of which may be current.
            write_id: names the write, so that its repeat is recognised; None: a new name.
            request_id: for logs.

        Raises:
            Invalid: the schema refuses the document.
            VersionMismatch: a condition fails.
            OutcomeUnknown: it may have been stored.
        """
        return await self._write(
            self._write_command(
                Op.PUT,
                schema_id,
                key,
                document=document,
                if_match=if_match,
                if_none_match=if_none_match,
                write_id=write_id,
                request_id=request_id,
            )
        )

    async def patch(
        self,
        schema_id: str,
        key: str,
        patch: bytes,
        kind: PatchKind,
        *,
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Result:
        """Change one entity's document by a patch.

        Returns:
            Version, ETag and the patched document; b"" when the write was found to have been applied
            earlier and the entity was written since.

        Raises:
            NotFound: there is no such entity.
            Invalid: ``bad_patch``, or the schema refuses the patched document.
            Conflict: ``patch_conflict`` or ``patch_test_failed``.
            DeltaError: like ``put_one``.
        """
        command = self._write_command(
            Op.PATCH,
            schema_id,
            key,
            document=patch,
            if_match=if_match,
            if_none_match=if_none_match,
            write_id=write_id,
            request_id=request_id,
        )
        return await self._write(
            msgspec.structs.replace(command, number=int(kind), document_bytes_max=self._document_bytes_max)
        )

    async def delete(
        self,
        schema_id: str,
        key: str,
        *,
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Result:
        """Delete one entity; ``found`` tells whether there was one. Raises like ``put_one``."""
        return await self._write(
            self._write_command(
                Op.DELETE,
                schema_id,
                key,
                if_match=if_match,
                if_none_match=if_none_match,
                write_id=write_id,
                request_id=request_id,
            )
        )

    async def resolve(self, schema_id: str, key: str, write_id: bytes, *, request_id: str = "") -> Result:
        """Find out, in a fresh store read, whether a write was applied; see ``gateway.ports``."""
        return await self._read(
            Command(op=Op.RESOLVE, schema_id=schema_id, key=key, write_id=write_id, request_id=request_id)
        )

    def _write_command(
        self,
        op: Op,
        schema_id: str,
        key: str,
        *,
        document: bytes = b"",
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Command:
        return Command(
            op=op,
            schema_id=schema_id,
            key=key,
            document=document,
            write_id=write_id or self._random(WRITE_ID_BYTES),
            if_match=if_match,
            if_none_match=if_none_match,
            revision=self.revisions.revision(schema_id),
            request_id=request_id,
        )

    async def _validate_all(self, commands: list[Command]) -> str:
        """Check all documents under one schema version and return its hash."""
        for _ in range(SCHEMA_ROUNDS_MAX):
            revision = self.revisions.revision(commands[0].schema_id)
            outcomes = await _gather(
                [
                    self._read(
                        msgspec.structs.replace(command, op=Op.VALIDATE, write_id=b"", revision=revision)
                    )
                    for command in commands
                ]
            )
            _raise_refusals(commands, outcomes)
            hashes = {outcome.schema_hash for outcome in outcomes if isinstance(outcome, Result)}
            if len(hashes) == 1:
                return hashes.pop()
        raise Conflict("schema kept changing while documents were being checked", code="schema_changed")

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
            outcomes = await _gather(
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

    def _counts(self, shard: int, term: int) -> bool:
        """Whether a reply counts: nobody else owns the shard since, and data is served still.

        What was read from, or committed into, a store that does not hold the database any more
        must not be told once that is known.
        """
        assert self._placement is not None
        return self._placement.terms[shard] == term and not self._closures

    async def _wait_held(self, hold: asyncio.Future[None]) -> None:
        if self._held_requests >= HELD_REQUESTS_MAX:
            raise Overloaded("too many requests wait for shards that are moving", code="moving")
        self._held_requests += 1
        try:
            await asyncio.shield(hold)
        finally:
            self._held_requests -= 1

    async def _pause(self, deadline: float, exc: DeltaError) -> None:
        """Wait for a change of placement, or a moment; raise when the time is up."""
        left = deadline - self._clock.monotonic_s()
        if left <= RETRY_PAUSE_S:
            raise Unavailable("the workers did not answer in time", code="timeout") from exc
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(RETRY_PAUSE_S):
                await asyncio.shield(self._changed)
        except TimeoutError:
            return

    # -- schemas -----------------------------------------------------------------------

    async def schema_get(self, schema_id: str) -> Result:
        """Read a schema as stored. Raises NotFound."""
        return await self.any_worker(Command(op=Op.SCHEMA_GET, schema_id=schema_id))

    async def schema_put(self, schema_id: str, document: bytes) -> Result:
        """Store a schema; it holds for every write that begins after this returns.

        Raises:
            Invalid: not a schema that is served here.
        """
        return await self._change_schema(Command(op=Op.SCHEMA_PUT, schema_id=schema_id, document=document))

    async def schema_delete(self, schema_id: str) -> Result:
        """Remove a schema. Raises NotFound."""
        return await self._change_schema(Command(op=Op.SCHEMA_DELETE, schema_id=schema_id))

    async def schema_list(self) -> tuple[str, ...]:
        """Return the ids of all schemas, ascending."""
        return (await self.any_worker(Command(op=Op.SCHEMA_LIST))).names

    async def namespaces(self) -> tuple[str, ...]:
        """Return every schema id that holds an entity or has a schema, ascending."""
        return (await self.any_worker(Command(op=Op.NAMESPACES))).names

    # -- master keys -------------------------------------------------------------------

    async def object_names(self, after: str) -> tuple[str, ...]:
        """One page of object names below ``files/``, those after ``after``; empty at the end."""
        return (await self.any_worker(Command(op=Op.OBJECT_NAMES, key=after))).names

    async def retire_key(self, key_id: str) -> bool:
        """Note that a master key (id in hex) seals nothing any more; False: the database does not know it."""
        return (await self.any_worker(Command(op=Op.RETIRE_KEY, key=key_id))).found

    async def key_of(self, schema_id: str, key: str) -> Result:
        """Find out which master key seals an entity or its tombstone: ``found`` and ``key_id``."""
        return await self._read(Command(op=Op.KEY_OF, schema_id=schema_id, key=key))

    async def reseal(self, schema_id: str, key: str, key_id: bytes) -> Result:
        """Have an entity or its tombstone sealed anew with the primary master key, whose id is given.

        Repeating it changes nothing, so it is sent again whatever became of it before.

        Raises:
            Unavailable: ``key_unavailable``: its owner has another primary key, or cannot open it.
            Corrupt: it fails its integrity check.
        """
        return await self._read(Command(op=Op.RESEAL, schema_id=schema_id, key=key, document=key_id))

    async def _change_schema(self, command: Command) -> Result:
        # Raised after the store has the change and before the answer leaves, also where the
        # answer is lost: whoever validates under the new revision fetches afterwards.
        try:
            result = await self.any_worker(command)
        except DeltaError as exc:
            if not exc.certain:
                self.revisions.raise_for([command.schema_id])
            raise
        self.revisions.raise_for([command.schema_id])
        return result

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


EPOCHS_LOW: Final = 1000


def _raise_refusals(commands: list[Command], outcomes: list[Result | DeltaError]) -> None:
    """Raise what is wrong with the documents, naming each, or else the first other error."""
    failed = [
        (command.key, outcome)
        for command, outcome in zip(commands, outcomes, strict=True)
        if isinstance(outcome, DeltaError)
    ]
    for _, error in failed:
        if isinstance(error, PreconditionRequired):
            raise error  # Of the schema, not of one document.
    refused = [(key, error) for key, error in failed if isinstance(error, Invalid)]
    if refused:
        issues = [
            msgspec.structs.replace(issue, key=key)
            for key, error in refused
            for issue in (error.issues or (Issue("", "", error.detail),))
        ]
        raise Invalid(
            f"{len(refused)} of {len(commands)} documents are refused; nothing was stored",
            code=refused[0][1].code,
            issues=tuple(issues[:BATCH_ISSUES_MAX]),
        )
    if failed:
        raise failed[0][1]


async def _gather(calls: list[Awaitable[Result]]) -> list[Result | DeltaError]:
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
