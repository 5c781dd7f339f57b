"""To work while no worker does: the maintenance flag, and what the workers' marks say. Decision 0022.

This is the scrub's half of the agreement that ``worker.presence`` explains: the flag is set **first**,
then the marks are looked at. A worker marks first and then reads the flag. So one sees the other.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from deltadatabase.clock import Random
from deltadatabase.errors import DeltaError, StartupError
from deltadatabase.limits import LIST_PAGE_MAX, PRESENCE_VALID_S, TOMBSTONE_OFFLINE_AGE_S
from deltadatabase.storage.base import ObjectInfo, Store, When
from deltadatabase.storage.database import begin_maintenance, end_maintenance, read_database
from deltadatabase.storage.paths import PRESENCE, PROBE, parse_presence_path

NAMES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """The ages that decide. Only tests have others.

    Attributes:
        tombstone_age_s: how old a tombstone must be.
        presence_age_s: how old every worker's mark must be. A worker writes for at most
            ``PRESENCE_VALID_S`` past its mark, so its last write is then as old as a tombstone.
    """

    tombstone_age_s: float = TOMBSTONE_OFFLINE_AGE_S
    presence_age_s: float = TOMBSTONE_OFFLINE_AGE_S + PRESENCE_VALID_S


@dataclass(frozen=True, slots=True)
class Offline:
    """The right to work offline, as long as ``check`` does not raise."""

    store: Store
    token: str
    now_ms: int
    """The store's own time when it began, so that ages are never judged by our clock."""

    async def check(self) -> None:
        """Raise StartupError (``store_refused``) if somebody cleared the flag."""
        if (await read_database(self.store)).maintenance != self.token:
            raise StartupError(
                "somebody ended the maintenance while this scrub ran: no more tombstones are removed",
                code="store_refused",
            )

    async def forget_marks(self) -> None:
        """Remove the marks of workers that are gone for good, such as those of former pods.

        Only here, where no mark can be renewed unseen: a worker that marks itself now meets the flag.
        """
        for path in [info.path for info in await _marks(self.store)]:
            await self.store.delete(path)


@asynccontextmanager
async def offline(store: Store, token: str, *, rules: Rules, random: Random) -> AsyncIterator[Offline]:
    """Keep workers out while this is entered.

    Args:
        store: where the database is.
        token: names this run; a resumed one takes its former flag over.
        rules: ages.
        random: names the object that tells the store's time.

    Raises:
        StartupError: ``store_refused``: a worker is joined, or left too short a time ago, or
            another maintenance runs.
    """
    # A look without the flag first: a refusal that is certain need not disturb running workers.
    await _refuse_present(store, rules, await store_time_ms(store, random))
    await begin_maintenance(store, token)
    try:
        now_ms = await store_time_ms(store, random)
        await _refuse_present(store, rules, now_ms)
        yield Offline(store, token, now_ms)
    finally:
        # Also when cancelled: a flag that stays keeps every worker out.
        try:
            await asyncio.shield(end_maintenance(store, token))
        except DeltaError as exc:
            raise StartupError(
                f"the maintenance flag could not be cleared, no worker starts: {exc.detail}; clear it with "
                "deltadb scrub -end-maintenance",
                code="store_unreachable",
            ) from exc


async def store_time_ms(store: Store, random: Random) -> int:
    """Return the store's time now, as it stamps a fresh object with it."""
    path = f"{PROBE}{random(12).hex()}-time"
    await store.put(path, b"", When.ABSENT)
    try:
        return (await store.head(path)).updated_ms
    finally:
        await store.delete(path)


async def presence(store: Store) -> list[tuple[str, int]]:
    """Return each worker id that has a mark, with the time of that mark by the store's clock in ms."""
    # An object that no worker can have named counts as one: it must not hide anybody.
    return [(parse_presence_path(info.path) or "?", info.updated_ms) for info in await _marks(store)]


async def _marks(store: Store) -> list[ObjectInfo]:
    marks: list[ObjectInfo] = []
    while page := await store.list(PRESENCE, after=marks[-1].path if marks else "", limit=LIST_PAGE_MAX):
        marks += page
        if len(page) < LIST_PAGE_MAX:
            break
    return marks


async def _refuse_present(store: Store, rules: Rules, now_ms: int) -> None:
    young = [
        (now_ms - marked_ms, worker_id)
        for worker_id, marked_ms in await presence(store)
        if now_ms - marked_ms < rules.presence_age_s * 1000
    ]
    if not young:
        return
    shown = ", ".join(
        f"{worker_id} {max(0, age_ms) // 60_000} min ago" for age_ms, worker_id in sorted(young)[:NAMES_SHOWN]
    )
    wait_min = math.ceil((rules.presence_age_s - min(young)[0] / 1000) / 60)
    raise StartupError(
        f"tombstones are removed offline only, {rules.presence_age_s / 60:g} min after the last sign of life "
        f"of any worker; seen: {shown}. Stop all workers; if they are stopped, try again in {wait_min} min",
        code="store_refused",
    )
