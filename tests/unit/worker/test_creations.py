"""Puts of entities that nobody has looked for: when a create is tried first, and what it then costs."""

from __future__ import annotations

import asyncio

import pytest
from support.clocks import FakeClock, SeededRandom
from support.fake_store import FakeStore, Faults
from support.workers import Lease, make_committer

from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import (
    AlreadyExists,
    Corrupt,
    NotFound,
    NotOwner,
    OutcomeUnknown,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.limits import CREATE_UNSEEN_BYTES_MAX, CREATIONS_NOTED_MAX, RECENT_WRITES_MAX
from deltadatabase.model import Command, Op
from deltadatabase.storage.paths import entity_path
from deltadatabase.worker.commit import Committer
from deltadatabase.worker.creations import SURE, WRONG, Creations

_ids = SeededRandom(7)


def put(key: str = "k", document: bytes = b"1", *, op: Op = Op.PUT, term: int = 1, **more: object) -> Command:
    return Command(
        op=op, schema_id="s", key=key, shard=3, term=term, document=document, write_id=_ids(16), **more
    )  # type: ignore[arg-type]


def a_worker(store: FakeStore, seed: int = 1, lease: Lease | None = None) -> Committer:
    return make_committer(store, clock=FakeClock(), lease=lease, seed=seed)


async def test_a_new_entity_costs_one_store_request() -> None:
    store = FakeStore()
    worker = a_worker(store)
    for number in range(20):
        written = await worker.execute(put(f"k{number}"))
        assert (written.version, written.created) == (1, True)
    assert store.log == [("put", entity_path("s", f"k{number}")) for number in range(20)]


async def test_cold_overwrites_waste_one_create_and_then_look_first() -> None:
    store = FakeStore()
    first, second = a_worker(store), a_worker(store, seed=2)
    for number in range(10):
        await first.execute(put(f"k{number}"))
    store.log.clear()
    for number in range(10):
        written = await second.execute(put(f"k{number}", term=2))
        assert (written.version, written.created) == (2, False)
    asked = [operation for operation, _ in store.log if operation != "settle"]
    assert asked == ["put", "get", "put"] + ["get", "put"] * 9


async def test_creates_are_tried_again_once_most_puts_create() -> None:
    store = FakeStore()
    first, second = a_worker(store), a_worker(store, seed=2)
    await first.execute(put("old"))
    await second.execute(put("old", term=2))
    store.log.clear()
    for number in range(10):
        await second.execute(put(f"k{number}", term=2))
    assert [operation for operation, _ in store.log] == ["get", "put"] * WRONG + ["put"] * (10 - WRONG)


async def test_what_has_to_be_decided_on_the_entity_looks_first() -> None:
    store = FakeStore()
    worker = a_worker(store)
    with pytest.raises(VersionMismatch):
        await worker.execute(put(if_match=('"1-00000000"',)))
    assert not (await worker.execute(put("l", op=Op.DELETE))).found
    assert store.objects == {} and [operation for operation, _ in store.log] == ["get", "get"]
    large = b'"%s"' % (b"x" * CREATE_UNSEEN_BYTES_MAX)
    store.log.clear()
    await worker.execute(put("m", large))
    assert [operation for operation, _ in store.log] == ["get", "put"]


async def test_a_create_only_put_of_what_exists_is_refused_with_its_etag() -> None:
    store = FakeStore()
    written = await a_worker(store).execute(put())
    with pytest.raises(VersionMismatch) as caught:
        await a_worker(store, seed=2).execute(put(term=2, if_none_match=("*",)))
    assert caught.value.etag == written.etag


async def test_a_tombstone_is_something_that_is_there() -> None:
    store = FakeStore()
    worker = a_worker(store)
    await worker.execute(put())
    await worker.execute(put(op=Op.DELETE))
    again = await a_worker(store, seed=2).execute(put(term=2))
    assert (again.version, again.created) == (3, True)


class Noted:
    """Stands in for the meta files."""

    def __init__(self) -> None:
        self.sealed: list[bytes] = []

    def note(self, schema_id: str, key: str, sealed: bytes) -> None:
        self.sealed.append(sealed)

    def forget(self, schema_id: str, key: str) -> None:
        pass


@pytest.mark.parametrize("reply", ["ok", "lost"])
async def test_a_repeat_is_found_because_its_entity_is_there(reply: str) -> None:
    store, noted = FakeStore(), Noted()
    write = put()
    written = await a_worker(store).execute(write)
    other = make_committer(store, clock=FakeClock(wall_ms=1_700_000_005_000), sidecar=noted, seed=2)
    Faults(store, reply)
    again = await other.execute(write)
    assert (again.version, again.etag, again.repeated) == (1, written.etag, True)
    assert again.updated_ms == written.updated_ms
    # The bytes that it had sealed are not what is stored.
    assert noted.sealed == []


@pytest.mark.parametrize("reply", ["lost", "stored"])
async def test_a_create_whose_reply_is_lost_is_recognised(reply: str) -> None:
    store = FakeStore()
    Faults(store, reply)
    written = await a_worker(store).execute(put())
    assert (written.version, written.created, written.repeated) == (1, True, False)
    assert len(store.objects) == 1


async def test_a_conflict_may_be_the_own_success() -> None:
    """Something between here and the store sent the create twice; the second answer came back."""
    store = FakeStore()

    def twice(operation: str, path: str) -> None:
        if operation == "put":
            store.after = None
            raise AlreadyExists("object exists")

    store.after = twice
    written = await a_worker(store).execute(put())
    assert (written.version, written.created, written.repeated) == (1, True, False)
    assert [operation for operation, _ in store.log] == ["put", "get", "settle"]


async def test_a_guess_is_told_to_nobody() -> None:
    store = FakeStore()
    await a_worker(store).execute(put(document=b"old"))
    worker = a_worker(store, seed=2)
    gate = asyncio.Event()
    store.before = lambda operation, path: gate.wait() if operation == "put" else None
    writing = asyncio.create_task(worker.execute(put(term=2)))
    await asyncio.sleep(0.01)
    assert store.log[-1][0] == "put" and not writing.done()
    read = Command(op=Op.GET, schema_id="s", key="k", shard=3, term=2)
    assert worker.fast(read) is None
    reading = asyncio.create_task(worker.execute(read))
    await asyncio.sleep(0.01)
    assert not reading.done()
    gate.set()
    assert (await writing).version == 2
    assert (await reading).version == 2


async def test_what_is_merged_with_a_wrong_guess_is_decided_again() -> None:
    store = FakeStore()
    known = await a_worker(store).execute(put(document=b"old"))
    worker = a_worker(store, seed=2)
    outcomes = await asyncio.gather(
        worker.execute(put(term=2)),
        worker.execute(put(term=2, if_match=(known.etag,))),
        worker.execute(put(op=Op.DELETE, term=2)),
        return_exceptions=True,
    )
    assert [getattr(outcome, "version", None) for outcome in outcomes] == [2, None, 3]
    assert isinstance(outcomes[1], VersionMismatch)


async def test_a_damaged_entity_is_told_as_such() -> None:
    store = FakeStore()
    await a_worker(store).execute(put())
    path = entity_path("s", "k")
    stored = store.objects[path]
    store.objects[path] = type(stored)(stored.data[:-1] + b"\0", "x", 1)
    for _ in range(2):
        with pytest.raises(Corrupt):
            await a_worker(store, seed=2).execute(put(term=2))


async def test_a_key_that_is_missing_is_told_as_such() -> None:
    store = FakeStore()
    strange = Sealer(Keyring(MasterKey(b"\x09" * 32)), SeededRandom(3))
    await make_committer(store, clock=FakeClock(), sealer=strange).execute(put())
    with pytest.raises(Unavailable) as caught:
        await a_worker(store, seed=2).execute(put(term=2))
    assert caught.value.code == "key_unavailable"


@pytest.mark.parametrize(("versions", "certain"), [(1, True), (RECENT_WRITES_MAX + 2, False)])
async def test_a_create_that_meets_a_newer_owners_write_is_refused_if_that_is_sure(
    versions: int, certain: bool
) -> None:
    store = FakeStore()
    owner = a_worker(store)
    for _ in range(versions):
        await owner.execute(put(term=2))
    with pytest.raises(NotOwner if certain else OutcomeUnknown):
        await a_worker(store, seed=2).execute(put(term=1))


async def test_a_create_that_a_newer_owner_has_written_over_is_not_refused() -> None:
    """The store took it, something in between said that it did not, and a newer owner wrote again."""
    store = FakeStore()
    other = a_worker(store, seed=2)

    async def overtaken(operation: str, path: str) -> None:
        store.after = None
        await other.execute(put(term=2))
        raise AlreadyExists("object exists")

    store.after = lambda operation, path: overtaken(operation, path) if operation == "put" else None
    with pytest.raises(OutcomeUnknown):
        await a_worker(store).execute(put(term=1))


async def test_a_damaged_entity_does_not_hide_a_put_that_may_have_landed() -> None:
    store = FakeStore()
    Faults(store, "stored")
    damage = store.after

    def damaging(operation: str, path: str) -> None:
        stored = store.objects[path]
        store.objects[path] = type(stored)(stored.data[:-1] + b"\0", "x", 1)
        assert damage is not None
        damage(operation, path)

    store.after = damaging
    with pytest.raises(OutcomeUnknown):
        await a_worker(store).execute(put())


async def test_a_refused_create_changes_nothing_and_is_certain() -> None:
    store = FakeStore()
    Faults(store, "refused")
    worker = a_worker(store)
    with pytest.raises(Unavailable) as caught:
        await worker.execute(put())
    assert caught.value.certain and store.objects == {}
    with pytest.raises(NotFound):
        await worker.execute(Command(op=Op.GET, schema_id="s", key="k", shard=3, term=1))


async def test_nothing_is_created_without_a_live_membership() -> None:
    store, lease = FakeStore(), Lease()
    lease.alive = False
    with pytest.raises(Unavailable):
        await a_worker(store, lease=lease).execute(put())
    assert store.log == []


def test_the_guess_follows_what_was_met() -> None:
    creations = Creations()
    assert creations.expected(put())
    creations.note("s", created=False)
    assert not creations.expected(put())
    for _ in range(WRONG):
        creations.note("s", created=True)
    assert creations.expected(put())
    for _ in range(100):
        creations.note("s", created=True)
    for _ in range(SURE // WRONG):
        creations.note("s", created=False)
        assert creations.expected(put())
    creations.note("s", created=False)
    assert not creations.expected(put())
    for _ in range(100):
        creations.note("s", created=False)
    for _ in range(SURE):
        assert not creations.expected(put())
        creations.note("s", created=True)
    assert creations.expected(put())


@pytest.mark.parametrize(("overwrites", "tried"), [(1, True), (3, False)])
def test_creates_are_tried_where_four_of_five_succeed(overwrites: int, tried: bool) -> None:
    creations = Creations()
    guesses = 0
    for number in range(1000):
        guesses += creations.expected(put())
        creations.note("s", created=number % 10 >= overwrites)
    assert guesses > 900 if tried else guesses < 400


def test_schemas_are_guessed_apart_and_a_bounded_number_is_remembered() -> None:
    creations = Creations()
    for number in range(CREATIONS_NOTED_MAX + 10):
        creations.note(f"t{number}", created=False)
    assert creations.expected(put()) and len(creations._scores) == CREATIONS_NOTED_MAX
