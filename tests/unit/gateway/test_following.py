"""Nobody who follows misses a state, whatever is lost on the way: see ``support.feed_world``."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from sim.loop import run
from support.feed_world import FeedWorld

from deltadatabase.gateway import following as module
from deltadatabase.gateway.following import Batch, Following
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.positions import CatchUp, Live, Position
from deltadatabase.model import Result

SEEDS = 20
SEEDS_FOR_A_PLANT = 500

Patch = pytest.MonkeyPatch


def world_runs(seed: int) -> None:
    async def story() -> None:
        await FeedWorld(seed).run()

    run(story())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_reader_sees_the_last_state_of_each_entity(seed: int) -> None:
    world_runs(seed)


def unknown_outcomes_dropped(patch: Patch) -> None:
    patch.setattr(Following, "uncertain", lambda self, command: None)


def unknown_outcomes_looked_for_once(patch: Patch) -> None:
    init = Following.__init__
    patch.setattr(
        Following, "__init__", lambda self, *args, **more: init(self, *args, **{**more, "checks_s": (0.0,)})
    )


def position_taken_after_the_walk(patch: Patch) -> None:
    catch_up = Following._catch_up

    async def late(self: Following, schema_id: str, position: CatchUp, limit: int, documents: bool) -> Batch:
        batch = await catch_up(self, schema_id, position, limit, documents)
        if isinstance(batch.position, Live):
            return msgspec.structs.replace(batch, position=self.now(schema_id))
        return batch

    patch.setattr(Following, "_catch_up", late)


def no_catch_up(patch: Patch) -> None:
    place = Following._place

    def straight_on(self: Following, schema_id: str, position: Position) -> Position:
        found = place(self, schema_id, position)
        return found.then if isinstance(found, CatchUp) else found

    patch.setattr(Following, "_place", straight_on)


def store_looked_through_once(patch: Patch) -> None:
    patch.setattr(Following, "_settled", lambda self: True)


def no_margin_for_clocks(patch: Patch) -> None:
    patch.setattr(module, "_MARGIN_MS", 0)


def late_puts_read_from_the_cache(patch: Patch) -> None:
    async def not_looked(self: Router, schema_id: str, key: str, write_id: bytes) -> Result:
        return Result()

    patch.setattr(Router, "resolve", not_looked)


PLANTS = (
    unknown_outcomes_dropped,
    unknown_outcomes_looked_for_once,
    position_taken_after_the_walk,
    no_catch_up,
    store_looked_through_once,
    no_margin_for_clocks,
    late_puts_read_from_the_cache,
)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Callable[[Patch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        for seed in range(SEEDS_FOR_A_PLANT):
            try:
                world_runs(seed)
            except AssertionError as exc:
                print(f"found by seed {seed}: {exc}")
                return
    pytest.fail(f"not found in {SEEDS_FOR_A_PLANT} seeds")
