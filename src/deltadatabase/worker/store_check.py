"""Whether the store still holds the database that was opened in it.

An emptied bucket answers like one in which everything was deleted, and a worker would believe it:
documents would be gone, and schemas that guard writes as well. One object tells the two apart:
``cluster/database.json`` is never deleted.
"""

from __future__ import annotations

from typing import final

from deltadatabase.errors import DeltaError, NotFound, StartupError
from deltadatabase.model import StoreSight
from deltadatabase.storage.base import Store
from deltadatabase.storage.database import parse_database
from deltadatabase.storage.paths import DATABASE_PATH
from deltadatabase.telemetry.logging import get_logger

log = get_logger(__name__)


@final
class StoreCheck:
    """Looks for one database in one store.

    Args:
        store: where it was opened.
        database_id: the database.
    """

    def __init__(self, store: Store, database_id: str) -> None:
        self._store = store
        self._database_id = database_id
        self._etag = ""
        self._sight = StoreSight.UNSPECIFIED
        self._damaged = False

    async def look(self) -> StoreSight:
        """Read the database's description, conditionally. Never raises a DeltaError.

        A store that does not answer, and a description that cannot be read, say nothing: what was
        seen last holds on. The objects themselves show whether they are whole.
        """
        try:
            stored = await self._store.get_if_changed(DATABASE_PATH, self._etag)
            if stored is None:
                return self._sight
            same = parse_database(stored.data).database_id == self._database_id
        except NotFound:
            self._see(StoreSight.GONE, "")
        except StartupError as exc:
            if not self._damaged:
                log.error(
                    "the database's description in the store is damaged", code=exc.code, detail=exc.detail
                )
            self._damaged = True
        except DeltaError as exc:
            log.debug("the store did not answer whether it holds the database", code=exc.code)
        else:
            self._see(StoreSight.HELD if same else StoreSight.GONE, stored.etag)
        return self._sight

    def _see(self, sight: StoreSight, etag: str) -> None:
        self._damaged = False
        self._etag = etag
        if sight is not self._sight:
            if sight is StoreSight.GONE:
                log.error("the store does not hold this database any more", code="store_gone")
            elif self._sight is StoreSight.GONE:
                log.info("the store holds this database again")
            self._sight = sight
