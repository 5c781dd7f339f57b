"""Reads while the store fails: what is cached is served, and what is not fails as the store does."""

from __future__ import annotations

import pytest
from support.clocks import FakeClock, SeededRandom
from support.fake_store import FakeStore
from support.workers import make_committer

from deltadatabase.errors import Corrupt, DeltaError, NotFound, Overloaded, StoreFull, Unavailable
from deltadatabase.model import Command, Op
from deltadatabase.worker.commit import Committer

_ids = SeededRandom(5)

FAILURES = {
    "unreachable": Unavailable("down"),
    "gone": Unavailable("gone", code="store_gone"),
    "no bucket": Unavailable("gone", code="store_bucket_missing"),
    "denied": Unavailable("denied", code="store_denied"),
    "throttled": Overloaded("slow down"),
    "damaged": Corrupt("damaged"),
}


def command(op: Op, key: str, document: bytes = b"", term: int = 1) -> Command:
    return Command(
        op=op, schema_id="s", key=key, shard=1, term=term, write_id=_ids(16), document=document, timeout_ms=50
    )


async def failing(failure: DeltaError) -> tuple[FakeStore, Committer]:
    """A worker that has ``cached`` and an absent ``never`` in its cache, over a store that fails now."""
    store = FakeStore()
    worker = make_committer(store, clock=FakeClock(tick_s=0.001))
    await worker.execute(command(Op.PUT, "cached", b'"old"'))
    with pytest.raises(NotFound):
        await worker.execute(command(Op.GET, "never"))

    def fail(operation: str, path: str) -> None:
        raise failure

    store.before = fail
    return store, worker


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_cached_reads_go_on_and_others_fail_as_the_store_does(failure: DeltaError) -> None:
    store, worker = await failing(failure)
    for _ in range(3):
        assert (await worker.execute(command(Op.GET, "cached"))).document == b'"old"'
        fast = worker.fast(command(Op.GET, "cached"))
        assert fast is not None and fast.document == b'"old"'
        with pytest.raises(NotFound):
            await worker.execute(command(Op.GET, "never"))
        with pytest.raises(type(failure)) as caught:
            await worker.execute(command(Op.GET, "uncached"))
        assert caught.value.code == failure.code
        assert worker.fast(command(Op.GET, "uncached")) is None
    store.before = None
    with pytest.raises(NotFound):
        await worker.execute(command(Op.GET, "uncached"))


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_a_new_term_takes_no_cached_value_for_granted(failure: DeltaError) -> None:
    _, worker = await failing(failure)
    with pytest.raises(type(failure)):
        await worker.execute(command(Op.GET, "cached", term=2))


async def test_a_refused_write_leaves_the_old_value_and_no_object() -> None:
    store, worker = await failing(StoreFull("no room"))

    def full(operation: str, path: str) -> None:
        if operation == "put":
            raise StoreFull("no room")

    store.before = full
    objects = dict(store.objects)
    for key in ("cached", "fresh"):
        for op in (Op.PUT, Op.DELETE):
            if (key, op) == ("fresh", Op.DELETE):
                continue  # There is nothing to delete, so nothing to store.
            with pytest.raises(StoreFull):
                await worker.execute(command(op, key, b'"new"' if op is Op.PUT else b""))
    assert store.objects == objects
    assert (await worker.execute(command(Op.GET, "cached"))).document == b'"old"'
    store.before = None
    assert (await worker.execute(command(Op.PUT, "cached", b'"new"'))).version == 2


@pytest.mark.parametrize("failure", [StoreFull("full"), *FAILURES.values()])
async def test_a_refused_write_takes_nothing_out_of_the_cache(failure: DeltaError) -> None:
    _, worker = await failing(failure)
    with pytest.raises(type(failure)):
        await worker.execute(command(Op.PUT, "cached", b'"new"'))
    assert (await worker.execute(command(Op.GET, "cached"))).document == b'"old"'
