"""Shards and their owners."""

from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.placement.ring import shard_of, shard_owners

worker_ids = st.sets(st.text("abcdefghij0123456789-", min_size=1, max_size=12), min_size=1, max_size=10)


def test_shard_of_never_changes() -> None:
    # Stored data depends on it: golden values.
    assert shard_of("chat.v1", "room:1", 1024) == GOLDEN_ROOM
    assert shard_of("chat.v1", "", 1024) == GOLDEN_EMPTY
    assert shard_of("a", "b_c", 1024) != shard_of("a_b", "c", 1024)


GOLDEN_ROOM = 38
GOLDEN_EMPTY = 818


@given(worker_ids)
def test_every_shard_has_an_owner_whatever_the_order(ids: set[str]) -> None:
    owners = shard_owners(sorted(ids), 256)
    assert len(owners) == 256
    assert set(owners) <= ids
    assert owners == shard_owners(sorted(ids, reverse=True), 256)


@given(worker_ids, st.text("xyz", min_size=1, max_size=5))
def test_a_join_moves_shards_only_to_the_joiner(ids: set[str], joiner: str) -> None:
    before = shard_owners(ids, 256)
    after = shard_owners(ids | {joiner}, 256)
    assert all(new in (old, joiner) for old, new in zip(before, after, strict=True))


@given(worker_ids)
def test_a_leave_moves_only_the_leavers_shards(ids: set[str]) -> None:
    leaver = min(ids)
    before = shard_owners(ids, 256)
    after = shard_owners(ids - {leaver}, 256)
    if len(ids) == 1:
        assert after == ()
    else:
        assert all(old == new for old, new in zip(before, after, strict=True) if old != leaver)


def test_load_is_even_enough() -> None:
    owners = shard_owners([f"proc-{index}" for index in range(10)], 1024)
    counts = [owners.count(f"proc-{index}") for index in range(10)]
    assert min(counts) > 1024 / 10 * 0.6
    assert max(counts) < 1024 / 10 * 1.6
