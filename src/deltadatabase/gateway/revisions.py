"""Numbers the changes of each schema. Pure.

A revision begins with the epoch at which this main worker began, and epochs never go back, also
when the state directory is lost. So a worker that knows a schema from an earlier main worker
always finds itself behind, and nothing has to be kept on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

EPOCH_SHIFT: Final = 32
"""Room for the changes of one schema in the life of one main worker."""


class Revisions:
    """The present revision of each schema."""

    def __init__(self) -> None:
        self._base = 0
        self._raised: dict[str, int] = {}

    def begin(self, epoch: int) -> None:
        """Number from ``epoch`` on; called once, before anything is served."""
        self._base = epoch << EPOCH_SHIFT

    def revision(self, schema_id: str) -> int:
        """Return the revision that a write of this schema must know at least."""
        return self._base + self._raised.get(schema_id, 0)

    def raise_all(self) -> None:
        """Count one change of every schema, whether its id is known here or not."""
        self._base += 1

    def raise_for(self, schema_ids: Iterable[str]) -> None:
        """Count one change of each of these schemas."""
        for schema_id in schema_ids:
            self._raised[schema_id] = self._raised.get(schema_id, 0) + 1
