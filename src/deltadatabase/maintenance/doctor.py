"""Examine one store: what it guarantees, whose keys fit, how its clock and its speed are.

Writes nothing but the probe's own objects and some of its kind, all below ``cluster/probe/`` and
removed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from deltadatabase.clock import Clock, Random
from deltadatabase.crypto.keyring import MasterKey, standing_of
from deltadatabase.errors import NotFound, StartupError
from deltadatabase.limits import CLOCK_SKEW_MAX_S, LATENCY_SAMPLES, PRESENCE_VALID_S
from deltadatabase.maintenance.diagnosis import Check, Status, percentile_ms, probe_checks, skew_check
from deltadatabase.maintenance.offline import presence
from deltadatabase.model import DatabaseInfo
from deltadatabase.storage.base import Store, When
from deltadatabase.storage.database import read_database
from deltadatabase.storage.paths import FILES, PROBE
from deltadatabase.storage.probe import probe

SAMPLE_BYTES: Final = 1024
#: S3 tells times in whole seconds.
TIME_STEP_MS: Final = 1000
STATE_AREA: Final = "database"


async def store_checks(
    store: Store, keys: Sequence[MasterKey], *, clock: Clock, random: Random
) -> tuple[list[Check], DatabaseInfo | None]:
    """Look at everything that needs the store.

    Raises:
        Unavailable, OutcomeUnknown: it does not answer (any more).
    """
    checks, info = await _database(store)
    checks += key_checks(keys, info)
    checks += probe_checks(await probe(store, random))
    if any(check.status is Status.FAILED for check in checks if check.name == "create"):
        return checks, info
    path = f"{PROBE}{random(12).hex()}-doctor"
    try:
        skew, now_ms = await _skew(store, path, clock)
        checks.append(skew)
        checks += await _latency(store, path, clock)
    finally:
        await store.delete(path)
    if info is not None:
        checks.append(await _workers(store, now_ms))
    return checks, info


async def _database(store: Store) -> tuple[list[Check], DatabaseInfo | None]:
    try:
        info = await read_database(store)
    except NotFound:
        if await store.list(FILES, limit=1):
            text = "there are entities but no cluster/database.json: restore that object from a backup"
            return [Check(STATE_AREA, "description", Status.FAILED, text)], None
        text = "the store is empty: the first worker makes the database"
        return [Check(STATE_AREA, "description", Status.INFO, text)], None
    except StartupError as exc:
        return [Check(STATE_AREA, "description", Status.FAILED, exc.detail)], None
    text = (
        f"database_id={info.database_id}, format {info.format}, {info.shards} shards, "
        f"highest epoch {info.highest_epoch}"
    )
    checks = [Check(STATE_AREA, "description", Status.OK, text)]
    if info.maintenance:
        text = (
            "the maintenance flag is set, no worker starts: wait for deltadb scrub -remove-tombstones, or if "
            "it was broken off, deltadb scrub -end-maintenance"
        )
        checks.append(Check(STATE_AREA, "maintenance", Status.WARNING, text))
    return checks, info


def key_checks(keys: Sequence[MasterKey], info: DatabaseInfo | None) -> list[Check]:
    """Which of the keys fit the database; the first is the one that would seal."""
    if not keys:
        text = "no master key was given or is kept in the state directory, so none was compared"
        return [Check("keys", "master key", Status.INFO if info is None else Status.WARNING, text)]
    checks = []
    for number, key in enumerate(keys):
        name = "previous master key" if number else "master key"
        key_id = f"key_id={key.key_id.hex()}"
        if info is None:
            checks.append(Check("keys", name, Status.INFO, f"{key_id}; there is no database to compare with"))
            continue
        match standing_of(key, info):
            case "fits":
                checks.append(Check("keys", name, Status.OK, f"it fits the database, {key_id}"))
            case "wrong":
                text = f"the database knows this id with another check value: a damaged file? {key_id}"
                checks.append(Check("keys", name, Status.FAILED, text))
            case "unknown":
                fits = any(standing_of(other, info) == "fits" for other in keys)
                text = f"the database does not know it, {key_id}; it knows {', '.join(sorted(info.keys))}"
                checks.append(Check("keys", name, Status.WARNING if fits else Status.FAILED, text))
    return checks


async def _skew(store: Store, path: str, clock: Clock) -> tuple[Check, int]:
    before_ms = clock.wall_ms()
    await store.put(path, b"time", When.ALWAYS)
    after_ms = clock.wall_ms()
    stamped_ms = (await store.head(path)).updated_ms
    middle_ms = (before_ms + after_ms) // 2
    uncertainty_ms = (after_ms - before_ms) // 2 + TIME_STEP_MS
    bound_ms = int(CLOCK_SKEW_MAX_S * 1000)
    return skew_check(stamped_ms - middle_ms, uncertainty_ms, bound_ms), stamped_ms


async def _latency(store: Store, path: str, clock: Clock) -> list[Check]:
    puts: list[float] = []
    gets: list[float] = []
    for number in range(LATENCY_SAMPLES):
        started_s = clock.monotonic_s()
        await store.put(path, number.to_bytes(4) * (SAMPLE_BYTES // 4), When.ALWAYS)
        put_s = clock.monotonic_s()
        await store.get(path)
        puts.append(put_s - started_s)
        gets.append(clock.monotonic_s() - put_s)
    durable = "durable write" if store.backend == "directory" else "put"
    return [
        Check(
            "speed",
            name,
            Status.INFO,
            f"{what} of {SAMPLE_BYTES} bytes, one after the other: p50 {percentile_ms(samples, 0.5):.2f} ms, "
            f"p99 {percentile_ms(samples, 0.99):.2f} ms, samples={len(samples)}",
        )
        for name, what, samples in (("put", durable, puts), ("get", "get", gets))
    ]


async def _workers(store: Store, now_ms: int) -> Check:
    marks = await presence(store)
    here = sorted(worker_id for worker_id, marked_ms in marks if now_ms - marked_ms < PRESENCE_VALID_S * 1000)
    who = "1 worker" if len(here) == 1 else f"{len(here)} workers"
    text = f"{who} gave a sign of life in the last {PRESENCE_VALID_S / 60:g} min"
    return Check(STATE_AREA, "workers", Status.INFO, f"{text}: {', '.join(here[:20])}" if here else text)
