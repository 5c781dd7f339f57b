"""What the polling member looks up in the store: changed templates, and epochs of other main workers."""

from __future__ import annotations

from deltadatabase.storage.base import Store
from deltadatabase.storage.database import parse_database
from deltadatabase.storage.paths import DATABASE_PATH
from deltadatabase.worker.templates import Templates


class StoreWatch:
    """Fulfils ``worker.membership.Polled``."""

    def __init__(self, store: Store, templates: Templates) -> None:
        self._store = store
        self._templates = templates
        self._etag = ""
        self._highest_epoch = 0

    async def templates(self) -> dict[str, str]:
        """Every template's schema id with a token that changes when its bytes do."""
        return await self._templates.snapshot()

    async def highest_epoch(self) -> int:
        """The highest epoch that any main worker has reserved; a conditional read where unchanged."""
        stored = await self._store.get_if_changed(DATABASE_PATH, self._etag)
        if stored is not None:
            self._highest_epoch = parse_database(stored.data).highest_epoch
            self._etag = stored.etag
        return self._highest_epoch
