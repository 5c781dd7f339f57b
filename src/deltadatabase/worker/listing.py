"""Pages of a schema's entities: from the store's own listing, or from an index of names.

Neither looks into an entity: what is listed of it is what the store says of its object, and a
tombstone shows by its size.
"""

from __future__ import annotations

from deltadatabase.crypto.format import is_tombstone_size
from deltadatabase.errors import NotOwner
from deltadatabase.limits import LIST_PAGE_MAX, LISTING_EXAMINED_MAX, LISTING_REQUESTS_MAX
from deltadatabase.model import Command, ListedEntity, Result
from deltadatabase.storage.base import ObjectInfo, Store
from deltadatabase.storage.paths import listing_order, schema_folder, stored_name
from deltadatabase.worker.name_index import NameIndexes


class Lister:
    """Executes LIST on one store.

    Args:
        store: asked itself where it lists in order.
        indexes: of the names in a directory, which has no order; None for other stores.
    """

    def __init__(self, store: Store, indexes: NameIndexes | None) -> None:
        self._store = store
        self._indexes = indexes

    async def page(self, command: Command) -> Result:
        """One page. Raises Unavailable, NotOwner."""
        limit = min(max(command.number, 1), LIST_PAGE_MAX)
        if self._indexes is None:
            return await self._from_store(command, limit)
        return await self._from_index(self._indexes, command, limit)

    async def _from_store(self, command: Command, limit: int) -> Result:
        folder = schema_folder(command.schema_id)
        prefix = folder + command.prefix
        # The path that is just the prefix is no entity's, so beginning behind it leaves none out.
        begin = max(prefix, folder + listing_order(command.key)) if command.key else prefix
        entities: list[ListedEntity] = []
        position = ""
        requests = 0
        # Each entity mostly has a meta file beside it.
        asked = min(2 * limit + 2, LIST_PAGE_MAX)
        while True:
            infos = await self._store.list(folder, after=begin, limit=asked)
            requests += 1
            for info in infos:
                if not info.path.startswith(prefix):
                    return Result(entities=tuple(entities))
                name = stored_name(command.schema_id, info.path)
                if name is None:
                    continue
                position = name
                # Part of what an object's name ends with is no part of a key.
                if not name.startswith(command.prefix):
                    continue
                if (entity := _listed(name, info, command)) is not None:
                    entities.append(entity)
                    if len(entities) == limit:
                        return Result(entities=tuple(entities), next=name)
            if len(infos) < asked:
                return Result(entities=tuple(entities))
            begin = infos[-1].path
            # What others put there may fill whole pages, and has no name to go on from.
            if requests >= LISTING_REQUESTS_MAX and position:
                return Result(entities=tuple(entities), next=position)
            asked = LIST_PAGE_MAX

    async def _from_index(self, indexes: NameIndexes, command: Command, limit: int) -> Result:
        schema_id, terms = command.schema_id, command.terms
        if not any(terms):
            raise NotOwner("no shard is said to be owned here")
        folder = schema_folder(schema_id)
        after = command.key
        entities: list[ListedEntity] = []
        examined = 0
        count = limit
        while True:
            index = await indexes.get(schema_id, terms)
            if index is None:
                names, following = await indexes.smallest(
                    schema_id, terms, after, command.prefix, LIST_PAGE_MAX
                )
            else:
                names, following = index.after(terms, after, command.prefix, count)
            found = await self._store.describe(folder, [listing_order(name) for name in names])
            for name, info in zip(names, found, strict=True):
                if info is None or (entity := _listed(name, info, command)) is None:
                    continue
                entities.append(entity)
                if len(entities) == limit:
                    at_end = not following and name == names[-1]
                    return Result(entities=tuple(entities), next="" if at_end else name)
            examined += len(names)
            if not following or examined >= LISTING_EXAMINED_MAX:
                return Result(entities=tuple(entities), next=following)
            after, count = following, LIST_PAGE_MAX


def _listed(name: str, info: ObjectInfo, command: Command) -> ListedEntity | None:
    """The entity as listed; None for a deleted one, unless those are wanted."""
    deleted = is_tombstone_size(info.size_bytes)
    if deleted and not command.deleted:
        return None
    return ListedEntity(name, info.size_bytes, info.updated_ms, deleted)
