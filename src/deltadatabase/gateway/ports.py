"""What the REST side needs from the rest of the main worker; the router fulfils it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from deltadatabase.gateway.rotation import RotationStatus
from deltadatabase.model import ListedEntity, MemberInfo, PatchKind, ReadinessCheck, Result, StoreReport


class Entities(Protocol):
    """Documents by schema id and key. Names are checked by the caller; all methods raise ``DeltaError``."""

    def cached(self, schema_id: str, key: str, *, request_id: str = "") -> Result | None:
        """What ``get`` would return, if nothing has to be waited for; else None. Raises NotFound."""
        ...

    async def get(
        self,
        schema_id: str,
        key: str,
        *,
        if_none_match: tuple[str, ...] | None = None,
        request_id: str = "",
    ) -> Result:
        """Read an entity. Raises NotFound."""
        ...

    async def state(
        self, schema_id: str, key: str, *, with_document: bool = False, fresh: bool = False
    ) -> Result:
        """Read an entity or its tombstone, whose ``etag`` is "". Raises NotFound where there is neither."""
        ...

    async def put(
        self,
        schema_id: str,
        documents: Mapping[str, bytes],
        *,
        write_ids: Mapping[str, bytes] | None = None,
        request_id: str = "",
    ) -> dict[str, Result]:
        """Write entities; every document is validated before the first is stored.

        ``write_ids``, by key, make their repeat recognisable.

        Raises:
            Invalid: the schema refuses a document; nothing was stored.
            PartlyApplied: the store failed part-way.
        """
        ...

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
        """Write one entity, under conditions if any are given; ``write_id`` makes its repeat recognisable.

        Raises:
            Invalid: the schema refuses the document.
            VersionMismatch: a condition fails.
        """
        ...

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
        """Change one entity by a patch, under conditions if any are given.

        ``Result.document`` is what it has made of the entity.

        Raises:
            NotFound: there is no such entity.
            Invalid: ``bad_patch``, or the schema refuses the patched document.
            Conflict: ``patch_conflict`` or ``patch_test_failed``.
            VersionMismatch: a condition fails.
        """
        ...

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
        """Remove an entity, under conditions if any are given; an absent one is fine without."""
        ...

    async def resolve(self, schema_id: str, key: str, write_id: bytes, *, request_id: str = "") -> Result:
        """Find out, in a fresh store read, whether a write was applied: ``Result.found``, its version, ETag.

        Of a write that is not found, ``version`` is the entity's present version, tombstones counted,
        and ``number`` the oldest version whose write id is still known; both 0 if nothing is stored.
        """
        ...


class Page(msgspec.Struct, frozen=True, gc=False):
    """Part of a listing.

    Attributes:
        entities: in listing order, which is the byte order of their objects' paths.
        next: stored name to go on after; "" at the end. A page may be short, even empty, before it.
    """

    entities: tuple[ListedEntity, ...]
    next: str


class Listing(Protocol):
    """Entities by schema id, in order (``storage.paths.listing_order``)."""

    async def list(
        self, schema_id: str, *, prefix: str = "", after: str = "", limit: int = 1000, deleted: bool = False
    ) -> Page:
        """One page of a schema's entities, without a look into them.

        Pages that follow each other hold every entity that existed from the first to the last of
        them, once. A page shows each write that was acknowledged before it was asked for, and no
        entity whose deletion was.

        Args:
            schema_id: whose entities; one that nobody has used has none.
            prefix: beginning of the stored names wanted: ``storage.paths.escape_key`` of the beginning
                of their keys.
            after: stored name to go on after: an earlier page's ``next``; "" begins.
            limit: at most so many entities, 1 to ``limits.LIST_PAGE_MAX``.
            deleted: list deleted entities, too, as far as they are remembered.

        Raises:
            Unavailable: no worker, or none could answer in time; a first listing of a very large
                schema may need more than one try.
        """
        ...


class Schemas(Protocol):
    """JSON Schemas by id."""

    async def schema_get(self, schema_id: str) -> Result:
        """Read a schema: ``Result.document``. Raises NotFound."""
        ...

    async def schema_put(self, schema_id: str, document: bytes) -> Result:
        """Check and store a schema, in force for every write begun after the return. Raises Invalid."""
        ...

    async def schema_delete(self, schema_id: str) -> Result:
        """Remove a schema. Raises NotFound."""
        ...

    async def schema_list(self) -> tuple[str, ...]:
        """Ids of all stored schemas, in order of the stored names."""
        ...

    async def namespaces(self) -> tuple[str, ...]:
        """Every schema id that holds an entity or a schema, in order of the stored names."""
        ...


class Rotations(Protocol):
    """Rotation of the master key (``gateway.rotation.Rotation``); see there."""

    def status(self) -> RotationStatus: ...

    async def start(self) -> RotationStatus: ...

    async def pause(self) -> RotationStatus: ...

    async def count(self) -> RotationStatus: ...


class Cluster(Protocol):
    """State of the workers and the store, from memory: no call does I/O."""

    def members(self) -> Sequence[MemberInfo]:
        """Workers that joined, by worker id."""
        ...

    def readiness(self) -> Sequence[ReadinessCheck]:
        """What must hold for data to be served, each with its present state."""
        ...

    def store_reports(self) -> Mapping[str, StoreReport]:
        """What each worker's start-up probe found, by worker id."""
        ...
