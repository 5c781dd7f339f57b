"""The router's part of a listing: whom it asks for a page, and what their answers come to.

A store that lists in order is asked through any one worker. In a directory each worker knows the
names of its own shards; their pages are merged.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from heapq import merge
from typing import Final

from deltadatabase.gateway.ports import Page
from deltadatabase.model import Command, ListedEntity, Op, Result
from deltadatabase.storage.paths import listing_order

_SHARE_LEAST: Final = 4


class Listings:
    """What a router adds to itself to fulfil ``ports.Listing``."""

    #: Each worker can list only the shards that it owns.
    lists_by_owner: bool = False

    async def list(
        self, schema_id: str, *, prefix: str = "", after: str = "", limit: int = 1000, deleted: bool = False
    ) -> Page:
        """One page of a schema's entities; see ``ports.Listing``."""
        command = Command(
            op=Op.LIST, schema_id=schema_id, key=after, prefix=prefix, number=limit, deleted=deleted
        )
        if not self.lists_by_owner:
            result = await self.any_worker(command)
            self.check_open()
            return Page(result.entities, result.next)
        return merged(await self.ask_owners(command), limit)

    @abstractmethod
    async def any_worker(self, command: Command) -> Result:
        """Send a command that concerns no entity to some worker. Raises DeltaError."""

    @abstractmethod
    async def ask_owners(self, command: Command) -> Sequence[Result]:
        """Send a command that changes nothing to every owner; their answers are of one time."""

    @abstractmethod
    def check_open(self) -> None:
        """Raise Unavailable while no data is served."""


def share_of(limit: int, owners: int) -> int:
    """How many entities one of several owners is asked for, so that together they hardly fall short.

    Shards are spread evenly, but not exactly, and neighbours in order are not.
    """
    return limit if owners == 1 else min(limit, limit * 3 // (2 * owners) + _SHARE_LEAST)


def merged(pages: Sequence[Result], limit: int) -> Page:
    """The common beginning of several pages of one listing, in order, each entity once.

    Where one page ends before the end, it says nothing of what comes behind: there the whole ends.
    """
    ends = [page.next for page in pages if page.next]
    end = min(ends, key=listing_order) if ends else ""
    bound = listing_order(end) if end else None
    entities: list[ListedEntity] = []
    coming = merge(*(page.entities for page in pages), key=_order)
    for entity in coming:
        if bound is not None and _order(entity) > bound:
            break
        if entities and entities[-1].name == entity.name:
            continue
        if len(entities) == limit:
            return Page(tuple(entities), entities[-1].name)
        entities.append(entity)
    return Page(tuple(entities), end)


def _order(entity: ListedEntity) -> str:
    return listing_order(entity.name)
