"""Lists while entities are written and workers come, go and die; and mistakes that this must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deltadatabase.worker.name_index import Index, NameIndexes, Terms
from property.listing_world import World

SEEDS = range(6)
SEARCHED = range(40)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_there_all_the_time_is_listed_once_and_what_was_not_never(seed: int) -> None:
    await World(seed).run()


class Deaf(NameIndexes):
    """Does not hear of new entities."""

    def stored(self, name: tuple[str, str]) -> None:
        pass


class BlindWhileReading(NameIndexes):
    """Does not take over what was committed while a folder was read."""

    def _following(self, schema_id: str, changes: Any) -> Any:
        return super()._following(schema_id, _Dropped())


class _Dropped:
    def put(self, name: str, *, present: bool) -> None:
        pass

    def take(self) -> dict[str, bool]:
        return {}

    def __len__(self) -> int:
        return 0


class Timeless(NameIndexes):
    """Takes an index for good under every term."""

    async def get(self, schema_id: str, terms: Terms) -> Index | None:
        index = await super().get(schema_id, terms)
        if index is not None:
            index.covers = lambda terms: True  # type: ignore[method-assign]
        return index


@pytest.mark.parametrize("planted", [Deaf, BlindWhileReading, Timeless])
async def test_a_planted_mistake_is_found(planted: Callable[..., Any]) -> None:
    for seed in SEARCHED:
        try:
            await World(seed, make_indexes=planted).run()
        except AssertionError:
            return
    pytest.fail("no list was wrong")
