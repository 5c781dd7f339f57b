"""Patches, demanded conditions and repeated writes at a worker, with real schemas."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.clocks import FakeClock, SeededRandom
from support.fake_store import FakeStore
from support.workers import make_committer

from deltadatabase.errors import (
    Conflict,
    DeltaError,
    Invalid,
    NotFound,
    PreconditionRequired,
    TooLarge,
    Unprocessable,
    VersionMismatch,
)
from deltadatabase.model import Command, Op, PatchKind, Result
from deltadatabase.schema.registry import SchemaRegistry
from deltadatabase.storage.paths import entity_path
from deltadatabase.worker.commit import Committer

PATH = entity_path("s", "k")
SCHEMA = b'{"properties":{"n":{"type":"integer","maximum":9}}}'
STRICT = b'{"x-require-if-match":true}'
_ids = SeededRandom(99)


class Templates:
    """A source of schemas that counts its reads."""

    def __init__(self) -> None:
        self.text: bytes | None = SCHEMA
        self.reads = 0

    async def template(self, schema_id: str) -> bytes | None:
        self.reads += 1
        await asyncio.sleep(0)
        return self.text


class Bench:
    """One committer, and a second one on the same store: the next owner."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.clock = FakeClock()
        self.templates = Templates()
        self.worker, self.other = (self._make(seed) for seed in (1, 2))

    def _make(self, seed: int) -> Committer:
        schemas = SchemaRegistry(self.templates)
        return make_committer(self.store, clock=self.clock, seed=seed, schemas=schemas)

    async def do(self, op: Op, document: bytes = b"", *, at: Committer | None = None, **more: Any) -> Result:
        write_id = more.pop("write_id", None) or _ids(16)
        more = {"key": "k", "term": 1, "timeout_ms": 1000, "revision": 1, **more}
        return await (at or self.worker).execute(
            Command(op=op, schema_id="s", shard=3, document=document, write_id=write_id, **more)
        )

    async def merge(self, patch: bytes, **more: Any) -> Result:
        return await self.do(Op.PATCH, patch, number=PatchKind.MERGE, **more)

    async def stored(self, **more: Any) -> bytes:
        return (await self.do(Op.GET, **more)).document


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def refused(wanted: type[DeltaError], code: str, result: Any) -> DeltaError:
    with pytest.raises(wanted) as caught:
        await result
    assert caught.value.code == code
    return caught.value


async def test_a_patch_changes_what_is_stored(bench: Bench) -> None:
    written = await bench.do(Op.PUT, b'{"n":1, "x":0.10}')
    merged = await bench.merge(b'{"n":2}')
    assert (merged.version, merged.document, merged.created) == (2, b'{"n":2,"x":0.10}', False)
    assert merged.etag not in ("", written.etag) and merged.schema_hash == written.schema_hash
    patched = await bench.do(
        Op.PATCH, b'[{"op":"copy","from":"/x","path":"/y"}]', number=PatchKind.JSON, if_match=(merged.etag,)
    )
    assert patched.document == b'{"n":2,"x":0.10,"y":0.10}'
    for at, term in ((bench.worker, 1), (bench.other, 2)):
        assert await bench.stored(at=at, term=term) == patched.document


async def test_each_refusal_leaves_everything_as_it_was(bench: Bench) -> None:
    await refused(NotFound, "entity_not_found", bench.merge(b"{}"))
    await bench.do(Op.PUT, b'{"n":1}')
    bench.store.log.clear()
    invalid = await refused(Invalid, "schema_violation", bench.merge(b'{"n":10}'))
    assert [issue.pointer for issue in invalid.issues] == ["/n"]
    await refused(Invalid, "bad_patch", bench.merge(b"{"))
    await refused(Invalid, "bad_patch", bench.do(Op.PATCH, b"[]", number=7))
    await refused(TooLarge, "too_large", bench.merge(b'{"x":"long"}', document_bytes_max=12))
    for patch, code in (
        (b'[{"op":"test","path":"/n","value":2}]', "patch_test_failed"),
        (b'[{"op":"remove","path":"/m"}]', "patch_conflict"),
    ):
        await refused(Conflict, code, bench.do(Op.PATCH, patch, number=PatchKind.JSON))
    await refused(VersionMismatch, "version_mismatch", bench.merge(b"{}", if_match=('"7-x"',)))
    assert bench.store.log == []
    assert await bench.stored() == b'{"n":1}'


async def test_patches_that_wait_for_each_other_are_all_applied_in_one_put(bench: Bench) -> None:
    await bench.do(Op.PUT, b'{"n":0}')
    bench.store.log.clear()
    calls = [bench.merge(b'{"m%d":1}' % number) for number in range(10)]
    calls.insert(5, bench.merge(b'{"n":10}'))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results.pop(5), Invalid)
    assert [result.version for result in results if isinstance(result, Result)] == list(range(2, 12))
    assert [result.document.count(b'"m') for result in results if isinstance(result, Result)] == list(
        range(1, 11)
    )
    assert len([request for request in bench.store.log if request[0] == "put"]) < 10


async def test_others_get_their_turn_between_heavy_patches(bench: Bench) -> None:
    await bench.do(Op.PUT, b'{"n":0}')
    bench.clock._tick_s = 0.004  # each look at the clock finds so much gone
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def settled(count: int) -> int:
        nonlocal turns
        turns = 0
        await asyncio.gather(
            *(bench.merge(b'{"m%d":1}' % number, timeout_ms=100_000) for number in range(count))
        )
        return turns

    task = asyncio.create_task(other())
    few, many = await settled(2), await settled(42)
    task.cancel()
    assert many >= few + 15


# Demanded conditions


async def test_a_schema_may_demand_conditions(bench: Bench) -> None:
    bench.templates.text = STRICT
    for op, document in ((Op.PUT, b"{}"), (Op.PATCH, b"{}"), (Op.DELETE, b""), (Op.VALIDATE, b"{}")):
        await refused(
            PreconditionRequired, "precondition_required", bench.do(op, document, number=PatchKind.MERGE)
        )
    assert bench.store.objects == {}
    created = await bench.do(Op.PUT, b"{}", if_none_match=("*",))
    merged = await bench.merge(b'{"a":1}', if_match=(created.etag,))
    await refused(VersionMismatch, "version_mismatch", bench.do(Op.DELETE, if_match=(created.etag,)))
    assert (await bench.do(Op.DELETE, if_match=(merged.etag,))).found


async def test_metadata_documents_need_no_conditions_unless_they_are_validated(bench: Bench) -> None:
    bench.templates.text = STRICT
    await bench.do(Op.PUT, b"{}", key="_index")
    await bench.do(Op.DELETE, key="_index")
    bench.templates.text = b'{"x-require-if-match":true,"x-validate-metadata":true}'
    await refused(
        PreconditionRequired, "precondition_required", bench.do(Op.PUT, b"{}", key="_index", revision=2)
    )


async def test_a_delete_asks_the_registry_not_the_store(bench: Bench) -> None:
    await bench.do(Op.PUT, b"{}")
    await bench.do(Op.DELETE)
    await bench.do(Op.DELETE)
    assert bench.templates.reads == 1


async def test_a_delete_goes_on_where_the_template_is_no_schema(bench: Bench) -> None:
    await bench.do(Op.PUT, b"{}")
    bench.templates.text = b"{"
    await refused(Conflict, "template_invalid", bench.do(Op.PUT, b"{}", revision=2))
    assert (await bench.do(Op.DELETE, revision=2)).found


# Repeated writes


async def test_a_repeated_patch_is_applied_once(bench: Bench) -> None:
    await bench.do(Op.PUT, b'{"n":1}')
    write_id = _ids(16)
    first = await bench.merge(b'{"n":2}', write_id=write_id)
    again = await bench.merge(b'{"n":2}', write_id=write_id, at=bench.other, term=2)
    assert again.repeated and not first.repeated
    assert (again.version, again.etag, again.document) == (first.version, first.etag, first.document)
    await bench.do(Op.PUT, b'{"n":3}', at=bench.other, term=2)
    late = await bench.merge(b'{"n":2}', write_id=write_id, at=bench.other, term=2)
    assert (late.repeated, late.version, late.document) == (True, 2, b"")
    assert await bench.stored(at=bench.other, term=2) == b'{"n":3}'


async def test_a_write_under_a_used_key_is_refused(bench: Bench) -> None:
    write_id = _ids(16)
    await bench.do(Op.PUT, b'{"n":1}', write_id=write_id)
    other = write_id[:8] + b"another!"
    for op in (Op.PUT, Op.DELETE, Op.PATCH):
        await refused(
            Unprocessable,
            "idempotency_key_reused",
            bench.do(op, b"{}", number=PatchKind.MERGE, write_id=other),
        )


async def test_a_resolve_tells_how_far_the_memory_reaches(bench: Bench) -> None:
    nothing = await bench.do(Op.RESOLVE)
    assert (nothing.found, nothing.version, nothing.number) == (False, 0, 0)
    for number in range(20):
        await bench.do(Op.PUT, b'{"n":%d}' % (number % 9))
    lost = await bench.do(Op.RESOLVE)
    assert (lost.found, lost.version, lost.number) == (False, 20, 4)


async def test_a_resolved_patch_brings_its_document(bench: Bench) -> None:
    await bench.do(Op.PUT, b'{"n":1}')
    write_id = _ids(16)
    await bench.merge(b'{"n":2}', write_id=write_id)
    found = await bench.do(Op.RESOLVE, number=PatchKind.MERGE, write_id=write_id)
    assert (found.found, found.version, found.document) == (True, 2, b'{"n":2}')
    await bench.merge(b'{"n":3}')
    found = await bench.do(Op.RESOLVE, number=PatchKind.MERGE, write_id=write_id)
    assert (found.found, found.version, found.document) == (True, 2, b"")


async def test_another_put_of_a_repeated_write_is_not_taken_for_the_own_one(bench: Bench) -> None:
    """A client sent its write again, to the next owner, while the first put was on its way.

    The next owner merges the repeat with somebody else's write; then the first put lands, and its
    own fails. That the repeated write is there says nothing of the one that was merged with it.
    """
    await bench.do(Op.PUT, b'{"n":0}')
    write_id = _ids(16)

    async def first_put_lands(operation: str, path: str) -> None:
        if operation == "put":
            bench.store.before = None
            await bench.do(Op.PUT, b'{"n":1}', write_id=write_id)

    bench.store.before = first_put_lands
    merged, again = await asyncio.gather(
        bench.merge(b'{"m":1}', at=bench.other, term=2),
        bench.do(Op.PUT, b'{"n":1}', write_id=write_id, at=bench.other, term=2),
    )
    assert (again.version, again.repeated) == (2, True)
    assert (merged.version, merged.document) == (3, b'{"n":1,"m":1}')
    assert await bench.stored(at=bench.other, term=2) == merged.document
