"""Set a damaged entity aside: copy it, then free its name. Decision 0021.

The name is freed by a conditional put of a fresh tombstone over exactly the damaged object, never
by a delete: that takes no condition, so it could destroy an operator's restored backup, and a late
create of an earlier write could bring an old value back.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from deltadatabase.clock import Clock, Random
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.errors import AlreadyExists, NotFound, OutcomeUnknown, Unavailable, VersionMismatch
from deltadatabase.limits import COMMIT_ATTEMPTS_MAX, WRITE_ID_BYTES
from deltadatabase.maintenance.verdict import Name, Verdict, next_version
from deltadatabase.model import Header
from deltadatabase.storage.base import Store, Stored, When
from deltadatabase.storage.paths import entity_path, quarantine_path

DIGEST_HEX: Final = 32
RETRY_S: Final = 0.2


async def set_aside(
    store: Store,
    sealer: Sealer,
    name: Name,
    damaged: Stored,
    verdict: Verdict,
    meta: bytes | None,
    *,
    clock: Clock,
    random: Random,
) -> bool:
    """Copy a damaged entity below ``quarantine/`` and put a tombstone in its place.

    Args:
        store: where it is.
        sealer: seals the tombstone.
        name: schema id and key.
        damaged: the object as read; only exactly this one is replaced.
        verdict: what is wrong with it, and its header if that is authentic.
        meta: its meta file, for the version; None without one.
        clock: time of the tombstone.
        random: its write id.

    Returns:
        False when the object changed meanwhile: then it was not replaced.

    Raises:
        Unavailable: the store did not answer. The copy may be there already; a repeat is harmless.
    """
    await _copy(store, quarantine_path(*name, hashlib.sha256(damaged.data).hexdigest()[:DIGEST_HEX]), damaged)
    header = Header(
        schema_id=name[0],
        key=name[1],
        version=next_version(verdict.header, meta, name),
        # An owner refuses entities of a newer term than its own, so nothing unproven goes in here.
        term=verdict.header.term if verdict.header is not None else 0,
        updated_ms=clock.wall_ms(),
        write_id=random(WRITE_ID_BYTES),
        tombstone=True,
    )
    path = entity_path(*name)
    tombstone = sealer.seal(header, b"")
    for _ in range(COMMIT_ATTEMPTS_MAX):
        try:
            await store.put(path, tombstone, damaged.etag)
        except (VersionMismatch, OutcomeUnknown):
            # A lost condition may be our own success whose reply was lost: what is stored tells.
            try:
                present = await store.get(path)
            except NotFound:
                return False
            if present.data == tombstone:
                return True
            if present.etag != damaged.etag:
                return False
            await asyncio.sleep(RETRY_S)
        else:
            return True
    raise Unavailable("the store did not confirm the tombstone of a damaged entity")


async def _copy(store: Store, path: str, damaged: Stored) -> None:
    """Store the copy and read it back. Its name is a digest, so a repeat finds the same bytes."""
    for _ in range(COMMIT_ATTEMPTS_MAX):
        try:
            await store.put(path, damaged.data, When.ABSENT)
        except (AlreadyExists, OutcomeUnknown):
            pass
        try:
            copy = await store.get(path)
        except NotFound:
            await asyncio.sleep(RETRY_S)
            continue
        if copy.data == damaged.data:
            return
        break
    raise Unavailable("the store did not keep the copy of a damaged entity")
