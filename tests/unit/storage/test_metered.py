"""A metered store counts what became of each request; that it passes them on, the contract suite shows."""

from __future__ import annotations

import pytest
from support.clocks import FakeClock
from support.fake_store import FakeStore

from deltadatabase.errors import AlreadyExists, NotFound, OutcomeUnknown, StoreFull, Unavailable
from deltadatabase.storage.base import When
from deltadatabase.storage.metered import ERRORS, MeteredStore, StoreMeter, outcome_of


async def test_requests_are_counted_by_kind_and_outcome_and_bytes_by_success() -> None:
    meter = StoreMeter()
    store = MeteredStore(FakeStore(), meter, FakeClock(tick_s=0.25))
    etag = await store.put("files/s/a", b"12345", When.ABSENT)
    with pytest.raises(AlreadyExists):
        await store.put("files/s/a", b"1234567", When.ABSENT)
    assert (await store.get("files/s/a")).data == b"12345"
    assert await store.get_if_changed("files/s/a", etag) is None
    with pytest.raises(NotFound):
        await store.get("files/s/b")
    await store.list("files/s/")
    seen = {name: count for name, count in meter.requests().items() if count}
    assert seen == {
        ("put", "ok"): 1,
        ("put", "conflict"): 1,
        ("get", "ok"): 2,
        ("get", "not_found"): 1,
        ("list", "ok"): 1,
    }
    assert (meter.written_bytes, meter.read_bytes) == (5, 5)
    assert meter.durations()["get",].total == pytest.approx(0.75)


@pytest.mark.parametrize("backend", ["s3", "memory", "directory"])
async def test_settling_counts_where_it_is_a_request(backend: str) -> None:
    inner, meter = FakeStore(), StoreMeter()
    inner.backend = backend
    await MeteredStore(inner, meter, FakeClock()).settle("files/s/a")
    assert meter.requests().get(("settle", "ok"), 0) == (backend == "directory")
    assert inner.log == ([("settle", "files/s/a")] if backend == "directory" else [])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unavailable, "unavailable"),
        (OutcomeUnknown, "unknown"),
        (StoreFull, "full"),
        (ValueError, "internal"),
    ],
)
def test_trouble_is_told_from_answers(error: type[Exception], outcome: str) -> None:
    assert outcome_of(error) == outcome
    assert (outcome in ERRORS) == (error is not ValueError)
    # From the start: the first of them is a rise.
    if outcome in ERRORS:
        assert StoreMeter().requests()["put", outcome] == 0
