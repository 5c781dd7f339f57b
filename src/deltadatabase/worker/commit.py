"""Performs commands on entities: reads, validation, sealing and conditional puts.

The order of things is the protocol of ARCHITECTURE section 3. Two rules carry the rest: an
acknowledgement follows the commit, and an object is only ever replaced by a put that is
conditional on exactly the object that the decision was made from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from deltadatabase.clock import Clock
from deltadatabase.errors import (
    AlreadyExists,
    Corrupt,
    DeltaError,
    NotFound,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.limits import (
    COMMIT_ATTEMPTS_MAX,
    ENTITY_WAITERS_MAX,
    PLANNING_S_MAX,
    RECENT_WRITES_MAX,
    SETTLED_AFTER_MS,
    TOMBSTONE_AGE_S,
)
from deltadatabase.model import Command, Header, Op, Result
from deltadatabase.storage.base import Store, When
from deltadatabase.storage.paths import entity_path
from deltadatabase.worker.cache import Cache, Entry, Name
from deltadatabase.worker.checking import Checked, Checks
from deltadatabase.worker.counts import Counts
from deltadatabase.worker.creations import Creations
from deltadatabase.worker.engine import (
    Plan,
    applied_version,
    check_owner,
    etag_of,
    live_etag,
    oldest_known,
)
from deltadatabase.worker.locks import EntityLocks
from deltadatabase.worker.ports import Lease, Schemas, Sealer, Sidecar, StoredNames
from deltadatabase.worker.tombstones import Tombstones
from deltadatabase.worker.writes import Attempt, PendingWrite, WriteQueue

RETRY_DELAY_S = 0.05


class Committer:
    """Executes every command on an entity of an owned shard.

    Args:
        store: where the truth is.
        sealer: called to obtain the present sealer, which changes when keys do.
        schemas: the schemas in force.
        cache: committed values.
        clock: wall time for headers, monotonic time for deadlines.
        lease: asked before each put.
        sidecar: told of each commit; None: no meta files.
        names: told of each object that is put, read or removed; None: nobody follows them.
        tombstone_age_s: seconds for which a tombstone is kept, where the store can remove it safely.
        recent_writes_max: how many earlier writes a header remembers.
        creations: which puts are tried as creates first; None: as those before them tell.
    """

    def __init__(
        self,
        store: Store,
        sealer: Callable[[], Sealer],
        schemas: Schemas,
        cache: Cache,
        *,
        clock: Clock,
        lease: Lease,
        sidecar: Sidecar | None,
        names: StoredNames | None = None,
        tombstone_age_s: float = TOMBSTONE_AGE_S,
        recent_writes_max: int = RECENT_WRITES_MAX,
        creations: Creations | None = None,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._checks = Checks(schemas, clock)
        self._cache = cache
        self._clock = clock
        self._lease = lease
        self._sidecar = sidecar
        self._names = names
        self._recent_writes_max = recent_writes_max
        self._creations = creations or Creations()
        self._locks = EntityLocks(waiters_max=ENTITY_WAITERS_MAX)
        self._tombstones = (
            Tombstones(self._remove_tombstone, clock=clock, age_s=tombstone_age_s) if store.removes else None
        )
        self._seen_terms: dict[int, int] = {}
        self.counts = Counts()
        self._writes = WriteQueue(self._locks, self._commit, waiting_max=ENTITY_WAITERS_MAX)

    def fast(self, command: Command) -> Result | None:
        """Answer a read from the cache, without a wait; None when that can't be done.

        Raises:
            NotOwner: the command's term is out of date.
        """
        if command.op is not Op.GET:
            return None
        self._check_term(command)
        entry = self._cache.get((command.schema_id, command.key), command.term, self._clock.monotonic_s())
        return None if entry is None else _read_result(entry, command)

    async def execute(self, command: Command) -> Result:
        """Execute one command.

        A write runs on when the caller goes away: its put may be on the wire already, and the
        entity stays locked until the outcome is known.

        Raises:
            DeltaError: any; ``certain`` tells whether a write was certainly not applied.
        """
        if command.op is Op.GET:
            return await self._get(command)
        if command.op is Op.VALIDATE:
            valid = await self._checks.document(command)
            return Result(schema_hash=valid.schema_hash, validate_us=valid.spent_us)
        if command.op is Op.RESOLVE:
            return await self._resolve(command)
        if command.op in (Op.KEY_OF, Op.RESEAL):
            return await self._about_key(command)
        checked: Checked | None = None
        patching = None
        if command.op is Op.PUT and not command.validated:
            checked = await self._checks.document(command)
        elif command.op is Op.PATCH:
            checked = patching = await self._checks.patch(command)
        elif command.op is Op.DELETE:
            await self._checks.delete(command)
        name = (command.schema_id, command.key)
        return await self._writes.write(
            name, PendingWrite(command, self._clock.monotonic_s(), patching, checked)
        )

    async def settle(self, timeout_s: float) -> None:
        """Wait until no write is under way, at most ``timeout_s`` seconds, and remove nothing more."""
        await self._writes.settle(timeout_s)
        if self._tombstones is not None:
            await self._tombstones.close()

    @property
    def writes_waiting(self) -> int:
        """Writes that wait for their turn behind others of their entity."""
        return self._writes.waiting

    def _check_term(self, command: Command) -> None:
        seen = self._seen_terms.get(command.shard, 0)
        if command.term < seen:
            raise NotOwner("shard has a newer owner")
        if command.term > seen:
            self._seen_terms[command.shard] = command.term

    async def _get(self, command: Command) -> Result:
        name = (command.schema_id, command.key)
        started = self._clock.monotonic_s()
        async with self._locks.hold(name):
            self._check_term(command)
            queue_us = self._us_since(started)
            entry = self._cache.get(name, command.term, self._clock.monotonic_s())
            if entry is None:
                entry = await self._load(name, command.term)
        return _read_result(entry, command, queue_us=queue_us, store_us=self._us_since(started) - queue_us)

    async def _resolve(self, command: Command) -> Result:
        name = (command.schema_id, command.key)
        async with self._locks.hold(name):
            self._check_term(command)
            entry = await self._load(name, command.term, sure=True)
        version = applied_version(entry.header, command.write_id)
        if entry.header is None:
            return Result(found=False)
        if not version:
            return Result(found=False, version=entry.header.version, number=oldest_known(entry.header))
        patched = command.number and version == entry.header.version
        return Result(
            found=True,
            version=version,
            etag=etag_of(version, command.write_id),
            updated_ms=entry.header.updated_ms,
            document=entry.document if patched else b"",
        )

    async def _about_key(self, command: Command) -> Result:
        """Find out which master key seals an entity, and seal it anew if that is asked for.

        Whoever asks walks over all entities: what was not cached before is not cached afterwards.
        """
        name = (command.schema_id, command.key)
        was_cached = self._cache.get(name, command.term, self._clock.monotonic_s()) is not None
        needed = False
        if command.op is Op.RESEAL:
            if self._sealer().key_id != command.document:
                raise Unavailable("that master key is not the primary one here", code="key_unavailable")
            resealed = await self._writes.write(name, PendingWrite(command, self._clock.monotonic_s()))
            needed = resealed.number > 0
        async with self._locks.hold(name):
            self._check_term(command)
            entry = self._cache.get(name, command.term, self._clock.monotonic_s())
            if entry is None:
                entry = await self._load(name, command.term)
            if not was_cached:
                self._cache.evict(name)
        if entry.header is None:
            return Result(found=False)
        return Result(
            found=True,
            version=entry.header.version,
            updated_ms=entry.header.updated_ms,
            number=int(needed),
            key_id=entry.header.key_id,
        )

    async def _load(
        self, name: Name, term: int, *, sure: bool = False, refused: Attempt | None = None
    ) -> Entry:
        """Read the entity afresh into the cache. The caller holds its lock.

        What is read will be answered, so it has to be durable. Its writer may have been killed
        between making it visible and making it durable, if it is not old.

        Args:
            name: the entity.
            term: of the command that asks.
            sure: a write will be acknowledged for what is read: do not trust its age.
            refused: as for ``_reload``.

        Raises:
            NotOwner: a newer term was met; nothing is cached then.
        """
        self._cache.evict(name)
        self.counts.cache_misses += not sure
        path = entity_path(*name)
        try:
            stored = await self._store.get(path)
            if sure or stored.updated_ms > self._clock.wall_ms() - SETTLED_AFTER_MS:
                await self._store.settle(path)
        except NotFound:
            entry = Entry(term, None, b"", "", "", self._clock.monotonic_s())
        else:
            header, document = self._sealer().open(stored.data, *name)
            self.counts.opens += 1
            if refused is not None and oldest_known(header) == 1:
                refused.open = any(applied_version(header, each.command.write_id) for each in refused.writes)
            check_owner(header, term)
            entry = Entry(term, header, document, stored.etag, live_etag(header), self._clock.monotonic_s())
            self._note_stored(name, entry)
        self._cache.put(name, entry)
        return entry

    async def _commit(self, name: Name, writes: Sequence[PendingWrite]) -> None:
        """Commit a group of writes of one entity and answer each. The caller holds its lock."""
        writes = self._wanted(writes)
        if not writes:
            return
        attempt = Attempt(writes)
        try:
            await self._commit_plan(name, attempt)
        except Exception as exc:  # noqa: BLE001 - whatever it is, each write must be answered
            # What the store certainly refused changed nothing: reads of the cached value go on.
            certain = isinstance(exc, DeltaError) and exc.certain and not isinstance(exc, NotOwner)
            if attempt.open or not certain:
                self._cache.evict(name)
            attempt.fail(exc)
        except BaseException:
            self._cache.evict(name)
            raise

    def _wanted(self, writes: Sequence[PendingWrite]) -> Sequence[PendingWrite]:
        """Refuse what came under an earlier term or too late; the rest has one term."""
        now_s = self._clock.monotonic_s()
        newest = max(writes, key=lambda write: write.command.term)
        wanted: list[PendingWrite] = []
        for write in writes:
            try:
                self._check_term(newest.command)
                self._check_term(write.command)
            except NotOwner as exc:
                write.fail(exc)
                continue
            if now_s > write.deadline_s:
                write.fail(Overloaded("the entity was busy for too long", code="entity_busy"))
                continue
            write.queue_us = int((now_s - write.queued_s) * 1e6)
            wanted.append(write)
        return wanted

    async def _commit_plan(self, name: Name, attempt: Attempt) -> None:
        entry = self._cache.get(name, attempt.term, self._clock.monotonic_s())
        if entry is None:
            entry = await self._begin(name, attempt)
        for _ in range(COMMIT_ATTEMPTS_MAX):
            made = attempt.plan = await self._plan(entry, attempt.writes)
            if made.header is None:
                attempt.succeed()
                return
            sealing = self._clock.monotonic_s()
            sealer = self._sealer()
            header = msgspec.structs.replace(made.header, key_id=sealer.key_id)
            sealed = sealer.seal(header, made.document)
            self.counts.seals += 1
            attempt.seal_us += self._us_since(sealing)
            putting = self._clock.monotonic_s()
            fresh = await self._put(name, attempt, entry.store_etag, sealed, header, made.document)
            attempt.store_us += self._us_since(putting)
            # A create is mostly tried without a look, so what is there may be of an earlier put of the
            # same write; decided again, it is found to be a repeat.
            ours = fresh.header is header or fresh.header == header
            if ours or (entry.header is not None and made.committed(fresh.header)):
                if ours and self._sidecar is not None:
                    self._sidecar.note(*name, sealed)
                self.counts.puts += 1
                self.counts.writes += len(attempt.writes)
                attempt.succeed()
                return
            entry = fresh
        raise Unavailable("other writers kept changing this entity", code="contended")

    async def _begin(self, name: Name, attempt: Attempt) -> Entry:
        """What to decide on where nothing is cached: what is stored, or that there is nothing.

        The latter is a guess, so it is neither cached nor answered from: the first write, then, is a
        put without a condition that refuses it, and every answer waits for the create, which tells.
        """
        first = attempt.writes[0].command
        if self._creations.expected(first):
            return Entry(attempt.term, None, b"", "", "", self._clock.monotonic_s())
        entry = await self._load(name, attempt.term)
        if first.op is Op.PUT and entry.header is not None:
            self._creations.note(name[0], created=False)
        return entry

    async def _plan(self, entry: Entry, writes: Sequence[PendingWrite]) -> Plan:
        made = Plan(
            entry.header,
            entry.document,
            count=len(writes),
            now_ms=self._clock.wall_ms(),
            recent_max=self._recent_writes_max,
        )
        begun_s = self._clock.monotonic_s()
        for write in writes:
            made.add(write.command, write.change)
            # Each patch is as long as the check of a document may be, and many may have gathered.
            if write.change is not None and self._clock.monotonic_s() - begun_s > PLANNING_S_MAX:
                await asyncio.sleep(0)
                begun_s = self._clock.monotonic_s()
        return made

    async def _put(
        self, name: Name, attempt: Attempt, store_etag: str, sealed: bytes, header: Header, document: bytes
    ) -> Entry:
        """Put the sealed entity, and find out what is stored now. The caller holds its lock.

        Returns:
            The entry that is committed now: ours, or what others wrote since; then our
            put can never land any more, because the object that it depends on is gone.

        Raises:
            OutcomeUnknown: it could not be found out in time.
        """
        condition = store_etag or When.ABSENT
        under_way = False
        while True:
            if not self._lease.holds():
                raise NotOwner("membership is not known to be alive")
            try:
                new_etag = await self._store.put(entity_path(*name), sealed, condition)
            except (AlreadyExists, VersionMismatch, OutcomeUnknown) as exc:
                # A failed condition, too, may be our own success: a lost reply, a proxy's
                # second try. What is stored tells.
                attempt.open = True
                under_way |= isinstance(exc, OutcomeUnknown)
                if isinstance(exc, AlreadyExists):
                    self._creations.note(name[0], created=False)
                refused = isinstance(exc, AlreadyExists) and not under_way
                try:
                    fresh = await self._reload(name, attempt, refused=refused)
                except (Corrupt, Unavailable) as unread:
                    if refused and (isinstance(unread, Corrupt) or unread.code == "key_unavailable"):
                        # Told as to every other call. Of the own put's success only another owner's
                        # could have made this, and then the router does not believe it.
                        attempt.open = False
                    raise
                if fresh.store_etag != store_etag:
                    if under_way and fresh.header is None:
                        # Entities do not vanish: the store was emptied. When it is restored, the
                        # object that the put depends on is back, and it may land after all.
                        raise OutcomeUnknown("the entity vanished while it was being written") from exc
                    attempt.open = False
                    return fresh
                # Not there yet. The same bytes under the same condition can land only once,
                # whichever of the puts the store takes first.
                await self._pause(attempt)
                self.counts.put_retries += 1
                continue
            entry = Entry(
                attempt.term, header, document, new_etag, live_etag(header), self._clock.monotonic_s()
            )
            self._cache.put(name, entry)
            self._note_stored(name, entry)
            if condition is When.ABSENT:
                self._creations.note(name[0], created=True)
            return entry

    def _note_stored(self, name: Name, entry: Entry) -> None:
        if self._names is not None:
            self._names.stored(name)
        if self._tombstones is not None and entry.header is not None and entry.header.tombstone:
            self._tombstones.note(name, entry.store_etag)

    async def _remove_tombstone(self, name: Name, store_etag: str) -> None:
        async with self._locks.hold(name, bounded=False):
            if not self._lease.holds():
                return  # The next owner meets it and notes it for itself.
            self._cache.evict(name)
            await self._store.remove(entity_path(*name), store_etag)
            if self._names is not None:
                self._names.removed(name)
            if self._sidecar is not None:
                self._sidecar.forget(*name)

    async def _reload(self, name: Name, attempt: Attempt, *, refused: bool = False) -> Entry:
        """Read afresh until the store answers or the deadline has passed.

        Args:
            name: the entity.
            attempt: is closed if it was refused as a create and the whole history lacks its writes.
            refused: the store says that its first put met an object.
        """
        while True:
            try:
                return await self._load(name, attempt.term, sure=True, refused=attempt if refused else None)
            except Unavailable as exc:
                if isinstance(exc, NotOwner) or exc.code == "key_unavailable":
                    raise
                await self._pause(attempt)
                self.counts.get_retries += 1

    async def _pause(self, attempt: Attempt) -> None:
        if self._clock.monotonic_s() + RETRY_DELAY_S > attempt.deadline_s:
            raise OutcomeUnknown("the store did not confirm the write in time")
        await asyncio.sleep(RETRY_DELAY_S)

    def _us_since(self, started_s: float) -> int:
        return int((self._clock.monotonic_s() - started_s) * 1e6)


def _read_result(entry: Entry, command: Command, *, queue_us: int = 0, store_us: int = 0) -> Result:
    header = entry.header
    if header is None or (header.tombstone and not command.deleted):
        raise NotFound("there is no such entity", code="entity_not_found")
    unwanted = command.if_none_match
    unchanged = unwanted is not None and ("*" in unwanted or entry.etag in unwanted)
    return Result(
        version=header.version,
        etag=entry.etag,
        updated_ms=header.updated_ms,
        document=b"" if unchanged else entry.document,
        not_modified=unchanged,
        queue_us=queue_us,
        store_us=store_us,
    )
