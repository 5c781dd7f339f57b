"""How many entities schemas hold, found out by walking their lists: one list request for each page."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from deltadatabase import limits
from deltadatabase.gateway.ports import Listing


class SchemaCount(msgspec.Struct, frozen=True):
    """A schema id and how many entities it holds, deleted ones left out.

    Attributes:
        schema_id: of the entities.
        entities: how many were counted.
        complete: False: the time was up before the end; there are at least ``entities``.
        schema: whether a JSON Schema is stored for them.
    """

    schema_id: str
    entities: int
    complete: bool
    schema: bool


async def counted(
    listing: Listing,
    schema_ids: Sequence[str],
    with_schema: Iterable[str],
    *,
    time_s: float = limits.COUNTING_TIME_S,
) -> list[SchemaCount]:
    """Count the entities of each schema id, all in turn, for ``time_s`` seconds at the most.

    Raises:
        Unavailable: as a listing.
    """
    counts = dict.fromkeys(schema_ids, 0)
    ended: set[str] = set()
    gate = asyncio.Semaphore(limits.COUNTING_PAGES_MAX)

    async def walk(schema_id: str) -> None:
        after = ""
        while True:
            # Released after each page, so that a large schema does not keep the others waiting.
            async with gate:
                page = await listing.list(schema_id, after=after)
            counts[schema_id] += len(page.entities)
            if not (after := page.next):
                ended.add(schema_id)
                return

    walks = [asyncio.ensure_future(walk(schema_id)) for schema_id in schema_ids]
    try:
        async with asyncio.timeout(time_s):
            await asyncio.gather(*walks)
    except TimeoutError:
        pass  # What was counted until now is the answer.
    finally:
        for task in walks:
            task.cancel()
    known = set(with_schema)
    return [
        SchemaCount(schema_id, counts[schema_id], schema_id in ended, schema_id in known)
        for schema_id in schema_ids
    ]
