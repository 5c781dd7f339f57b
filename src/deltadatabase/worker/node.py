"""One worker, whole: every command goes in here, from the stream or from the same process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from deltadatabase.clock import Clock
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.format import is_tombstone_size
from deltadatabase.errors import Corrupt, Invalid, NotFound, Unavailable
from deltadatabase.limits import CACHE_BYTES_DEFAULT, KIB, LIST_PAGE_MAX, SCRUB_PAGE_DIRECTORY
from deltadatabase.model import Command, Op, Result, StoreReport
from deltadatabase.schema.registry import SchemaRegistry
from deltadatabase.schema.validator import CompiledSchema, compile_schema
from deltadatabase.storage.base import Store
from deltadatabase.storage.database import read_database, reserve_epochs, retire_key
from deltadatabase.storage.paths import FILES, check_key, check_schema_id
from deltadatabase.telemetry.audit import Audit
from deltadatabase.worker.alarm import IntegrityAlarm
from deltadatabase.worker.cache import Cache
from deltadatabase.worker.commit import Committer
from deltadatabase.worker.listing import Lister
from deltadatabase.worker.name_index import NameIndexes
from deltadatabase.worker.ports import Lease
from deltadatabase.worker.sidecar import MetaSidecar
from deltadatabase.worker.templates import Templates

SCHEMA_INLINE_BYTES_MAX: Final = 16 * KIB
NAMED: Final = frozenset(
    {Op.GET, Op.PUT, Op.PATCH, Op.DELETE, Op.RESOLVE, Op.VALIDATE, Op.KEY_OF, Op.RESEAL}
    | {Op.LIST, Op.SCHEMA_GET, Op.SCHEMA_PUT, Op.SCHEMA_DELETE}
)
"""Commands about an entity or a schema."""


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """Tunable parts of a worker.

    Attributes:
        cache_bytes: bound on cached documents and their overhead.
        cache_entries: bound on cached entities; 0: by bytes only.
        cache_ttl_s: age at which a cached value is read again; 0: never.
        meta_sidecar: whether the readable meta files are written.
    """

    cache_bytes: int = CACHE_BYTES_DEFAULT
    cache_entries: int = 0
    cache_ttl_s: float = 0.0
    meta_sidecar: bool = True


class Node:
    """Executes commands on one store. Fulfils ``rpc.stream.Handler``.

    Args:
        store: an opened and probed store; closed by ``close``.
        sealer: called to obtain the present sealer.
        report: what the start-up probe found, for the main worker.
        clock: time.
        lease: whether writes may be issued now.
        options: tunable parts.
        audit: hears of damaged entities; None: they are in the log only.
        key_missing: told when an entity's master key is not in the keyring; a newer one may have it.
    """

    def __init__(
        self,
        store: Store,
        sealer: Callable[[], Sealer],
        report: StoreReport,
        *,
        clock: Clock,
        lease: Lease,
        options: NodeOptions,
        audit: Audit | None = None,
        key_missing: Callable[[], None] = lambda: None,
    ) -> None:
        self._key_missing = key_missing
        self.report = report
        self.templates = Templates(store)
        self.cache = Cache(
            bytes_max=options.cache_bytes, entries_max=options.cache_entries, ttl_s=options.cache_ttl_s
        )
        self.schemas = SchemaRegistry(self.templates)
        self._store = store
        self._clock = clock
        self._lease = lease
        self._alarm = IntegrityAlarm(clock, audit or Audit(clock))
        self._sidecar = (
            MetaSidecar(store, lambda sealed: sealer().meta_json(sealed)) if options.meta_sidecar else None
        )
        self._indexes = NameIndexes(store, clock=clock) if store.backend == "directory" else None
        self._lister = Lister(store, self._indexes)
        self._committer = Committer(
            store,
            sealer,
            self.schemas,
            self.cache,
            clock=clock,
            lease=lease,
            sidecar=self._sidecar,
            names=self._indexes,
        )
        self.counts = self._committer.counts
        #: Answer a cached read without a wait; see ``Committer.fast``.
        self.fast = self._committer.fast

    async def execute(self, command: Command) -> Result:
        """Execute any command. Raises DeltaError."""
        if command.op in NAMED:
            check_schema_id(command.schema_id)
        match command.op:
            case Op.GET | Op.PUT | Op.PATCH | Op.DELETE | Op.RESOLVE | Op.VALIDATE | Op.KEY_OF | Op.RESEAL:
                check_key(command.key)
                try:
                    return await self._committer.execute(command)
                except Corrupt:
                    self.counts.integrity_failures += 1
                    self._alarm.raised(command)
                    raise
                except Unavailable as exc:
                    if exc.code == "key_unavailable":
                        self._key_missing()
                    raise
            case Op.SCHEMA_GET:
                return await self._schema_get(command.schema_id)
            case Op.SCHEMA_PUT:
                may_put = self._until(command)
                compiled = await _compile(command.document)
                await self.templates.replace(command.schema_id, command.document, may_put)
                return Result(schema_hash=compiled.hash)
            case Op.SCHEMA_DELETE:
                await self.templates.remove(command.schema_id, self._until(command))
                return Result()
            case Op.SCHEMA_LIST:
                return Result(names=await self.templates.schema_ids())
            case Op.NAMESPACES:
                return Result(names=await self.templates.namespaces(is_tombstone_size))
            case Op.LIST:
                listed = await self._lister.page(command)
                if not (listed.entities or listed.next or command.key):
                    await self._check_database()
                return listed
            case Op.RESERVE_EPOCHS:
                found, highest = await reserve_epochs(
                    self._store,
                    expected=command.term,
                    highest=command.number,
                    reservation=command.write_id.hex(),
                )
                return Result(found=found, number=highest)
            case Op.OBJECT_NAMES:
                largest = SCRUB_PAGE_DIRECTORY if self._store.backend == "directory" else LIST_PAGE_MAX
                limit = min(command.number or largest, largest)
                page = await self._store.list(FILES, after=command.key, limit=limit)
                if not page:
                    # A bucket that was emptied, or another one, is not the end of ours.
                    await self._check_database()
                return Result(names=tuple(info.path for info in page))
            case Op.RETIRE_KEY:
                return Result(found=await retire_key(self._store, command.key))
        raise Invalid("command is not known to this worker", code="unknown_op")

    @property
    def writes_waiting(self) -> int:
        """Writes that wait for their turn behind others of their entity."""
        return self._committer.writes_waiting

    async def settle(self, timeout_s: float) -> None:
        """Let running writes and pending meta files end, each at most ``timeout_s`` seconds.

        Called once, when nothing more will be asked of this worker.
        """
        await self._committer.settle(timeout_s)
        if self._indexes is not None:
            await self._indexes.close()
        if self._sidecar is not None:
            await self._sidecar.flush(timeout_s)

    async def close(self) -> None:
        """Release the store. Call ``settle`` first."""
        await self._store.close()

    async def _check_database(self) -> None:
        try:
            info = await read_database(self._store)
        except NotFound:
            info = None
        if info is None or info.database_id != self.report.database.database_id:
            raise Unavailable("the store does not hold this database any more", code="store_gone")

    def _until(self, command: Command) -> Callable[[], bool]:
        """Return whether work on this command may still change the store: asked again and again."""
        membership = self._lease.membership
        deadline_s = self._clock.monotonic_s() + command.timeout_ms / 1000
        return lambda: (
            self._lease.holds()
            and self._lease.membership == membership
            and self._clock.monotonic_s() < deadline_s
        )

    async def _schema_get(self, schema_id: str) -> Result:
        text = await self.templates.template(schema_id)
        if text is None:
            raise NotFound("there is no such schema", code="schema_not_found")
        # Not compiled: an S3 client may have put anything there, and it is shown as it is.
        return Result(document=text, schema_hash=hashlib.sha256(text).hexdigest())


async def _compile(text: bytes) -> CompiledSchema:
    # A large one would hold the event loop for long enough to be noticed by every client.
    if len(text) > SCHEMA_INLINE_BYTES_MAX:
        return await asyncio.to_thread(compile_schema, text)
    return compile_schema(text)
