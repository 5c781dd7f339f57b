"""The router over real committers on one store, with links that a test can cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from support.clocks import FakeClock, SeededRandom
from support.fake_store import FakeStore
from support.workers import Schemas, make_committer

from deltadatabase.errors import (
    DeltaError,
    Internal,
    Invalid,
    LinkLost,
    NotFound,
    OutcomeUnknown,
    PartlyApplied,
    PreconditionRequired,
    StoreFull,
    TooLarge,
    Unavailable,
    Unprocessable,
)
from deltadatabase.gateway.forwarding import Router
from deltadatabase.model import Command, Op, PatchKind, Result
from deltadatabase.placement.membership import Member, Placement
from deltadatabase.placement.ring import shard_of
from deltadatabase.storage.paths import entity_path

SHARDS = 16


class CutLink:
    """A link to a committer; ``mode`` decides what becomes of calls."""

    local = False

    def cached(self, command: Command) -> Result | None:
        return self.committer.fast(command)

    def __init__(self, world: World, seed: int) -> None:
        self.committer = make_committer(world.store, clock=world.clock, seed=seed, schemas=world.schemas)
        self.mode = "ok"
        self.calls: list[Command] = []
        self.gate = asyncio.Event()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def call(self, command: Command) -> Result:
        self.calls.append(command)
        await asyncio.sleep(0)
        match self.mode:
            case "down":
                raise Unavailable("down", code="link_down")
            case "lost_before":
                raise LinkLost("broke")
            case "lost_after":
                await self.committer.execute(command)
                raise LinkLost("broke")
            case "reply_held":
                result = await self.committer.execute(command)
                await self.gate.wait()
                return result
            case "held":
                await self.gate.wait()
        fast = self.committer.fast(command)
        return fast if fast is not None else await self.committer.execute(command)


class World:
    """A router with workers ``a``, ``b``, … on one store."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.clock = FakeClock(tick_s=0.001)
        self.schemas = Schemas()
        self.router = Router(
            clock=self.clock, random=SeededRandom(7), timeout_ms=2_000, document_bytes_max=50
        )
        self.router.bind(Placement(SHARDS, epoch=100, epoch_limit=10_000))
        self.links: dict[str, CutLink] = {}

    async def join(self, *worker_ids: str) -> None:
        for worker_id in worker_ids:
            self.links[worker_id] = CutLink(self, seed=len(self.links) + 1)
            await self.router.join(Member(worker_id, worker_id), self.links[worker_id])

    async def take_in(self, worker_id: str) -> None:
        """Let a worker that has joined be one of this process."""
        self.links[worker_id].local = True
        await self.router.join(Member(worker_id, worker_id), self.links[worker_id])

    def key_of(self, worker_id: str) -> str:
        """A key whose entity this worker owns."""
        assert self.router.placement is not None
        return next(
            key
            for key in map(str, range(10_000))
            if self.router.placement.owners[shard_of("s", key, SHARDS)] == worker_id
        )


@pytest.fixture
async def world() -> World:
    return World()


async def test_without_a_worker_nothing_is_served(world: World) -> None:
    with pytest.raises(Unavailable) as caught:
        await world.router.get("s", "k")
    assert caught.value.code == "no_worker"


async def test_each_entity_goes_to_its_owner_alone(world: World) -> None:
    await world.join("a", "b", "c")
    for number in range(60):
        await world.router.put_one("s", str(number), b"1")
        assert (await world.router.get("s", str(number))).document == b"1"
    for worker_id, link in world.links.items():
        assert link.calls
        assert world.router.placement is not None
        assert all(world.router.placement.owners[call.shard] == worker_id for call in link.calls)


@pytest.mark.parametrize("mode", ["lost_before", "lost_after"])
async def test_a_read_in_flight_at_a_death_is_sent_again(world: World, mode: str) -> None:
    await world.join("a", "b")
    key = world.key_of("a")
    await world.router.put_one("s", key, b"1")
    world.links["a"].mode = mode
    reading = asyncio.create_task(world.router.get("s", key))
    await asyncio.sleep(0.03)
    assert not reading.done()
    world.router.leave("a")
    assert (await reading).document == b"1"


async def test_a_write_whose_reply_died_is_found_by_the_next_owner(world: World) -> None:
    await world.join("a", "b")
    key = world.key_of("a")
    world.links["a"].mode = "lost_after"
    writing = asyncio.create_task(world.router.put_one("s", key, b"1"))
    await asyncio.sleep(0.03)
    world.router.leave("a")
    assert (await writing).version == 1
    puts = [call for link in world.links.values() for call in link.calls if call.op is Op.PUT]
    assert len(puts) == 1
    assert (await world.router.get("s", key)).document == b"1"


async def test_a_patch_goes_to_the_owner_with_the_limit_of_documents(world: World) -> None:
    await world.join("a", "b")
    await world.router.put_one("s", "k", b'{"a":1}')
    merged = await world.router.patch("s", "k", b'{"b":2}', PatchKind.MERGE)
    assert (merged.version, merged.document) == (2, b'{"a":1,"b":2}')
    patch = b'[{"op":"remove","path":"/a"}]'
    patched = await world.router.patch("s", "k", patch, PatchKind.JSON, if_match=(merged.etag,))
    assert patched.document == b'{"b":2}'
    with pytest.raises(TooLarge):
        await world.router.patch("s", "k", b'{"c":"' + b"x" * 50 + b'"}', PatchKind.MERGE)
    assert (await world.router.get("s", "k")).document == b'{"b":2}'


async def test_a_patch_whose_reply_died_is_found_with_its_document(world: World) -> None:
    await world.join("a", "b")
    key = world.key_of("a")
    await world.router.put_one("s", key, b'{"a":1}')
    world.links["a"].mode = "lost_after"
    patching = asyncio.create_task(world.router.patch("s", key, b'{"b":2}', PatchKind.MERGE))
    await asyncio.sleep(0.03)
    world.router.leave("a")
    found = await patching
    assert (found.version, found.document) == (2, b'{"a":1,"b":2}')


async def test_a_repeat_under_one_write_id_changes_nothing(world: World) -> None:
    await world.join("a", "b")
    first = await world.router.put_one("s", "k", b"1", if_none_match=("*",), write_id=b"w" * 16)
    again = await world.router.put_one("s", "k", b"1", if_none_match=("*",), write_id=b"w" * 16)
    assert (again.repeated, again.version, again.etag, again.created) == (True, 1, first.etag, True)
    with pytest.raises(Unprocessable):
        await world.router.delete("s", "k", write_id=b"w" * 8 + b"v" * 8)


async def test_several_documents_are_refused_as_one_where_conditions_are_demanded(world: World) -> None:
    await world.join("a", "b")
    world.schemas.schema.demanding = True
    with pytest.raises(PreconditionRequired):
        await world.router.put("s", {"a": b"1", "b": b"2"})
    assert world.store.objects == {}


async def test_a_write_that_is_not_found_is_unknown_and_not_sent_again(world: World) -> None:
    await world.join("a", "b")
    key = world.key_of("a")
    world.links["a"].mode = "lost_before"
    writing = asyncio.create_task(world.router.put_one("s", key, b"1"))
    await asyncio.sleep(0.03)
    world.router.leave("a")
    with pytest.raises(OutcomeUnknown):
        await writing
    with pytest.raises(NotFound):
        await world.router.get("s", key)


async def test_a_late_reply_of_a_former_owner_is_not_delivered(world: World) -> None:
    await world.join("a", "b")
    key = world.key_of("a")
    await world.router.put_one("s", key, b"old")
    world.links["a"].mode = "reply_held"
    reading = asyncio.create_task(world.router.get("s", key))
    await asyncio.sleep(0.01)
    world.router.leave("a")
    await world.router.put_one("s", key, b"new")
    world.links["a"].gate.set()
    assert (await reading).document == b"new"


async def test_a_write_applied_by_a_former_owner_is_answered_after_a_look(world: World) -> None:
    await world.join("a", "b")
    key = world.key_of("a")
    world.links["a"].mode = "reply_held"
    writing = asyncio.create_task(world.router.put_one("s", key, b"1"))
    await asyncio.sleep(0.01)
    world.router.leave("a")
    await world.router.put_one("s", key, b"2")
    world.links["a"].gate.set()
    answer = await writing
    assert answer.version == 1
    assert answer.created
    assert [call.op for call in world.links["b"].calls] == [Op.PUT, Op.RESOLVE]


async def test_a_create_that_was_looked_for_is_still_a_create(world: World) -> None:
    await world.join("a", "b")
    key = world.key_of("a")
    await world.router.put_one("s", key, b"0")
    await world.router.delete("s", key)
    world.links["a"].mode = "reply_held"
    once = asyncio.create_task(world.router.put_one("s", key, b"1", if_none_match=("*",)))
    await asyncio.sleep(0.01)
    world.router.leave("a")
    world.links["a"].gate.set()
    answer = await once
    assert answer.version == 3
    assert answer.created


async def test_a_request_that_never_left_goes_to_the_next_owner(world: World) -> None:
    await world.join("a", "b")
    key = world.key_of("a")
    world.links["a"].mode = "down"
    writing = asyncio.create_task(world.router.put_one("s", key, b"1"))
    await asyncio.sleep(0.03)
    world.router.leave("a")
    assert (await writing).version == 1


async def test_joins_and_drains_under_load_fail_nothing(world: World) -> None:
    await world.join("a")
    stop = False
    versions: dict[str, int] = {}

    async def client(name: str) -> None:
        while not stop:
            version = (await world.router.put_one("s", name, name.encode())).version
            assert version == versions.get(name, 0) + 1
            versions[name] = version
            assert (await world.router.get("s", name)).version == version

    clients = [asyncio.create_task(client(str(number))) for number in range(20)]
    for worker_id in ("b", "c", "d"):
        await asyncio.sleep(0.02)
        await world.join(worker_id)
    for worker_id in ("a", "c"):
        await asyncio.sleep(0.02)
        await world.router.drain(worker_id)
        assert world.router.placement is not None
        assert world.router.placement.owned_by(worker_id) == 0
        world.router.leave(worker_id)
    await asyncio.sleep(0.02)
    stop = True
    await asyncio.gather(*clients)
    assert min(versions.values()) > 2
    assert not any(call.op is Op.RESOLVE for link in world.links.values() for call in link.calls)


async def test_a_move_does_not_wait_for_ever(world: World) -> None:
    await world.join("a")
    key = "k"
    world.links["a"].mode = "reply_held"
    writing = asyncio.create_task(world.router.put_one("s", key, b"1"))
    await asyncio.sleep(0.01)
    world.clock.advance(0.0)
    joining = asyncio.create_task(world.join("b", "c", "d", "e"))
    async with asyncio.timeout(20):
        while not joining.done():
            world.clock.advance(1.0)
            await asyncio.sleep(0.01)
    world.links["a"].gate.set()
    outcome = (await asyncio.gather(writing, return_exceptions=True))[0]
    assert isinstance(outcome, Result | OutcomeUnknown)


async def test_all_documents_are_checked_before_one_is_stored(world: World) -> None:
    await world.join("a", "b")
    documents = {str(number): b"1" for number in range(20)} | {"last": b"bad"}
    documents["first"] = b"bad"
    with pytest.raises(Invalid) as caught:
        await world.router.put("s", documents)
    assert world.store.objects == {}
    assert [issue.key for issue in caught.value.issues] == ["last", "first"]
    assert caught.value.detail.startswith("2 of 22 documents")
    del documents["last"], documents["first"]
    results = await world.router.put("s", documents)
    assert list(results) == list(documents)
    assert all(result.version == 1 for result in results.values())


async def test_a_store_that_fails_part_way_is_told_key_by_key(world: World) -> None:
    await world.join("a")

    def fail(operation: str, path: str) -> None:
        if operation == "put" and path == entity_path("s", "b"):
            raise StoreFull("full")

    world.store.before = fail
    with pytest.raises(PartlyApplied) as caught:
        await world.router.put("s", {"a": b"1", "b": b"2"})
    assert caught.value.outcomes == {"a": 1, "b": "store_full"}
    assert isinstance(caught.value.cause, StoreFull)


async def test_a_mistake_of_ours_after_the_commit_is_looked_up(world: World) -> None:
    await world.join("a")
    real = world.links["a"].call

    async def fail_after(command: Command) -> Result:
        result = await real(command)
        if command.op is Op.PUT:
            raise Internal("mistake")
        return result

    world.links["a"].call = fail_after  # type: ignore[method-assign]
    assert (await world.router.put_one("s", "k", b"1")).version == 1


async def test_a_delete_of_nothing_by_a_former_owner_is_asked_again(world: World) -> None:
    await world.join("a", "b")
    key = world.key_of("a")
    world.links["a"].mode = "reply_held"
    deleting = asyncio.create_task(world.router.delete("s", key))
    await asyncio.sleep(0.01)
    world.router.leave("a")
    world.links["a"].gate.set()
    assert not (await deleting).found


async def test_nothing_stored_at_all_is_the_plain_error(world: World) -> None:
    await world.join("a")
    world.store.before = _raise_on_put(StoreFull("full"))
    with pytest.raises(StoreFull):
        await world.router.put("s", {"a": b"1", "b": b"2"})


async def test_shards_stay_without_owner_when_epochs_run_out(world: World) -> None:
    await world.join("a", "b")
    assert world.router.placement is not None
    low: list[bool] = []
    world.router.on_epochs_low = lambda: low.append(True)
    world.router.placement.epoch_limit = world.router.placement.epoch
    key = world.key_of("a")
    world.router.leave("a")
    assert low
    with pytest.raises(Unavailable):
        await world.router.get("s", key)
    world.router.placement.epoch_limit += 100
    world.router.retry_orphans()
    with pytest.raises(NotFound):
        await world.router.get("s", key)


async def test_a_term_of_another_main_worker_is_reported(world: World) -> None:
    await world.join("a")
    seen: list[int] = []

    def foreign(term: int) -> None:
        seen.append(term)
        world.router.close("foreign_writer", "another main worker uses this store")

    world.router.on_foreign_term = foreign
    stranger = make_committer(world.store, clock=world.clock, seed=9)
    await stranger.execute(
        Command(
            op=Op.PUT,
            schema_id="s",
            key="k",
            shard=shard_of("s", "k", SHARDS),
            term=999_999,
            write_id=b"\x09" * 16,
            document=b"1",
        )
    )
    with pytest.raises(Unavailable) as caught:
        await world.router.get("s", "k")
    assert (seen, caught.value.code) == ([999_999], "foreign_writer")


async def test_absence_read_while_the_store_was_gone_is_not_believed_afterwards(world: World) -> None:
    await world.join("a")
    await world.router.put_one("s", "k", b"1")
    world.links["a"].committer._cache.clear()
    kept = world.store.objects.pop(entity_path("s", "k"))
    with pytest.raises(NotFound):
        await world.router.get("s", "k")
    world.router.close("store_gone", "the store is gone")
    world.store.objects[entity_path("s", "k")] = kept
    world.router.reopen("store_gone")
    assert (await world.router.get("s", "k")).document == b"1"


async def test_a_write_under_way_while_the_store_was_gone_has_no_known_outcome(world: World) -> None:
    await world.join("a")
    await world.router.put_one("s", "k", b"1")
    link = world.links["a"]
    link.mode = "reply_held"
    writing = asyncio.create_task(world.router.put_one("s", "k", b"2"))
    async with asyncio.timeout(10):
        while link.committer.counts.puts < 2:
            await asyncio.sleep(0.001)
    world.router.close("store_gone", "the store is gone")
    # What it wrote went with the store, and an older state was put back.
    world.store.objects.clear()
    world.router.reopen("store_gone")
    link.mode = "ok"
    link.gate.set()
    with pytest.raises(OutcomeUnknown):
        await writing
    with pytest.raises(NotFound):
        await world.router.get("s", "k")


@pytest.mark.parametrize("reason", ["store_gone", "foreign_writer"])
async def test_a_reply_that_comes_after_the_router_closed_is_not_delivered(world: World, reason: str) -> None:
    """What was read in an emptied store, or beside another main worker, is not told once that is known."""
    await world.join("a")
    await world.router.put_one("s", "k", b"1")
    link = world.links["a"]
    link.mode = "reply_held"
    calls = [
        asyncio.create_task(call)
        for call in (
            world.router.get("s", "k"),
            world.router.put_one("s", "k", b"2"),
            world.router.delete("s", "none"),
        )
    ]
    await asyncio.sleep(0.01)
    link.mode = "held"
    refused = asyncio.create_task(world.router.put_one("s", "k", b"3", if_none_match=("*",)))
    await asyncio.sleep(0.01)
    world.router.close(reason, "closed")
    link.gate.set()
    await asyncio.sleep(0.05)
    world.clock.advance(2.0)
    outcomes = await asyncio.gather(*calls, refused, return_exceptions=True)
    read, written, deleted, conditional = outcomes
    assert isinstance(read, Unavailable) and read.code == reason
    # Not even a refusal is certain: a worker may have concluded it from a store that was emptied
    # after the put had landed.
    for outcome in (written, deleted, conditional):
        assert isinstance(outcome, OutcomeUnknown)


async def test_schema_changes_raise_the_revision_also_when_the_answer_is_lost(world: World) -> None:
    await world.join("a")

    async def lost(command: Command) -> Result:
        raise LinkLost("broke")

    world.links["a"].call = lost  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        await world.router.schema_put("s", b"{}")
    assert world.router.revisions.revision("s") == (100 << 32) + 1
    assert world.router.revisions.revision("other") == 100 << 32


def _raise_on_put(error: DeltaError) -> Callable[[str, str], None]:
    def hook(operation: str, path: str) -> None:
        if operation == "put":
            raise error

    return hook


async def test_a_read_at_hand_is_answered_only_by_an_owner_in_this_process(world: World) -> None:
    assert world.router.cached("s", "k") is None
    await world.join("a")
    await world.router.put_one("s", "k", b"1")
    assert world.router.cached("s", "k") is None
    await world.take_in("a")
    read = world.router.cached("s", "k")
    assert read is not None
    assert read.document == b"1"
    assert world.router.cached("s", "never read") is None
    world.router.close("store_gone", "gone")
    assert world.router.cached("s", "k") is None


async def test_a_read_at_hand_waits_while_its_shard_moves(world: World) -> None:
    await world.join("a")
    link = world.links["a"]
    await world.take_in("a")
    keys = list(map(str, range(20)))
    for key in keys:
        await world.router.put_one("s", key, b"1")
    link.mode = "held"
    holding = [asyncio.create_task(world.router.get("s", key)) for key in keys]
    await asyncio.sleep(0)
    joining = asyncio.create_task(world.join("b"))
    await asyncio.sleep(0.01)
    assert world.router.placement is not None
    moving = {key for key in keys if world.router.cached("s", key) is None}
    assert moving
    link.gate.set()
    await joining
    await asyncio.gather(*holding)
    owners = {key: world.router.placement.owners[shard_of("s", key, SHARDS)] for key in keys}
    assert moving == {key for key in keys if owners[key] == "b"}


async def test_a_read_at_hand_of_a_deleted_entity_finds_nothing(world: World) -> None:
    await world.join("a")
    await world.take_in("a")
    await world.router.put_one("s", "k", b"1")
    await world.router.delete("s", "k")
    with pytest.raises(NotFound):
        world.router.cached("s", "k")


class Heard:
    """What the router tells its observer."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []

    def written(self, command: Command, result: Result) -> None:
        self.told.append(("written", command.key, result.version))

    def uncertain(self, command: Command) -> None:
        self.told.append(("uncertain", command.key, 0))

    def reopened(self) -> None:
        self.told.append(("reopened", "", 0))


async def heard(world: World, *worker_ids: str) -> Heard:
    await world.join(*worker_ids)
    world.router.observer = observer = Heard()
    return observer


async def test_an_observer_hears_of_each_answered_write(world: World) -> None:
    observer = await heard(world, "a")
    await world.router.put_one("s", "k", b"1")
    await world.router.delete("s", "k")
    with pytest.raises(Invalid):
        await world.router.put_one("s", "k", b"bad")
    with pytest.raises(NotFound):
        await world.router.get("s", "k")
    assert observer.told == [("written", "k", 1), ("written", "k", 2)]


async def test_an_observer_hears_of_a_write_whose_client_went_away(world: World) -> None:
    observer = await heard(world, "a")
    world.links["a"].mode = "reply_held"
    writing = asyncio.create_task(world.router.put_one("s", "k", b"1"))
    await asyncio.sleep(0.01)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert observer.told == [("uncertain", "k", 0)]


@pytest.mark.parametrize("mode", ["lost_before", "lost_after"])
async def test_an_observer_hears_of_a_write_that_was_lost_and_looked_for(world: World, mode: str) -> None:
    observer = await heard(world, "a", "b")
    key = world.key_of("a")
    world.links["a"].mode = mode
    writing = asyncio.create_task(world.router.put_one("s", key, b"1"))
    await asyncio.sleep(0.03)
    world.router.leave("a")
    await asyncio.gather(writing, return_exceptions=True)
    # Found or not: what the entity is now has to be read.
    assert observer.told == [("uncertain", key, 0)]


async def test_a_state_is_that_of_an_entity_or_its_tombstone(world: World) -> None:
    await world.join("a")
    with pytest.raises(NotFound):
        await world.router.state("s", "k")
    written = await world.router.put_one("s", "k", b"1")
    state = await world.router.state("s", "k")
    assert (state.version, state.etag, state.document) == (1, written.etag, b"")
    assert (await world.router.state("s", "k", with_document=True)).document == b"1"
    await world.router.delete("s", "k")
    for fresh in (False, True):
        state = await world.router.state("s", "k", with_document=True, fresh=fresh)
        assert (state.version, state.etag, state.document) == (2, "", b"")
    with pytest.raises(NotFound):
        await world.router.get("s", "k")
