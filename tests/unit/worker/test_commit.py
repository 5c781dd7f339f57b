"""Commands on entities over a store whose faults are scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.clocks import FakeClock, SeededRandom
from support.fake_store import FakeStore, Faults
from support.workers import Lease, make_committer

from deltadatabase.errors import (
    AlreadyExists,
    Corrupt,
    DeltaError,
    Invalid,
    NotFound,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    StoreFull,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.model import Command, Op, Result
from deltadatabase.storage.paths import entity_path

PATH = entity_path("s", "k")
_ids = SeededRandom(99)


class Bench:
    """One committer, and a second one on the same store: the next owner."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.lease = Lease()
        self.clock = FakeClock()
        self.noted: list[tuple[str, str]] = []
        self.worker = make_committer(self.store, clock=self.clock, lease=self.lease, sidecar=self, seed=1)
        self.other = make_committer(self.store, clock=self.clock, lease=self.lease, sidecar=self, seed=2)

    def note(self, schema_id: str, key: str, sealed: bytes) -> None:
        self.noted.append((schema_id, key))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def command(
    op: Op, document: bytes = b"", *, term: int = 1, timeout_ms: int = 1000, **more: object
) -> Command:
    write_id = more.pop("write_id", None) or (_ids(16) if op in (Op.PUT, Op.PATCH, Op.DELETE) else b"")
    return Command(
        op=op, schema_id="s", key="k", shard=3, term=term, document=document, timeout_ms=timeout_ms,
        write_id=write_id, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def get(**more: int) -> Command:
    return command(Op.GET, **more)


async def test_what_was_put_is_read_byte_for_byte(bench: Bench) -> None:
    document = b' {"b":1,  "a":2.0}'
    written = await bench.worker.execute(command(Op.PUT, document))
    assert (written.version, written.created) == (1, True)
    cached = bench.worker.fast(get())
    assert cached is not None and cached.document == document and cached.etag == written.etag
    fresh = await bench.other.execute(get(term=2))
    assert (fresh.document, fresh.etag, fresh.version) == (document, written.etag, 1)
    assert bench.noted == [("s", "k")]
    assert document not in bench.store.objects[PATH].data


async def test_an_overwrite_with_a_cached_header_costs_one_store_request(bench: Bench) -> None:
    await bench.worker.execute(command(Op.PUT, b"1"))
    bench.store.log.clear()
    await bench.worker.execute(command(Op.PUT, b"2"))
    assert bench.store.log == [("put", PATH)]


async def test_a_deleted_entity_stays_away(bench: Bench) -> None:
    await bench.worker.execute(command(Op.PUT, b"1"))
    assert (await bench.worker.execute(command(Op.DELETE))).found
    for reader, term in ((bench.worker, 1), (bench.other, 2)):
        with pytest.raises(NotFound):
            await reader.execute(get(term=term))
    assert PATH in bench.store.objects
    again = await bench.other.execute(command(Op.PUT, b"3", term=2))
    assert (again.version, again.created) == (3, True)


async def test_deleting_what_is_absent_stores_nothing(bench: Bench) -> None:
    assert not (await bench.worker.execute(command(Op.DELETE))).found
    assert bench.store.objects == {}


async def test_a_refused_document_stores_nothing(bench: Bench) -> None:
    with pytest.raises(Invalid):
        await bench.worker.execute(command(Op.PUT, b"bad"))
    assert bench.store.log == []


async def test_an_older_term_is_refused_before_anything_happens(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.worker.execute(get(term=5))
    bench.store.log.clear()
    for op in (Op.GET, Op.PUT, Op.DELETE, Op.RESOLVE):
        with pytest.raises(NotOwner):
            await bench.worker.execute(command(op, b"1", term=4))
    with pytest.raises(NotOwner):
        bench.worker.fast(get(term=4))
    assert bench.store.log == []


async def test_a_cached_value_of_another_term_is_not_served(bench: Bench) -> None:
    await bench.worker.execute(command(Op.PUT, b"1", term=1))
    await bench.other.execute(command(Op.PUT, b"2", term=2))
    assert bench.worker.fast(get(term=3)) is None
    assert (await bench.worker.execute(get(term=3))).document == b"2"


async def test_a_newer_owners_write_is_never_overwritten_nor_cached(bench: Bench) -> None:
    await bench.worker.execute(command(Op.PUT, b"1", term=1))
    await bench.other.execute(command(Op.PUT, b"2", term=2))
    # Unknown, not refused: its own put could have landed and been superseded already.
    with pytest.raises(OutcomeUnknown):
        await bench.worker.execute(command(Op.PUT, b"late", term=1))
    assert bench.worker.fast(get(term=1)) is None
    assert (await bench.other.execute(get(term=2))).document == b"2"


async def test_a_lost_reply_is_recognised_as_success(bench: Bench) -> None:
    await bench.worker.execute(command(Op.PUT, b"1"))
    Faults(bench.store, "stored")
    written = await bench.worker.execute(command(Op.PUT, b"2"))
    assert written.version == 2
    assert (await bench.other.execute(get(term=2))).document == b"2"


async def test_a_put_that_was_lost_is_sent_again_and_lands_once(bench: Bench) -> None:
    Faults(bench.store, "lost", "lost", "ok")
    written = await bench.worker.execute(command(Op.PUT, b"1"))
    assert written.version == 1
    assert (await bench.other.execute(get(term=2))).version == 1


async def test_two_landings_of_one_put_make_one_version(bench: Bench) -> None:
    """The reply of the first put is lost before it lands; the repeat lands, then the first arrives."""
    late: list[tuple[str, bytes]] = []
    real = bench.store.put

    async def put(path: str, data: bytes, condition: object) -> str:
        if not late:
            late.append((path, data))
            raise OutcomeUnknown("slow")
        return await real(path, data, condition)  # type: ignore[arg-type]

    bench.store.put = put  # type: ignore[method-assign]
    written = await bench.worker.execute(command(Op.PUT, b"1"))
    assert written.version == 1
    assert bench.store.objects[PATH].data == late[0][1]


async def test_refused_by_the_store_is_certain_and_changes_nothing(bench: Bench) -> None:
    await bench.worker.execute(command(Op.PUT, b"1"))
    for error in (Unavailable("down"), StoreFull("full")):

        def fail(operation: str, path: str, error: DeltaError = error) -> None:
            if operation == "put":
                raise error

        bench.store.before = fail
        with pytest.raises(type(error)):
            await bench.worker.execute(command(Op.PUT, b"2"))
    bench.store.before = None
    assert (await bench.worker.execute(get())).document == b"1"


async def test_an_unknown_put_followed_by_a_refusal_stays_unknown(bench: Bench) -> None:
    Faults(bench.store, "lost", "refused")
    with pytest.raises(OutcomeUnknown):
        await bench.worker.execute(command(Op.PUT, b"1"))


async def test_no_answer_before_the_deadline_is_unknown(bench: Bench) -> None:
    Faults(bench.store, *["lost"] * 100)
    bench.clock._tick_s = 0.02
    with pytest.raises(OutcomeUnknown):
        await bench.worker.execute(command(Op.PUT, b"1"))
    assert bench.worker.fast(get()) is None


async def test_refusals_while_a_lost_put_may_still_land_stay_unknown(bench: Bench) -> None:
    bench.clock._tick_s = 0.02
    puts = 0

    def refuse(operation: str, path: str) -> None:
        nonlocal puts
        if operation == "put":
            puts += 1
            raise OutcomeUnknown("no reply") if puts == 1 else AlreadyExists("says the store")

    bench.store.before = refuse
    with pytest.raises(OutcomeUnknown):
        await bench.worker.execute(command(Op.PUT, b"1"))


async def test_a_write_whose_time_passed_in_the_queue_is_not_put(bench: Bench) -> None:
    gate = asyncio.Event()
    bench.store.before = _once(lambda operation, path: gate.wait())
    first = asyncio.create_task(bench.worker.execute(command(Op.PUT, b"1", timeout_ms=60_000)))
    while ("put", PATH) not in bench.store.log:
        await asyncio.sleep(0)
    second = asyncio.create_task(bench.worker.execute(command(Op.PUT, b"2", timeout_ms=1_000)))
    await asyncio.sleep(0.01)
    bench.clock.advance(2.0)
    gate.set()
    assert (await first).version == 1
    with pytest.raises(Overloaded):
        await second
    assert bench.store.log.count(("put", PATH)) == 1


async def test_membership_lost_between_two_tries_is_unknown_not_certain(bench: Bench) -> None:
    def lose(operation: str, path: str) -> None:
        if operation == "put":
            bench.lease.alive = False
            raise OutcomeUnknown("no reply")

    bench.store.before = lose
    with pytest.raises(OutcomeUnknown):
        await bench.worker.execute(command(Op.PUT, b"1"))


async def test_nothing_is_put_without_a_live_membership(bench: Bench) -> None:
    bench.lease.alive = False
    with pytest.raises(NotOwner):
        await bench.worker.execute(command(Op.PUT, b"1"))
    assert ("put", PATH) not in bench.store.log


async def test_resolve_finds_a_write_and_replaces_the_cache(bench: Bench) -> None:
    first = command(Op.PUT, b"1")
    await bench.worker.execute(first)
    await bench.other.execute(command(Op.PUT, b"2", term=2))
    found = await bench.worker.execute(command(Op.RESOLVE, term=3, write_id=first.write_id))
    assert (found.found, found.version) == (True, 1)
    cached = bench.worker.fast(get(term=3))
    assert cached is not None and cached.document == b"2"
    missing = await bench.worker.execute(command(Op.RESOLVE, term=3, write_id=b"\x01" * 16))
    assert not missing.found


async def test_a_repeated_write_is_applied_once(bench: Bench) -> None:
    write = command(Op.PUT, b"1")
    first = await bench.worker.execute(write)
    again = await bench.worker.execute(write)
    assert again.version == first.version == 1


async def test_concurrent_writes_get_one_version_each(bench: Bench) -> None:
    results = await asyncio.gather(
        *(bench.worker.execute(command(Op.PUT, str(number).encode())) for number in range(50))
    )
    assert sorted(result.version for result in results) == list(range(1, 51))


async def _held_up(bench: Bench, *commands: Command) -> tuple[asyncio.Event, list[asyncio.Task[Result]]]:
    """Let a first write wait in the store, and ``commands`` queue behind it; the event lets it go."""
    gate = asyncio.Event()
    bench.store.before = _once(lambda operation, path: gate.wait())
    tasks = [asyncio.create_task(bench.worker.execute(command(Op.PUT, b"first")))]
    while ("put", PATH) not in bench.store.log:
        await asyncio.sleep(0)
    for queued in commands:
        tasks.append(asyncio.create_task(bench.worker.execute(queued)))
        await asyncio.sleep(0.001)
    bench.store.log.clear()
    return gate, tasks


async def test_writes_that_wait_together_are_one_put(bench: Bench) -> None:
    gate, tasks = await _held_up(bench, *(command(Op.PUT, str(number).encode()) for number in range(40)))
    gate.set()
    results = await asyncio.gather(*tasks)
    assert [result.version for result in results] == list(range(1, 42))
    assert len({result.etag for result in results}) == 41
    assert bench.store.log == [("put", PATH)]
    fresh = await bench.other.execute(get(term=2))
    assert (fresh.version, fresh.document, fresh.etag) == (41, b"39", results[-1].etag)
    assert bench.noted == [("s", "k")] * 2


async def test_each_merged_write_keeps_its_own_condition_and_outcome(bench: Bench) -> None:
    only_new = command(Op.PUT, b"a", if_none_match=("*",))
    gate, tasks = await _held_up(
        bench, only_new, command(Op.DELETE), command(Op.DELETE), only_new, command(Op.PUT, b"b")
    )
    gate.set()
    first, refused, deleted, nothing, created, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, Result) and isinstance(refused, VersionMismatch) and refused.etag == first.etag
    assert isinstance(deleted, Result) and (deleted.version, deleted.found, deleted.etag) == (2, True, "")
    assert isinstance(nothing, Result) and not nothing.found
    assert isinstance(created, Result) and (created.version, created.created) == (3, True)
    assert isinstance(last, Result) and (last.version, last.created) == (4, False)


async def test_no_merged_answer_leaves_before_the_commit(bench: Bench) -> None:
    late = command(Op.PUT, b"late", if_match=('"9-00000000"',))
    gate, tasks = await _held_up(bench, command(Op.PUT, b"a"), late, command(Op.DELETE))
    second = asyncio.Event()
    bench.store.before = _once(lambda operation, path: second.wait())
    gate.set()
    await asyncio.sleep(0.01)
    assert [task.done() for task in tasks] == [True, False, False, False]
    second.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_every_merged_write_of_a_lost_reply_is_found_again(bench: Bench) -> None:
    queued = [command(Op.PUT, str(number).encode()) for number in range(64)]
    gate, tasks = await _held_up(bench, *queued)
    Faults(bench.store, "stored")
    gate.set()
    results = await asyncio.gather(*tasks)
    assert [result.version for result in results] == list(range(1, 66))
    for result, asked in zip(results[1:], queued, strict=True):
        found = await bench.other.execute(command(Op.RESOLVE, term=2, write_id=asked.write_id))
        assert (found.version, found.etag) == (result.version, result.etag)


async def test_merged_writes_are_decided_again_when_another_owner_came_between(bench: Bench) -> None:
    gate, tasks = await _held_up(bench, command(Op.PUT, b"a"), command(Op.PUT, b"b", if_none_match=("*",)))

    def overtake(operation: str, path: str) -> object:
        return bench.other.execute(command(Op.DELETE))  # An earlier owner's write lands just before.

    gate.set()
    bench.store.before = _once(overtake)
    first, again, created = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, Result) and first.version == 1
    assert isinstance(again, Result) and again.version == 3
    assert isinstance(created, VersionMismatch) and created.etag == again.etag


async def test_what_is_certain_of_merged_writes_is_said_when_the_store_is_silent(bench: Bench) -> None:
    gate, tasks = await _held_up(bench, command(Op.PUT, b"a"), command(Op.PUT, b"b", if_none_match=("*",)))

    def silent(operation: str, path: str) -> None:
        bench.clock.advance(0.3)
        raise OutcomeUnknown("no reply") if operation == "put" else Unavailable("down")

    bench.store.before = silent
    gate.set()
    _, unknown, refused = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(unknown, OutcomeUnknown) and not unknown.certain
    assert isinstance(refused, Unavailable) and refused.certain


async def test_a_group_without_a_write_costs_no_put(bench: Bench) -> None:
    gate, tasks = await _held_up(bench, *(command(Op.PUT, b"x", if_none_match=("*",)) for _ in range(3)))
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ("put", PATH) not in bench.store.log


async def test_a_worker_that_stops_leaves_nobody_waiting(bench: Bench) -> None:
    _, tasks = await _held_up(bench, command(Op.PUT, b"a"))
    for task in list(bench.worker._writes._tasks):
        task.cancel()
    under_way, waiting = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(under_way, OutcomeUnknown) and isinstance(waiting, Unavailable)
    assert bench.worker._writes._waiting == {}


async def test_too_many_waiters_are_turned_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.worker._locks._waiters_max = bench.worker._writes._waiting_max = 5
    for op in (Op.PUT, Op.GET):
        outcomes = await asyncio.gather(
            *(bench.worker.execute(command(op, b"1", term=1 if op is Op.PUT else 2)) for _ in range(20)),
            return_exceptions=True,
        )
        assert any(isinstance(outcome, Overloaded) for outcome in outcomes)
        assert not all(isinstance(outcome, Overloaded) for outcome in outcomes)
    assert bench.worker._locks._slots == {} and bench.worker._writes._waiting == {}


async def test_a_cancelled_caller_leaves_the_write_to_finish(bench: Bench) -> None:
    gate = asyncio.Event()

    def wait(operation: str, path: str) -> object:
        return gate.wait() if operation == "put" else None

    bench.store.before = _once(wait)
    task = asyncio.create_task(bench.worker.execute(command(Op.PUT, b"1")))
    while ("put", PATH) not in bench.store.log:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    second = asyncio.create_task(bench.worker.execute(command(Op.PUT, b"2")))
    await asyncio.sleep(0.01)
    assert not second.done()
    gate.set()
    assert (await second).version == 2


async def test_conditions_are_checked_against_the_committed_version(bench: Bench) -> None:
    written = await bench.worker.execute(command(Op.PUT, b"1"))
    with pytest.raises(VersionMismatch) as caught:
        await bench.worker.execute(command(Op.PUT, b"2", if_match=('"0-00000000"',)))
    assert caught.value.etag == written.etag
    assert (await bench.worker.execute(command(Op.PUT, b"2", if_match=(written.etag,)))).version == 2
    unmodified = bench.worker.fast(command(Op.GET, if_none_match=("*",)))
    assert unmodified is not None and unmodified.not_modified and unmodified.document == b""


async def test_what_a_read_acknowledges_is_made_durable_first(bench: Bench) -> None:
    write = command(Op.PUT, b"1")
    await bench.worker.execute(write)
    bench.store.log.clear()
    await bench.other.execute(command(Op.RESOLVE, term=2, write_id=write.write_id))
    assert bench.store.log == [("get", PATH), ("settle", PATH)]
    Faults(bench.store, "stored")
    bench.store.log.clear()
    await bench.other.execute(command(Op.PUT, b"2", term=2))
    assert bench.store.log == [("put", PATH), ("get", PATH), ("settle", PATH)]


@pytest.mark.parametrize(("age_ms", "settled"), [(1_000, True), (59_000, True), (61_000, False)])
async def test_a_read_of_a_young_object_is_made_durable_too(bench: Bench, age_ms: int, settled: bool) -> None:
    await bench.worker.execute(command(Op.PUT, b"1"))
    bench.clock.now_ms = bench.store.objects[PATH].updated_ms + age_ms
    bench.store.log.clear()
    await bench.other.execute(get(term=2))
    assert (("settle", PATH) in bench.store.log) is settled


async def test_what_cannot_be_made_durable_is_not_answered(bench: Bench) -> None:
    write = command(Op.PUT, b"1")
    await bench.worker.execute(write)

    def refuse(operation: str, path: str) -> None:
        if operation == "settle":
            raise Unavailable("the disk does not answer")

    bench.store.before = refuse
    with pytest.raises(Unavailable):
        await bench.other.execute(command(Op.RESOLVE, term=2, write_id=write.write_id))
    assert bench.other.fast(get(term=2)) is None


async def test_a_damaged_or_swapped_object_is_an_integrity_error(bench: Bench) -> None:
    await bench.worker.execute(command(Op.PUT, b"1"))
    stored = bench.store.objects[PATH]
    bench.store.objects[entity_path("s", "other")] = stored
    with pytest.raises(Corrupt):
        await bench.other.execute(Command(op=Op.GET, schema_id="s", key="other", shard=3, term=2))
    damaged = bytearray(stored.data)
    damaged[-1] ^= 1
    bench.store.objects[PATH] = type(stored)(bytes(damaged), "x", 1)
    for op in (Op.GET, Op.PUT, Op.DELETE):
        with pytest.raises(Corrupt):
            await bench.other.execute(command(op, b"1", term=2))


def _once(hook: Callable[[str, str], object]) -> Callable[[str, str], object]:
    done = False

    def wrapped(operation: str, path: str) -> object:
        nonlocal done
        if done or operation != "put":
            return None
        done = True
        return hook(operation, path)

    return wrapped


async def test_a_write_whose_entity_vanished_meanwhile_may_still_land(bench: Bench) -> None:
    """The store was emptied. Restored, it holds again what the put depends on."""
    await bench.worker.execute(command(Op.PUT, b"1"))
    kept = dict(bench.store.objects)
    late: list[str] = []

    def lose(operation: str, path: str) -> None:
        if operation == "put" and not late:
            late.append(path)
            bench.store.objects.clear()
            raise OutcomeUnknown("no reply")

    bench.store.before = lose
    # Not "there was nothing to delete": after the restore the put of the tombstone lands.
    with pytest.raises(OutcomeUnknown):
        await bench.worker.execute(command(Op.DELETE))
    assert bench.store.objects == {}
    bench.store.objects.update(kept)
    assert (await bench.worker.execute(get())).document == b"1"


async def test_a_write_over_what_was_taken_away_by_hand_is_a_new_entity(bench: Bench) -> None:
    await bench.worker.execute(command(Op.PUT, b"1"))
    bench.store.objects.clear()
    result = await bench.worker.execute(command(Op.PUT, b"2"))
    assert (result.version, result.created) == (1, True)
