"""Before a worker serves: does the store keep its promises, and do the keys fit its database?

A wrong key writes nothing: the database's description is checked before the probe puts anything.
The worker's presence is marked before the description is read for good: see ``worker.presence``.
"""

from __future__ import annotations

import contextlib

import msgspec

from deltadatabase.clock import Random
from deltadatabase.crypto.keyring import Keyring, check_database
from deltadatabase.errors import NotFound, StartupError, StoreFull
from deltadatabase.limits import SHARD_COUNT_DEFAULT
from deltadatabase.model import DatabaseInfo, StoreReport
from deltadatabase.storage.base import Store
from deltadatabase.storage.database import open_database, read_database, refuse_maintenance
from deltadatabase.storage.probe import probe, refuse
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.worker.presence import Presence
from deltadatabase.worker.templates import Templates

log = get_logger(__name__)


async def examine(store: Store, keyring: Keyring, presence: Presence, *, random: Random) -> StoreReport:
    """Open the database in a store, or create it in an empty one, and probe the store.

    Raises:
        StartupError: ``wrong_master_key``; ``store_refused``, also during maintenance.
        Unavailable: the store went away.
    """
    # A wrong key is found before the probe writes, and the probe passes before a new database
    # is made: neither leaves a trace in a store that will not be used.
    with contextlib.suppress(NotFound):
        _accept(keyring, await read_database(store))
    checks = await probe(store, random)
    refuse(checks)
    await presence.mark()
    database = await open_database(
        store,
        random=random,
        shards=SHARD_COUNT_DEFAULT,
        create=lambda info: _with_primary(keyring, info),
        check=lambda info: _accept(keyring, info),
    )
    presence.confirm()
    templates = len(await Templates(store).snapshot())
    if not templates:
        log.warning(
            "no schema template is stored: documents are not validated; "
            "put one with PUT /schema/{id} or below templates/"
        )
    return StoreReport(backend=store.backend, checks=checks, database=database, templates=templates)


async def refresh(
    store: Store, keyring: Keyring, presence: Presence, report: StoreReport, *, random: Random
) -> StoreReport:
    """Look at an open store again, for a new membership.

    Raises:
        StartupError: the keys do not fit any more, it is another database now, or under maintenance.
        Unavailable: the store cannot be reached.
    """
    # Nothing is written into a store that was emptied, or is another database's; what that means is
    # said below. Reads need no mark, and without one the lease lets no put out: so a full store can
    # be read.
    with contextlib.suppress(NotFound, StoreFull):
        _fits(keyring, report, await read_database(store))
        await presence.mark()
    database = await open_database(
        store,
        random=random,
        shards=report.database.shards,
        create=_refuse_empty,
        check=lambda info: _fits(keyring, report, info),
    )
    presence.confirm()
    return msgspec.structs.replace(report, database=database)


def _with_primary(keyring: Keyring, info: DatabaseInfo) -> DatabaseInfo:
    primary = keyring.primary
    return msgspec.structs.replace(info, keys={primary.key_id.hex(): primary.check_value(info.database_id)})


def _fits(keyring: Keyring, report: StoreReport, info: DatabaseInfo) -> DatabaseInfo | None:
    if info.database_id != report.database.database_id:
        raise StartupError("the store holds another database now; restart this worker", code="store_refused")
    return _accept(keyring, info)


def _accept(keyring: Keyring, info: DatabaseInfo) -> DatabaseInfo | None:
    refuse_maintenance(info)
    return check_database(keyring, info)


def _refuse_empty(info: DatabaseInfo) -> DatabaseInfo:
    raise StartupError("the store was emptied under a running worker; restart it", code="store_refused")
