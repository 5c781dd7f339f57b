"""``cluster/database.json``: which database this is, its keys' check values, its reserved epochs.

Every change is conditional on what was read, so that programs that start together agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from deltadatabase.clock import Random
from deltadatabase.errors import (
    AlreadyExists,
    NotFound,
    OutcomeUnknown,
    StartupError,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.limits import COMMIT_ATTEMPTS_MAX, EPOCH_MAX, SHARD_COUNT_MAX
from deltadatabase.model import DatabaseInfo
from deltadatabase.storage.base import Store, When
from deltadatabase.storage.paths import DATABASE_PATH, FILES

FORMAT: Final = 1


async def open_database(
    store: Store,
    *,
    random: Random,
    shards: int,
    create: Callable[[DatabaseInfo], DatabaseInfo],
    check: Callable[[DatabaseInfo], DatabaseInfo | None],
) -> DatabaseInfo:
    """Read the database's description, or create it in an empty store.

    Args:
        store: where it is.
        random: the id of a new database.
        shards: number of shards of a new database; an existing one keeps its own.
        create: completes a new database's description (adds the key that it is made with).
        check: refuses an existing database whose keys do not fit (raises StartupError, and
            nothing is written), or returns what must be stored before anything else; else None.

    Raises:
        StartupError: ``store_refused``: unknown format, damaged, or entities without a
            description; and whatever ``check`` raises.
        Unavailable: the store cannot be reached.
    """
    for _ in range(COMMIT_ATTEMPTS_MAX):
        try:
            stored = await store.get(DATABASE_PATH)
        except NotFound:
            await _refuse_orphans(store)
            fresh = DatabaseInfo(
                database_id=random(16).hex(), format=FORMAT, shards=shards, highest_epoch=0, keys={}
            )
            if await _put(store, create(fresh), When.ABSENT):
                return create(fresh)
            continue
        info = parse_database(stored.data)
        changed = check(info)
        if changed is None:
            return info
        if await _put(store, changed, stored.etag):
            return changed
    raise Unavailable("the database's description keeps changing", code="contended")


async def read_database(store: Store) -> DatabaseInfo:
    """Read the description of an existing database.

    Raises:
        NotFound: there is none.
        StartupError: it is damaged or of an unknown format.
    """
    return parse_database((await store.get(DATABASE_PATH)).data)


def parse_database(data: bytes) -> DatabaseInfo:
    """Parse a description. Raises StartupError (``store_refused``)."""
    try:
        info = msgspec.json.decode(data, type=DatabaseInfo)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise StartupError(
            "cluster/database.json is damaged; restore it from a backup", code="store_refused"
        ) from None
    if info.format != FORMAT:
        raise StartupError(
            f"the database has format {info.format}, this version serves format {FORMAT}",
            code="store_refused",
        )
    if not 0 < info.shards <= SHARD_COUNT_MAX or not 0 <= info.highest_epoch <= EPOCH_MAX:
        raise StartupError(
            "cluster/database.json holds impossible numbers; restore it from a backup", code="store_refused"
        )
    return info


async def reserve_epochs(store: Store, *, expected: int, highest: int, reservation: str) -> tuple[bool, int]:
    """Raise the highest epoch from ``expected`` to ``highest``, unless it isn't ``expected`` any more.

    Args:
        store: where the database is.
        expected: what must be stored now.
        highest: what is stored afterwards; above ``expected``.
        reservation: names this attempt; a repeat whose first reply was lost is recognised.

    Returns:
        Whether this attempt reserved, and the highest epoch that is stored now.

    Raises:
        Unavailable: the store did not answer.
        NotFound: there is no database.
        OutcomeUnknown: neither way is certain.
    """
    for _ in range(COMMIT_ATTEMPTS_MAX):
        stored = await store.get(DATABASE_PATH)
        info = parse_database(stored.data)
        if info.reservation == reservation:
            return True, info.highest_epoch
        if info.highest_epoch != expected:
            return False, info.highest_epoch
        changed = msgspec.structs.replace(info, highest_epoch=highest, reservation=reservation)
        if await _put(store, changed, stored.etag):
            return True, highest
    raise OutcomeUnknown("the store did not confirm the reservation of epochs")


async def retire_key(store: Store, key_id: str) -> bool:
    """Note that a master key seals nothing any more; False when the database does not know it.

    It is not accepted alone from then on: see ``crypto.keyring.check_database``.

    Raises:
        NotFound: there is no database.
        Unavailable: the store did not answer, or others kept changing the description.
    """
    for _ in range(COMMIT_ATTEMPTS_MAX):
        stored = await store.get(DATABASE_PATH)
        info = parse_database(stored.data)
        if key_id in info.retired_keys:
            return True
        if key_id not in info.keys:
            return False
        keys = {known: check for known, check in info.keys.items() if known != key_id}
        changed = msgspec.structs.replace(info, keys=keys, retired_keys=(*info.retired_keys, key_id))
        if await _put(store, changed, stored.etag):
            return True
    raise Unavailable("the database's description keeps changing", code="contended")


async def begin_maintenance(store: Store, token: str) -> DatabaseInfo:
    """Set the flag that keeps workers from opening the store. The first half of decision 0022.

    Args:
        store: where the database is.
        token: names this run; random.

    Raises:
        StartupError: ``store_refused``: the flag is set already.
        NotFound: there is no database.
        Unavailable: the store did not answer, or others kept changing the description.
    """
    for _ in range(COMMIT_ATTEMPTS_MAX):
        stored = await store.get(DATABASE_PATH)
        info = parse_database(stored.data)
        if info.maintenance == token:
            return info
        refuse_maintenance(info)
        changed = msgspec.structs.replace(info, maintenance=token)
        if await _put(store, changed, stored.etag):
            return changed
    raise Unavailable("the database's description keeps changing", code="contended")


async def end_maintenance(store: Store, token: str | None = None) -> bool:
    """Clear the flag if ``token`` set it (None: whoever did); return whether it is cleared by this call.

    Raises:
        NotFound: there is no database.
        Unavailable: the store did not answer, or others kept changing the description.
    """
    tried = False
    for _ in range(COMMIT_ATTEMPTS_MAX):
        stored = await store.get(DATABASE_PATH)
        info = parse_database(stored.data)
        if not info.maintenance or (token is not None and info.maintenance != token):
            # Cleared by a put of ours whose reply was lost, or by somebody else.
            return tried
        tried = True
        if await _put(store, msgspec.structs.replace(info, maintenance=""), stored.etag):
            return True
    raise Unavailable("the database's description keeps changing", code="contended")


def refuse_maintenance(info: DatabaseInfo) -> None:
    """Raise StartupError (``store_refused``) while the maintenance flag is set."""
    if info.maintenance:
        raise StartupError(
            "the database is under maintenance: deltadb scrub -remove-tombstones works on it; wait for its "
            "end, or if it was broken off clear the flag with deltadb scrub -end-maintenance",
            code="store_refused",
        )


async def _put(store: Store, info: DatabaseInfo, condition: When | str) -> bool:
    """Put conditionally; False when it has to be looked at again."""
    try:
        await store.put(DATABASE_PATH, msgspec.json.format(msgspec.json.encode(info), indent=2), condition)
    except (AlreadyExists, VersionMismatch, OutcomeUnknown):
        return False
    return True


async def _refuse_orphans(store: Store) -> None:
    if await store.list(FILES, limit=1):
        raise StartupError(
            "the store holds entities but no cluster/database.json; restore that object from a backup: "
            "a new one could not open them",
            code="store_refused",
        )
