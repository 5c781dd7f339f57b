"""Memberships, the database that is bound, and reserved epochs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.clocks import FakeClock, SeededRandom

from deltadatabase.errors import Conflict, LinkLost, StartupError, Unavailable
from deltadatabase.gateway.control import sight_of
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.members import GONE_KEPT_S, SIGHT_FRESH_S, Cluster, changed_templates
from deltadatabase.gateway.state import ClusterState
from deltadatabase.limits import EPOCH_BLOCK, MEMBERSHIP_TIMEOUT_S
from deltadatabase.model import (
    Command,
    DatabaseInfo,
    MemberInfo,
    MemberState,
    Op,
    Result,
    StoreReport,
    StoreSight,
)


class Store:
    """What the fake workers share: the highest epoch, and the reservation that set it."""

    def __init__(self) -> None:
        self.highest = 0
        self.reservation = b""
        self.lose_replies = 0


class StoreLink:
    """A link to a worker that does nothing but reserve epochs."""

    local = False

    def cached(self, command: Command) -> Result | None:
        return None

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lost = asyncio.Event()

    async def call(self, command: Command) -> Result:
        assert command.op is Op.RESERVE_EPOCHS
        store = self.store
        if store.reservation != command.write_id:
            if store.highest != command.term:
                return Result(found=False, number=store.highest)
            store.highest, store.reservation = command.number, command.write_id
        if store.lose_replies:
            store.lose_replies -= 1
            raise LinkLost("broke")
        return Result(found=True, number=store.highest)

    async def close(self) -> None:
        self.lost.set()


class World:
    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.state = ClusterState(folder)
        self.router = Router(clock=self.clock, random=SeededRandom(1))
        self.cluster = Cluster(self.router, self.state, clock=self.clock, random=SeededRandom(2))
        self.store = Store()
        self.replaced: list[str] = []

    async def join(
        self,
        worker_id: str,
        instance: str = "1",
        *,
        database: str = "db",
        watched: bool = True,
        highest_seen: int | None = None,
    ) -> StoreLink:
        link = StoreLink(self.store)
        highest = self.store.highest if highest_seen is None else highest_seen
        await self.cluster.admit(
            MemberInfo(
                worker_id=worker_id,
                instance_id=f"{worker_id}/{instance}",
                state=MemberState.AVAILABLE,
                key_id="k",
                last_seen_ms=0,
                address="",
            ),
            StoreReport(
                backend="memory",
                checks=(),
                database=DatabaseInfo(
                    database_id=database, format=1, shards=64, highest_epoch=highest, keys={}
                ),
            ),
            link,
            on_replaced=lambda: self.replaced.append(worker_id),
            watched=watched,
        )
        return link

    async def expire(self) -> None:
        watching = asyncio.create_task(self.cluster.watch())
        await asyncio.sleep(0.15)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    def states(self) -> dict[str, MemberState]:
        return {info.worker_id: info.state for info in self.cluster.members()}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "state")
    yield world
    await world.cluster.close()
    world.state.close()


def codes(world: World) -> set[str]:
    return {check.code for check in world.cluster.readiness()}


async def test_ready_once_a_worker_owns_everything(world: World) -> None:
    assert "no_worker" in codes(world)
    await world.join("a")
    assert codes(world) == {"ok"}
    assert world.store.highest == EPOCH_BLOCK


async def test_epochs_never_go_back_over_restarts_and_a_lost_state_directory(
    world: World, tmp_path: Path
) -> None:
    await world.join("a")
    first = world.cluster.epoch
    lost = World(tmp_path / "other")
    lost.store = world.store
    await lost.join("a")
    assert lost.cluster.epoch > EPOCH_BLOCK >= first
    await lost.cluster.close()
    lost.state.close()
    restored = World(tmp_path / "other")
    await restored.join("a")  # The store was restored from an old backup: epoch 0.
    assert restored.cluster.epoch > 2 * EPOCH_BLOCK
    await restored.cluster.close()
    restored.state.close()


async def test_silence_ends_a_membership(world: World) -> None:
    link = await world.join("a")
    await world.join("b")
    world.clock.advance(MEMBERSHIP_TIMEOUT_S - 0.1)
    world.cluster.heard("b/1", 0)
    world.clock.advance(0.2)
    await world.expire()
    assert world.states() == {"a": MemberState.UNREACHABLE, "b": MemberState.AVAILABLE}
    assert link.lost.is_set()
    assert world.router.placement is not None
    assert set(world.router.placement.owners) == {"b/1"}


async def test_the_embedded_worker_is_never_silent(world: World) -> None:
    await world.join("embedded", watched=False)
    world.cluster.heard("embedded/1", 0)
    world.clock.advance(3600)
    await world.expire()
    assert codes(world) == {"ok"}


async def test_a_newer_instance_replaces_the_older(world: World) -> None:
    await world.join("a", "1")
    await world.join("a", "2")
    assert world.replaced == ["a"]
    assert world.router.placement is not None
    assert set(world.router.placement.owners) == {"a/2"}
    assert world.states() == {"a": MemberState.AVAILABLE}


async def test_a_drained_worker_is_not_called_unreachable(world: World) -> None:
    await world.join("a")
    await world.join("b")
    await world.cluster.drain("a/1")
    assert world.states()["a"] is MemberState.DRAINING
    world.cluster.leave("a/1")
    assert world.states() == {"b": MemberState.AVAILABLE}


async def test_a_worker_on_another_database_is_refused(world: World) -> None:
    await world.join("a")
    with pytest.raises(Conflict) as caught:
        await world.join("b", database="another")
    assert caught.value.code == "other_database"
    assert world.states() == {"a": MemberState.AVAILABLE}


async def test_epochs_of_another_main_worker_close_the_router(world: World) -> None:
    await world.join("a")
    world.cluster.heard("a/1", EPOCH_BLOCK)
    assert codes(world) == {"ok"}
    world.cluster.heard("a/1", EPOCH_BLOCK + 1)
    assert "foreign_writer" in codes(world)
    with pytest.raises(Unavailable) as caught:
        await world.router.get("s", "k")
    assert caught.value.code == "foreign_writer"


async def test_a_store_without_the_database_closes_the_router_until_it_is_back(world: World) -> None:
    await world.join("a")
    await world.join("b")
    world.cluster.heard("a/1", 0, StoreSight.HELD)
    assert codes(world) == {"ok"}
    world.cluster.heard("a/1", 0, StoreSight.GONE)
    world.cluster.heard("b/1", 0, StoreSight.GONE)
    assert "store_gone" in codes(world)
    for call in (
        world.router.get("s", "k"),
        world.router.put_one("s", "k", b"1"),
        world.router.schema_list(),
    ):
        with pytest.raises(Unavailable) as caught:
            await call
        assert (caught.value.code, caught.value.retry_after_s) == ("store_gone", 1.0)
    # Nothing was looked up: what is not known yet, and what only one has seen, opens nothing.
    world.cluster.heard("a/1", 0)
    world.cluster.heard("a/1", 0, StoreSight.HELD)
    assert "store_gone" in codes(world)
    world.cluster.heard("b/1", 0, StoreSight.HELD)
    assert codes(world) == {"ok"}


async def test_a_reopened_store_raises_every_term_and_revision(world: World) -> None:
    await world.join("a")
    placement = world.router.placement
    assert placement is not None
    terms, revision = list(placement.terms), world.router.revisions.revision("never heard of")
    world.cluster.heard("a/1", 0, StoreSight.GONE)
    world.cluster.heard("a/1", 0, StoreSight.HELD)
    assert all(now > before for now, before in zip(placement.terms, terms, strict=True))
    assert set(placement.owners) == {"a/1"}
    assert world.router.revisions.revision("never heard of") > revision


async def test_a_store_that_is_back_opens_nothing_that_another_main_worker_closed(world: World) -> None:
    await world.join("a")
    world.cluster.heard("a/1", 0, StoreSight.GONE)
    world.cluster.heard("a/1", EPOCH_BLOCK + 1, StoreSight.HELD)
    world.cluster.heard("a/1", 0, StoreSight.GONE)
    assert {"foreign_writer", "store_gone"} <= codes(world)
    for sight in (StoreSight.HELD, StoreSight.GONE, StoreSight.HELD):
        world.cluster.heard("a/1", 0, sight)
        with pytest.raises(Unavailable) as caught:
            await world.router.get("s", "k")
        assert caught.value.code == "foreign_writer"
    world.cluster.leave("a/1")
    assert "foreign_writer" in codes(world)
    with pytest.raises(Conflict):
        await world.join("b")


async def test_who_has_just_opened_the_store_joins_while_another_misses_it(world: World) -> None:
    await world.join("a")
    world.cluster.heard("a/1", 0, StoreSight.GONE)
    await world.join("b")
    assert "store_gone" in codes(world)


async def test_who_leaves_without_the_database_leaves_a_doubt_until_the_others_have_looked(
    world: World,
) -> None:
    await world.join("a")
    await world.join("b")
    world.cluster.heard("a/1", 0, StoreSight.GONE)
    world.cluster.leave("a/1")
    # What b says now it may have seen before the store was emptied.
    world.cluster.heard("b/1", 0, StoreSight.HELD)
    assert "store_gone" in codes(world)
    world.clock.advance(SIGHT_FRESH_S)
    assert "store_gone" in codes(world)
    world.cluster.heard("b/1", 0, StoreSight.UNSPECIFIED)
    assert "store_gone" in codes(world)
    world.cluster.heard("b/1", 0, StoreSight.HELD)
    assert codes(world) == {"ok"}


async def test_a_doubt_ends_with_the_last_who_is_doubted(world: World) -> None:
    await world.join("a")
    await world.join("b")
    world.cluster.heard("a/1", 0, StoreSight.GONE)
    world.cluster.leave("a/1")
    world.cluster.leave("b/1")
    await world.join("c")
    assert codes(world) == {"ok"}


async def test_a_store_that_is_back_waits_for_an_epoch_if_none_is_left(world: World) -> None:
    await world.join("a")
    placement = world.router.placement
    assert placement is not None
    world.cluster.heard("a/1", 0, StoreSight.GONE)
    placement.epoch = placement.epoch_limit
    world.cluster.heard("a/1", 0, StoreSight.HELD)
    assert "no_owner" in codes(world)
    await asyncio.sleep(0.05)
    assert codes(world) == {"ok"}


def test_a_sight_of_a_later_version_says_nothing() -> None:
    assert [sight_of(number) for number in (0, 1, 2, 9, -1)] == [
        StoreSight.UNSPECIFIED,
        StoreSight.HELD,
        StoreSight.GONE,
        StoreSight.UNSPECIFIED,
        StoreSight.UNSPECIFIED,
    ]


async def test_a_lost_reply_to_a_reservation_is_recognised(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deltadatabase.gateway.members.RESERVE_AGAIN_S", 0.01)
    await world.join("a")
    assert world.router.placement is not None
    world.store.lose_replies = 2
    world.router.placement.epoch = world.router.placement.epoch_limit - 1
    await world.join("b")
    world.cluster.heard("a/1", 2 * EPOCH_BLOCK)  # Ours, though no reply has said so yet.
    await asyncio.sleep(0.1)
    assert codes(world) == {"ok"}
    assert world.router.placement.epoch_limit == 2 * EPOCH_BLOCK
    assert world.state.epoch_limit("db") == 2 * EPOCH_BLOCK


async def test_a_worker_that_cannot_start_shows_in_readiness(world: World) -> None:
    world.cluster.start_failed("a", "wrong_master_key", "the key does not fit")
    assert "wrong_master_key" in codes(world)
    await world.join("a")
    assert codes(world) == {"ok"}


async def test_templates_changed_by_others_raise_revisions(world: World) -> None:
    await world.join("a")
    before = world.router.revisions.revision("s")
    world.cluster.templates_seen({"s": "1", "t": "1"})
    world.cluster.templates_seen({"s": "2", "t": "1"})
    world.cluster.templates_seen({"s": "2", "t": "1"})
    assert world.router.revisions.revision("s") == before + 2
    assert world.router.revisions.revision("t") == before + 1
    assert changed_templates({"a": "1", "b": "1"}, {"b": "2", "c": "1"}) == ["a", "b", "c"]


def test_one_main_worker_for_a_state_directory(tmp_path: Path) -> None:
    state = ClusterState(tmp_path)
    with pytest.raises(StartupError) as caught:
        ClusterState(tmp_path)
    assert caught.value.code == "locked"
    state.set_epoch_limit("db", 10)
    state.set_epoch_limit("db", 5)
    state.close()
    again = ClusterState(tmp_path)
    assert again.epoch_limit("db") == 10
    again.close()
    for damaged in ("{", '{"db":18446744073709551616}', '{"db":-1}'):
        (tmp_path / "epochs.json").write_text(damaged)
        with pytest.raises(StartupError) as caught:
            ClusterState(tmp_path)
        assert caught.value.code == "state_unusable"


async def test_workers_that_are_gone_for_an_hour_make_room_for_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deltadatabase.gateway.members.GONE_KEPT_MAX", 1)
    for name in ("a", "b", "c"):
        await world.join(name)
        world.cluster.leave(f"{name}/1")
        assert [info.worker_id for info in world.cluster.members()] == [name]
        world.clock.advance(GONE_KEPT_S + 1)


async def test_a_lost_reply_to_the_first_reservation_does_not_keep_the_others_out(world: World) -> None:
    """They looked at the database before; each would have had to look again, one after the other."""
    world.store.lose_replies = 1
    with pytest.raises(LinkLost):
        await world.join("a", highest_seen=0)
    await world.join("b", highest_seen=0)
    assert codes(world) == {"ok"}
    placement = world.router.placement
    assert placement is not None
    assert EPOCH_BLOCK < placement.epoch <= placement.epoch_limit == world.store.highest == 2 * EPOCH_BLOCK


async def test_a_main_worker_that_is_always_overtaken_does_not_bind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overtaken(self: StoreLink, command: Command) -> Result:
        self.store.highest += EPOCH_BLOCK
        return Result(found=False, number=self.store.highest)

    monkeypatch.setattr(StoreLink, "call", overtaken)
    with pytest.raises(Unavailable) as caught:
        await world.join("a")
    assert caught.value.code == "foreign_writer" and world.router.placement is None
