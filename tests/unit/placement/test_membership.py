"""Epochs, terms and owners under joins, drains and deaths."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.errors import Unavailable
from deltadatabase.placement.health import Heartbeats
from deltadatabase.placement.membership import Member, Placement


def table(*worker_ids: str, limit: int = 1_000) -> Placement:
    placement = Placement(64, epoch=10, epoch_limit=limit)
    for worker_id in worker_ids:
        placement.add(Member(worker_id, f"{worker_id}/1"))
        placement.apply(placement.pending())
    return placement


def test_first_member_gets_every_shard_under_a_new_epoch() -> None:
    placement = table("a")
    assert placement.epoch == 11
    assert set(placement.owners) == {"a/1"}
    assert set(placement.terms) == {11}


def test_a_join_gives_new_terms_to_moved_shards_only() -> None:
    placement = table("a")
    placement.add(Member("b", "b/1"))
    moving = placement.pending()
    assert placement.apply(moving) == moving
    assert 0 < len(moving) < 64
    assert all((placement.terms[s] == 12) == (s in moving) for s in range(64))
    assert all(placement.owners[s] == "b/1" for s in moving)


def test_nothing_to_move_raises_no_epoch() -> None:
    placement = table("a", "b")
    epoch = placement.epoch
    assert placement.apply(range(64)) == []
    assert placement.epoch == epoch


def test_a_draining_member_keeps_its_shards_until_they_move() -> None:
    placement = table("a", "b")
    had = placement.owned_by("a/1")
    placement.drain("a/1")
    assert placement.owned_by("a/1") == had
    placement.apply(placement.pending())
    assert placement.owned_by("a/1") == 0
    assert set(placement.owners) == {"b/1"}


def test_the_last_member_keeps_its_shards_while_draining() -> None:
    placement = table("a")
    placement.drain("a/1")
    assert placement.pending() == []


def test_no_term_outlives_a_release_also_where_all_members_drain() -> None:
    placement = table("a")
    before = list(placement.terms)
    placement.drain("a/1")
    placement.release()
    placement.apply(placement.orphans())
    assert not any(now == then for now, then in zip(placement.terms, before, strict=True))
    placement.add(Member("b", "b/1"))
    placement.apply(placement.pending())
    assert min(placement.terms) > max(before)


def test_a_death_leaves_orphans_until_applied() -> None:
    placement = table("a", "b")
    lost = [s for s in range(64) if placement.owners[s] == "a/1"]
    placement.remove("a/1")
    assert placement.orphans() == lost
    placement.apply(lost)
    assert placement.orphans() == []
    assert all(placement.terms[s] == placement.epoch for s in lost)


def test_a_restarted_worker_gets_its_shards_back_under_new_terms() -> None:
    placement = table("a", "b")
    had = [s for s in range(64) if placement.owners[s] == "a/1"]
    placement.remove("a/1")
    placement.add(Member("a", "a/2"))
    placement.apply(placement.pending())
    assert [s for s in range(64) if placement.owners[s] == "a/2"] == had


def test_no_epoch_is_used_that_is_not_reserved() -> None:
    placement = table("a", limit=11)
    placement.add(Member("b", "b/1"))
    with pytest.raises(Unavailable):
        placement.apply(placement.pending())
    assert placement.epoch == 11
    assert set(placement.owners) == {"a/1"}
    placement.epoch_limit = 20
    assert placement.apply(placement.pending())


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "drain"]), st.integers(0, 4)), max_size=30))
def test_terms_and_epoch_never_go_back(events: list[tuple[str, int]]) -> None:
    placement = table()
    instance = 0
    for kind, worker in events:
        before = (placement.epoch, list(placement.terms), list(placement.owners))
        present = placement.instance_of(f"w{worker}")
        if kind == "join" and present is None:
            instance += 1
            placement.add(Member(f"w{worker}", f"w{worker}/{instance}"))
        elif kind == "leave" and present is not None:
            placement.remove(present)
        elif kind == "drain" and present is not None:
            placement.drain(present)
        placement.apply(placement.pending())
        assert placement.epoch >= before[0]
        for shard in range(64):
            assert placement.terms[shard] >= before[1][shard]
            owner = placement.owners[shard]
            if owner is not None and owner != before[2][shard]:
                assert placement.terms[shard] == placement.epoch > before[1][shard]
        if any(not member.draining for member in placement.members.values()):
            assert placement.orphans() == []


def test_silent_members_expire() -> None:
    heartbeats = Heartbeats(timeout_s=2.5)
    heartbeats.heard("a", 0.0)
    heartbeats.heard("b", 2.0)
    assert heartbeats.expired(2.5) == []
    assert heartbeats.expired(2.6) == ["a"]
    heartbeats.forget("a")
    assert heartbeats.expired(2.6) == []
