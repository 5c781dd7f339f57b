"""A worker's sign of life, and the maintenance flag that it meets."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from support.clocks import FakeClock, SeededRandom
from support.fake_store import FakeStore

from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import OutcomeUnknown, StartupError, StoreFull, Unavailable
from deltadatabase.limits import PRESENCE_INTERVAL_S, PRESENCE_RETRY_S, PRESENCE_VALID_S
from deltadatabase.maintenance.offline import Rules, offline
from deltadatabase.storage.database import begin_maintenance, end_maintenance, read_database, reserve_epochs
from deltadatabase.storage.paths import DATABASE_PATH, presence_path
from deltadatabase.worker.opening import examine, refresh
from deltadatabase.worker.presence import Presence, PresentLease

KEYRING = Keyring(MasterKey(b"k" * 32))
MARK = presence_path("proc-1")


class Held:
    membership = 7

    def holds(self) -> bool:
        return True


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def presence(store, clock) -> Presence:
    return Presence(store, "proc-1", clock=clock, random=SeededRandom())


async def test_a_worker_marks_its_presence_before_it_reads_the_description_for_good(store, presence):
    await examine(store, KEYRING, presence, random=SeededRandom(1))
    store.log.clear()
    await refresh(store, KEYRING, presence, await _report(store, presence), random=SeededRandom(2))
    assert store.log[-2:] == [("put", MARK), ("get", DATABASE_PATH)]


async def _report(store, presence):
    return await examine(store, KEYRING, presence, random=SeededRandom(3))


async def test_a_worker_does_not_open_a_store_under_maintenance_and_leaves_no_mark(store, presence):
    await examine(store, KEYRING, presence, random=SeededRandom(1))
    del store.objects[MARK]
    await begin_maintenance(store, "scrub")
    before = dict(store.objects)
    with pytest.raises(StartupError, match="-end-maintenance") as refused:
        await examine(store, KEYRING, presence, random=SeededRandom(2))
    assert refused.value.code == "store_refused"
    assert store.objects == before


async def test_a_flag_that_is_set_right_after_the_first_look_is_seen_by_the_second(store, presence):
    await examine(store, KEYRING, presence, random=SeededRandom(1))
    done = False

    async def set_flag() -> None:
        await begin_maintenance(store, "scrub")

    def before(operation: str, path: str) -> object:
        nonlocal done
        if operation == "put" and path == MARK and not done:
            done = True
            return set_flag()
        return None

    store.before = before
    with pytest.raises(StartupError, match="maintenance"):
        await examine(store, KEYRING, presence, random=SeededRandom(2))
    assert MARK in store.objects


async def test_a_new_membership_meets_the_flag_too(store, presence):
    report = await examine(store, KEYRING, presence, random=SeededRandom(1))
    await begin_maintenance(store, "scrub")
    with pytest.raises(StartupError, match="maintenance"):
        await refresh(store, KEYRING, presence, report, random=SeededRandom(2))


async def test_a_lease_needs_a_young_mark(store, clock, presence):
    lease = PresentLease(Held(), presence)
    assert not lease.holds()
    await presence.mark()
    # The flag was not looked at since.
    assert not lease.holds()
    presence.confirm()
    assert lease.holds() and lease.membership == 7
    clock.advance(PRESENCE_VALID_S)
    assert not lease.holds()


async def test_a_mark_whose_reply_was_lost_does_not_count(store, presence):
    def after(operation: str, path: str) -> None:
        raise OutcomeUnknown("no reply")

    store.after = after
    with pytest.raises(Unavailable):
        await presence.mark()
    presence.confirm()
    assert not presence.fresh()


async def test_each_mark_has_bytes_of_its_own(store, presence):
    await presence.mark()
    first = store.objects[MARK]
    await presence.mark()
    assert store.objects[MARK].data != first.data and store.objects[MARK].updated_ms > first.updated_ms


async def test_the_mark_is_renewed_and_the_flag_ends_it(store, clock, presence):
    await examine(store, KEYRING, presence, random=SeededRandom(1))
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)
        if len(slept) == 3:
            await begin_maintenance(store, "scrub")

    first = store.objects[MARK]
    kept = Presence(store, "proc-1", clock=clock, random=SeededRandom(9), sleep=sleep)
    await kept.mark()
    kept.confirm()
    with pytest.raises(StartupError, match="maintenance"):
        await kept.keep()
    assert slept == [PRESENCE_INTERVAL_S] * 3
    assert store.objects[MARK] != first and kept.fresh()


async def test_a_worker_that_comes_back_late_puts_nothing_before_it_has_seen_the_flag(store, clock):
    """Its mark is old, a scrub works: the new mark must not count before the flag was read."""
    held: list[bool] = []

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    def after(operation: str, path: str) -> None:
        held.append(PresentLease(Held(), presence).holds())

    presence = Presence(store, "proc-1", clock=clock, random=SeededRandom(9), sleep=sleep)
    await examine(store, KEYRING, presence, random=SeededRandom(1))
    clock.advance(2 * 3600)
    await begin_maintenance(store, "scrub")
    store.before = store.after = after
    with pytest.raises(StartupError, match="maintenance"):
        await presence.keep()
    assert held and not any(held) and not presence.fresh()


async def test_a_flag_set_during_the_renewal_is_seen_before_the_mark_counts(store, clock):
    held: list[bool] = []

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    async def set_flag() -> None:
        store.before = None
        await begin_maintenance(store, "scrub")

    def before(operation: str, path: str) -> object:
        return set_flag() if operation == "put" and path == MARK else None

    def after(operation: str, path: str) -> None:
        held.append(PresentLease(Held(), presence).holds())

    presence = Presence(store, "proc-1", clock=clock, random=SeededRandom(9), sleep=sleep)
    await examine(store, KEYRING, presence, random=SeededRandom(1))
    clock.advance(2 * 3600)
    store.before, store.after = before, after
    with pytest.raises(StartupError, match="maintenance"):
        await presence.keep()
    assert len(held) == 2 and not any(held) and not presence.fresh()


async def test_nothing_is_written_into_an_emptied_store(store, clock, presence):
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        slept.append(seconds)
        if len(slept) == 3:
            raise asyncio.CancelledError

    slept: list[float] = []
    report = await examine(store, KEYRING, presence, random=SeededRandom(1))
    kept = Presence(store, "proc-1", clock=clock, random=SeededRandom(9), sleep=sleep)
    store.objects.clear()
    with pytest.raises(StartupError, match="emptied"):
        await refresh(store, KEYRING, presence, report, random=SeededRandom(2))
    with pytest.raises(asyncio.CancelledError):
        await kept.keep()
    assert store.objects == {}


async def test_a_full_store_can_be_read_after_a_new_membership_and_not_written(store, clock, presence):
    report = await examine(store, KEYRING, presence, random=SeededRandom(1))
    clock.advance(2 * PRESENCE_VALID_S)

    def before(operation: str, path: str) -> None:
        if operation == "put":
            raise StoreFull("no room")

    store.before = before
    assert await refresh(store, KEYRING, presence, report, random=SeededRandom(2)) == report
    assert not PresentLease(Held(), presence).holds()


@pytest.mark.parametrize("seed", range(300))
async def test_a_worker_and_a_scrub_are_never_both_at_work(seed):
    """Any interleaving of the two halves: the agreement of decision 0022."""
    store, clock = FakeStore(), FakeClock()
    dice = Random(seed)
    presence = Presence(store, "proc-1", clock=clock, random=SeededRandom(seed))
    report = await examine(store, KEYRING, presence, random=SeededRandom(seed + 1))
    if dice.random() < 0.7:
        # As if long gone; otherwise the first look refuses already.
        del store.objects[MARK]
    inside = opened = False

    async def before(operation: str, path: str) -> None:
        # Now and then so long that the other half does all its steps meanwhile.
        for _ in range(dice.choice((0, 1, 2, 3, 40))):
            await asyncio.sleep(0)

    async def work() -> None:
        nonlocal opened
        for _ in range(dice.randrange(40)):
            await asyncio.sleep(0)
        try:
            await refresh(store, KEYRING, presence, report, random=SeededRandom(seed + 2))
        except (StartupError, Unavailable):
            return
        opened = True
        assert not inside

    async def scrub() -> None:
        nonlocal inside
        try:
            async with offline(store, "scrub", rules=Rules(), random=SeededRandom(seed + 3)):
                inside = True
                assert not opened
                for _ in range(dice.randrange(100)):
                    await asyncio.sleep(0)
                    assert not opened
                inside = False
        except StartupError:
            return

    store.before = before
    await asyncio.gather(work(), scrub())
    store.before = None
    assert (await read_database(store)).maintenance == ""


async def test_a_renewal_that_fails_is_tried_again_soon(store, clock):
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)
        if len(slept) == 4:
            raise asyncio.CancelledError

    def before(operation: str, path: str) -> None:
        raise Unavailable("store is down")

    presence = Presence(store, "proc-1", clock=clock, random=SeededRandom(9), sleep=sleep)
    await presence.mark()
    presence.confirm()
    store.before = before
    with pytest.raises(asyncio.CancelledError):
        await presence.keep()
    assert slept == [PRESENCE_INTERVAL_S, *[PRESENCE_RETRY_S] * 3]


async def test_the_flag_survives_a_reservation_of_epochs(store, presence):
    report = await examine(store, KEYRING, presence, random=SeededRandom(1))
    await begin_maintenance(store, "scrub")
    await reserve_epochs(store, expected=report.database.highest_epoch, highest=500, reservation="r")
    assert (await read_database(store)).maintenance == "scrub"


async def test_only_one_run_holds_the_flag_and_only_it_clears_it(store, presence):
    await examine(store, KEYRING, presence, random=SeededRandom(1))
    await begin_maintenance(store, "one")
    await begin_maintenance(store, "one")
    with pytest.raises(StartupError, match="maintenance"):
        await begin_maintenance(store, "two")
    assert not await end_maintenance(store, "two")
    assert (await read_database(store)).maintenance == "one"
    assert await end_maintenance(store, "one")
    assert not await end_maintenance(store)
    await begin_maintenance(store, "three")
    assert await end_maintenance(store)
