"""Frozen values that every part of the system shares. No I/O."""

from __future__ import annotations

import enum
import itertools
import struct
from collections.abc import Iterator
from typing import Final, NewType

import msgspec

Epoch = NewType("Epoch", int)
"""Counter of membership changes; never goes back."""
Term = NewType("Term", int)
"""The epoch at which a shard's present owner got it."""
ShardIndex = NewType("ShardIndex", int)
KeyId = NewType("KeyId", bytes)
"""First 8 bytes of a digest of a master key: names it without revealing it."""
WriteId = NewType("WriteId", bytes)
"""16 random bytes that name one write for ever."""
InstanceId = NewType("InstanceId", str)
"""Random hex name of one run of a worker process."""


_VERSION_BYTES: Final = 8
_RECENT: Final = struct.Struct(">Q16s")
RECENT_WRITE_BYTES: Final = _RECENT.size
"""Of a version and a write id, packed."""


class Op(enum.IntEnum):
    """What a command asks of a worker. The numbers are those of the protobuf enum."""

    GET = 1
    PUT = 2
    DELETE = 3
    RESOLVE = 4
    """Find out, in a fresh store read, whether the write with this id was applied.

    ``number`` as it was in the write: a PATCH's document is in the answer, if it is the present one.
    """
    VALIDATE = 5
    """Check one document against its schema; nothing is stored."""
    KEY_OF = 6
    """Tell which master key the entity is sealed with."""
    RESEAL = 7
    """Seal the entity anew with the primary master key, whose id is ``document``."""
    PATCH = 8
    """Change the entity's document by ``document``, a patch of the ``PatchKind`` ``number``."""
    SCHEMA_GET = 10
    SCHEMA_PUT = 11
    SCHEMA_DELETE = 12
    SCHEMA_LIST = 13
    NAMESPACES = 14
    """List every schema id that holds an entity or a template."""
    LIST = 15
    """One page of a schema's entities: stored names with ``prefix``, after ``key``; at most ``number``."""
    RESERVE_EPOCHS = 20
    """Raise the highest epoch in ``cluster/database.json`` from ``term`` to ``number``."""
    OBJECT_NAMES = 21
    """One page of object names below ``files/``, those after ``key``; at most ``number``."""
    RETIRE_KEY = 22
    """Note in ``cluster/database.json`` that the master key with the id ``key`` seals nothing any more."""


class PatchKind(enum.IntEnum):
    """How the document of a PATCH is to be read."""

    MERGE = 1
    """RFC 7396, JSON Merge Patch."""
    JSON = 2
    """RFC 6902, JSON Patch."""


class Command(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request from the router to a worker.

    Attributes:
        op: what to do.
        schema_id, key: the entity, or the schema alone.
        shard, term: placement as the router sees it; -1 and 0 for commands without an entity.
        write_id: 16 bytes naming the write (PUT, PATCH, DELETE, RESOLVE). Those of all writes under
            one Idempotency-Key of a client begin alike (``limits.WRITE_GROUP_BYTES``).
        document: the JSON text of the document, patch or schema, byte for byte.
        if_match: ETags one of which must be current (``*``: any existing entity); None: no condition.
        if_none_match: ETags none of which may be current (``*``: no entity); None: no condition.
        revision: the router's revision of the schema; a worker behind it fetches first.
        schema_hash: pins a PUT to the schema version that VALIDATE reported; "" otherwise.
        validated: the document passed VALIDATE under ``schema_hash`` already.
        number: argument of RESERVE_EPOCHS; ``term`` is then the highest epoch expected to be
            stored, and ``write_id`` names the reservation. Of PATCH, LIST and OBJECT_NAMES: see there.
        prefix: beginning of the stored names that a LIST wants.
        terms: of a LIST on a directory: for each shard its term if the worker owns it, else 0.
        deleted: a LIST or GET wants deleted entities, too, as far as they are remembered; the answer
            to such a GET has no ``etag``.
        document_bytes_max: of a PATCH: what the document may grow to; 0: the default.
        timeout_ms: time left for the answer.
        request_id: for logs.
        traceparent: W3C Trace Context of who sends it; "" without tracing.
    """

    op: Op
    schema_id: str = ""
    key: str = ""
    shard: int = -1
    term: int = 0
    write_id: bytes = b""
    document: bytes = b""
    if_match: tuple[str, ...] | None = None
    if_none_match: tuple[str, ...] | None = None
    revision: int = 0
    schema_hash: str = ""
    validated: bool = False
    number: int = 0
    prefix: str = ""
    terms: tuple[int, ...] = ()
    deleted: bool = False
    document_bytes_max: int = 0
    timeout_ms: int = 10_000
    request_id: str = ""
    traceparent: str = ""


class ListedEntity(msgspec.Struct, frozen=True, gc=False):
    """An entity as listed, without a look into it.

    Attributes:
        name: of the stored object: the key, escaped. Listings are in its order.
        size_bytes: of the stored, sealed object.
        updated_ms: when the store says that it was written, milliseconds since the Unix epoch.
        deleted: a tombstone; listed only where that is asked for.
    """

    name: str
    size_bytes: int
    updated_ms: int
    deleted: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A worker's answer to a command; failures are raised as ``DeltaError``.

    Attributes:
        version: entity version, 0 when there is none. Of a RESOLVE that found nothing: the present one.
        etag: strong ETag of the entity with its quotes, "" when there is none.
        updated_ms: commit time, milliseconds since the Unix epoch.
        document: the document (GET) or schema (SCHEMA_GET), byte for byte; what a PATCH has made,
            b"" if it is a repeated one and another version is present.
        created: a PUT made an entity that was absent.
        not_modified: a GET's ``if_none_match`` named the current ETag; ``document`` is empty.
        found: a RESOLVE found the write, a DELETE, KEY_OF or RESEAL found an object, RESERVE_EPOCHS
            reserved, or RETIRE_KEY retired.
        schema_hash: version of the schema in force: hex digest of its bytes, "" without one.
        names: schema ids (SCHEMA_LIST, NAMESPACES) or paths (OBJECT_NAMES), in order of the stored names.
        number: answer of RESERVE_EPOCHS: the highest epoch stored now; of RESEAL: 1 when it was needed;
            of a RESOLVE that found nothing: the oldest version whose write id is remembered, 0: none.
        key_id: master key that seals the entity (KEY_OF, RESEAL), b"" otherwise.
        repeated: the write had been applied before; this is what it did then.
        entities: page of a LIST, in order of the stored names.
        next: stored name to go on after (LIST); "" at the end. A page may be short, even empty, before it.
        queue_us, validate_us, seal_us, store_us: where the worker's time went, microseconds.
    """

    version: int = 0
    etag: str = ""
    updated_ms: int = 0
    document: bytes = b""
    created: bool = False
    not_modified: bool = False
    found: bool = False
    schema_hash: str = ""
    names: tuple[str, ...] = ()
    number: int = 0
    key_id: bytes = b""
    repeated: bool = False
    entities: tuple[ListedEntity, ...] = ()
    next: str = ""
    queue_us: int = 0
    validate_us: int = 0
    seal_us: int = 0
    store_us: int = 0


class RecentWrite(msgspec.Struct, frozen=True, gc=False):
    """A write that an entity's stored header still remembers."""

    version: int
    write_id: bytes


class RecentWrites(msgspec.Struct, frozen=True, gc=False):
    """Writes before an entity's last one, newest first, packed as its stored header has them.

    Attributes:
        packed: for each write its version (u64, big-endian) and its write id.
    """

    packed: bytes = b""

    @classmethod
    def of(cls, *writes: RecentWrite) -> RecentWrites:
        """Pack writes, newest first."""
        return cls(b"".join(_RECENT.pack(write.version, write.write_id) for write in writes))

    def __len__(self) -> int:
        return len(self.packed) // _RECENT.size

    def __iter__(self) -> Iterator[RecentWrite]:
        return itertools.starmap(RecentWrite, _RECENT.iter_unpack(self.packed))

    def after(self, version: int, write_id: bytes, count_max: int) -> RecentWrites:
        """These with one more, the newest, in front; the oldest go where there are too many."""
        return RecentWrites((_RECENT.pack(version, write_id) + self.packed)[: count_max * _RECENT.size])

    def version_of(self, write_id: bytes) -> int:
        """The version that a write made; 0 when it is not among these."""
        at = self._find(write_id)
        return 0 if at < 0 else int.from_bytes(self.packed[at - _VERSION_BYTES : at])

    def has_like(self, beginning: bytes) -> bool:
        """Whether the id of any of these begins so."""
        return self._find(beginning) >= 0

    @property
    def oldest(self) -> int:
        """The version of the oldest of these; 0 when there is none."""
        return int.from_bytes(self.packed[-_RECENT.size :][:_VERSION_BYTES])

    def _find(self, beginning: bytes) -> int:
        # The bytes may also be found where no write id begins.
        at = self.packed.find(beginning)
        while at >= 0 and at % _RECENT.size != _VERSION_BYTES:
            at = self.packed.find(beginning, at + 1)
        return at


class Header(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a sealed entity says of itself, once its header MAC was checked.

    Attributes:
        schema_id, key: the entity's name.
        version: counts its successful writes from 1, tombstones among them.
        term: the term under which this version was written.
        updated_ms: commit time, milliseconds since the Unix epoch.
        write_id: the write that made this version.
        recent: earlier writes, at most ``limits.RECENT_WRITES_MAX`` or those of one group.
        tombstone: the entity is deleted; there is no document.
        key_id: master key that sealed it (8 bytes; b"" on a header that is not sealed yet).
    """

    schema_id: str
    key: str
    version: int
    term: int
    updated_ms: int
    write_id: bytes
    recent: RecentWrites = RecentWrites()
    tombstone: bool = False
    key_id: bytes = b""


class DatabaseInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of ``cluster/database.json``.

    Attributes:
        database_id: random hex name given at creation.
        format: version of the object layout.
        shards: fixed number of shards.
        highest_epoch: no epoch above it was ever used.
        keys: key id in hex to the check value (hex) of that master key.
        reservation: names the last reservation of epochs, so that its repeat is recognised.
        maintenance: names the scrub that works offline; no worker opens the store meanwhile. "" when none.
        retired_keys: ids in hex of keys that seal nothing any more; not in ``keys``.
    """

    database_id: str
    format: int
    shards: int
    highest_epoch: int
    keys: dict[str, str]
    reservation: str = ""
    maintenance: str = ""
    retired_keys: tuple[str, ...] = ()


class ProbeCheck(msgspec.Struct, frozen=True):
    """One thing that the start-up probe tried on the store."""

    name: str
    passed: bool
    detail: str


class StoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the start-up probe found.

    Attributes:
        backend: ``s3``, ``directory`` or ``memory``.
        checks: each check of the probe, in order.
        database: the database found or made there.
        templates: number of schema templates present at start.
    """

    backend: str
    checks: tuple[ProbeCheck, ...]
    database: DatabaseInfo
    templates: int = 0


class StoreSight(enum.IntEnum):
    """Whether a worker's store still holds the database that the worker opened in it.

    Names and numbers are those of the protobuf enum.
    """

    UNSPECIFIED = 0
    """Not looked at yet."""
    HELD = 1
    GONE = 2
    """The description is missing, or another database's."""


class MemberState(enum.StrEnum):
    """A member's state as ``GET /admin/workers`` shows it."""

    AVAILABLE = "Available"
    DRAINING = "Draining"
    UNREACHABLE = "Unreachable"


class MemberInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A proc worker as the main worker sees it.

    ``last_seen_ms`` is wall-clock milliseconds; ``address`` is the worker's data address,
    empty for the embedded one.
    """

    worker_id: str
    instance_id: str
    state: MemberState
    key_id: str
    last_seen_ms: int
    address: str


class ReadinessCheck(msgspec.Struct, frozen=True):
    """One line of ``/readyz``. ``code`` is stable: ``ok`` or the reason of the failure."""

    name: str
    passed: bool
    code: str
    detail: str
