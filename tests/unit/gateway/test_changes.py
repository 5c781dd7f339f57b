import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clocks import FakeClock, SeededRandom

from deltadatabase.gateway.changes import ChangeLog
from deltadatabase.limits import CHANGES_KEPT_S


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def make(clock: FakeClock, **bounds: int) -> ChangeLog:
    log = ChangeLog(clock=clock, random=SeededRandom(), **bounds)
    log.follow("s")
    return log


def note(log: ChangeLog, key: str, version: int, schema_id: str = "s", *, deleted: bool = False) -> None:
    log.note(schema_id, key, version, "" if deleted else f'"{version}-aa"', 1, deleted=deleted)


def states(log: ChangeLog, after: int = 0, limit: int = 1000) -> list[tuple[str, int]] | None:
    found = log.after("s", after, limit)
    return None if found is None else [(change.key, change.version) for change in found[0]]


def test_states_come_in_the_order_in_which_they_became_known(clock: FakeClock) -> None:
    log = make(clock)
    note(log, "b", 1)
    note(log, "a", 1)
    assert states(log) == [("b", 1), ("a", 1)]
    assert states(log, after=1) == [("a", 1)]
    assert states(log, after=2) == []


def test_a_replaced_state_is_left_out(clock: FakeClock) -> None:
    log = make(clock)
    for version in (1, 2):
        note(log, "a", version)
        note(log, f"other {version}", 1)
    assert states(log) == [("other 1", 1), ("a", 2), ("other 2", 1)]


@pytest.mark.parametrize("version", [1, 2])
def test_a_state_that_is_not_newer_changes_nothing(clock: FakeClock, version: int) -> None:
    log = make(clock)
    note(log, "a", 2)
    note(log, "a", version, deleted=True)
    assert states(log) == [("a", 2)]
    assert log.sequence == 1


def test_versions_may_begin_again_once_a_tombstone_can_have_been_removed(clock: FakeClock) -> None:
    log = make(clock)
    note(log, "a", 5, deleted=True)
    clock.advance(CHANGES_KEPT_S + 1)
    log.follow("s")
    note(log, "a", 1)
    assert states(log, after=1) == [("a", 1)]


def test_a_schema_that_nobody_follows_costs_nothing(clock: FakeClock) -> None:
    log = make(clock)
    note(log, "a", 1, "other")
    assert (log.noted, log.sequence) == (0, 0)
    assert log.after("other", 0, 10) is None


def test_a_limit_says_whether_these_are_all(clock: FakeClock) -> None:
    log = make(clock)
    for key in "abc":
        note(log, key, 1)
    assert [log.after("s", 0, limit)[1] for limit in (2, 3, 4)] == [False, True, True]  # type: ignore[index]


def test_it_forgets_the_oldest_of_the_largest_and_says_so(clock: FakeClock) -> None:
    log = make(clock, noted_max=10)
    log.follow("small")
    note(log, "a", 1, "small")
    for number in range(20):
        note(log, str(number), 1)
    assert log.noted <= 10
    assert states(log) is None
    assert states(log, after=log.sequence - 3) == [("17", 1), ("18", 1), ("19", 1)]
    assert log.after("small", 0, 10) is not None


def test_many_writes_of_one_entity_take_little(clock: FakeClock) -> None:
    log = make(clock, noted_max=1000)
    note(log, "first", 1)
    for version in range(1, 100_001):
        note(log, "hot", version)
        assert log.noted <= 1001
    assert states(log, after=log.sequence - 1) == [("hot", 100_000)]


def test_what_is_older_than_an_hour_goes(clock: FakeClock) -> None:
    log = make(clock)
    note(log, "a", 1)
    clock.advance(CHANGES_KEPT_S + 100)
    log.follow("s")
    note(log, "b", 1)
    assert states(log) is None
    assert states(log, after=1) == [("b", 1)]


def test_a_schema_is_followed_for_an_hour(clock: FakeClock) -> None:
    log = make(clock)
    clock.advance(CHANGES_KEPT_S - 1)
    log.follow("other")
    assert log.follows("s")
    clock.advance(2)
    log.follow("third")
    assert not log.follows("s")
    assert log.follows("other")


def test_writers_alone_end_what_nobody_follows(clock: FakeClock) -> None:
    log = make(clock)
    note(log, "a", 1)
    clock.advance(2 * CHANGES_KEPT_S)
    note(log, "a", 2)
    assert not log.follows("s")
    assert log.noted == 0


def test_past_the_bound_the_schema_that_waited_longest_is_let_go(clock: FakeClock) -> None:
    log = make(clock, schemas_max=2)
    log.follow("t")
    log.follow("s")
    log.follow("u")
    assert [log.follows(name) for name in "stu"] == [True, False, True]


def test_a_log_that_begins_anew_covers_nothing_of_before(clock: FakeClock) -> None:
    log = make(clock)
    note(log, "a", 1)
    before = log.incarnation
    log.begin_anew()
    assert log.incarnation != before
    assert states(log) is None
    log.follow("s")
    assert states(log) is None
    assert states(log, after=1) == []


async def test_who_waits_is_woken_by_a_change(clock: FakeClock) -> None:
    log = make(clock)
    waiting = [asyncio.create_task(log.wait("s", 0, 60.0)) for _ in range(3)]
    await asyncio.sleep(0.01)
    note(log, "a", 1)
    await asyncio.wait_for(asyncio.gather(*waiting), 1.0)


async def test_who_waits_is_not_woken_by_another_ones_end(clock: FakeClock) -> None:
    log = make(clock)
    patient = asyncio.create_task(log.wait("s", 0, 60.0))
    await log.wait("s", 0, 0.01)
    assert not patient.done()
    patient.cancel()
    impatient = asyncio.create_task(log.wait("s", 0, 60.0))
    await asyncio.sleep(0)
    assert not impatient.done()
    note(log, "a", 1)
    await asyncio.wait_for(impatient, 1.0)


@pytest.mark.parametrize("end", ["close", "begin_anew"])
async def test_nobody_waits_beyond_the_end(clock: FakeClock, end: str) -> None:
    log = make(clock)
    waiting = asyncio.create_task(log.wait("s", 0, 60.0))
    await asyncio.sleep(0.01)
    getattr(log, end)()
    await asyncio.wait_for(waiting, 1.0)
    await asyncio.wait_for(log.wait("s", 0, 60.0), 1.0)


WRITES = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), max_size=60)


@given(WRITES, st.integers(1, 3), st.sampled_from([3, 6, 1000]))
def test_a_reader_of_pages_has_every_last_state_or_is_told(
    writes: list[tuple[str, int]], limit: int, noted_max: int
) -> None:
    log = make(FakeClock(), noted_max=noted_max)
    versions: dict[str, int] = {}
    seen: dict[str, int] = {}
    position, told = 0, False
    for key, reads in writes:
        versions[key] = versions.get(key, 0) + 1
        note(log, key, versions[key])
        for _ in range(reads):
            found = log.after("s", position, limit)
            if found is None:
                told, position = True, log.sequence
                seen = versions.copy()
                continue
            for change in found[0]:
                assert change.version > seen.get(change.key, 0)
                seen[change.key] = change.version
                position = change.sequence
    while (found := log.after("s", position, limit)) is not None and found[0]:
        for change in found[0]:
            assert change.version > seen.get(change.key, 0)
            seen[change.key] = change.version
            position = change.sequence
    assert found is None or seen == versions
    assert noted_max < 1000 or (found is not None and not told)
