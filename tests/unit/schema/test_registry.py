"""The registry's promise: a schema given for a revision was read after that revision was learned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from deltadatabase.errors import Conflict, Unavailable
from deltadatabase.schema.registry import SchemaRegistry
from deltadatabase.schema.validator import UNVALIDATED, compile_schema

OLD, NEW = b'{"title":"old"}', b'{"title":"new"}'


class Source:
    """Answers each read when the test says so, in the order the test likes."""

    def __init__(self) -> None:
        self.reads: list[tuple[str, asyncio.Future[bytes | None]]] = []

    async def template(self, schema_id: str) -> bytes | None:
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.reads.append((schema_id, answer))
        return await answer

    def answer(self, index: int, text: bytes | None) -> None:
        self.reads[index][1].set_result(text)


class Stored:
    """Answers at once from a dictionary."""

    def __init__(self, **templates: bytes) -> None:
        self.templates = templates
        self.reads = 0

    async def template(self, schema_id: str) -> bytes | None:
        self.reads += 1
        return self.templates.get(schema_id)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def title(text: bytes) -> Callable[[object], bool]:
    expected = compile_schema(text).hash
    return lambda schema: getattr(schema, "hash", None) == expected


async def test_a_schema_is_fetched_once_and_cached() -> None:
    source = Stored(a=OLD)
    registry = SchemaRegistry(source)
    assert registry.cached("a", 0) is None
    schema = await registry.get("a", 3)
    assert title(OLD)(schema)
    assert registry.cached("a", 3) is schema
    assert registry.cached("a", 2) is schema
    assert registry.cached("a", 4) is None
    assert await registry.get("a", 1) is schema
    assert source.reads == 1


async def test_no_template_means_no_validation() -> None:
    registry = SchemaRegistry(Stored())
    assert await registry.get("a", 0) is UNVALIDATED
    assert registry.cached("a", 0) is UNVALIDATED


async def test_unchanged_bytes_are_not_compiled_again() -> None:
    source = Stored(a=OLD, b=OLD)
    registry = SchemaRegistry(source)
    first = await registry.get("a", 1)
    assert await registry.get("a", 2) is first
    assert await registry.get("b", 1) is first
    assert registry.cached("a", 3) is None
    assert source.reads == 3


async def test_concurrent_fetches_are_one() -> None:
    source = Source()
    registry = SchemaRegistry(source)
    waiting = [asyncio.create_task(registry.get("a", revision)) for revision in (5, 5, 4, 0)]
    await settle()
    assert len(source.reads) == 1
    source.answer(0, OLD)
    assert len({id(schema) for schema in await asyncio.gather(*waiting)}) == 1
    assert len(source.reads) == 1


async def test_a_fetch_begun_before_a_revision_was_learned_is_not_given_for_it() -> None:
    source = Source()
    registry = SchemaRegistry(source)
    before = asyncio.create_task(registry.get("a", 1))
    await settle()
    after = asyncio.create_task(registry.get("a", 2))
    await settle()
    assert len(source.reads) == 2
    source.answer(0, OLD)
    assert title(OLD)(await before)
    assert registry.cached("a", 2) is None
    assert not after.done()
    source.answer(1, NEW)
    assert title(NEW)(await after)
    assert title(NEW)(registry.cached("a", 2))


async def test_a_late_old_fetch_does_not_replace_a_newer_one() -> None:
    source = Source()
    registry = SchemaRegistry(source)
    before = asyncio.create_task(registry.get("a", 1))
    await settle()
    after = asyncio.create_task(registry.get("a", 2))
    await settle()
    source.answer(1, NEW)
    assert title(NEW)(await after)
    source.answer(0, OLD)
    assert title(OLD)(await before)
    assert title(NEW)(registry.cached("a", 2))
    assert title(NEW)(await registry.get("a", 1))
    assert len(source.reads) == 2


async def test_a_failed_fetch_is_not_remembered() -> None:
    source = Source()
    registry = SchemaRegistry(source)
    waiting = [asyncio.create_task(registry.get("a", 1)) for _ in range(2)]
    await settle()
    source.reads[0][1].set_exception(Unavailable("the store is away"))
    for task in waiting:
        with pytest.raises(Unavailable):
            await task
    again = asyncio.create_task(registry.get("a", 1))
    await settle()
    source.answer(1, OLD)
    assert title(OLD)(await again)


async def test_a_cancelled_caller_does_not_end_the_fetch_for_others() -> None:
    source = Source()
    registry = SchemaRegistry(source)
    first, second = (asyncio.create_task(registry.get("a", 1)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    source.answer(0, OLD)
    assert title(OLD)(await second)


async def test_a_fetch_that_nobody_waits_for_may_fail_quietly() -> None:
    source = Source()
    registry = SchemaRegistry(source)
    only = asyncio.create_task(registry.get("a", 1))
    await settle()
    only.cancel()
    await settle()
    source.reads[0][1].set_exception(Unavailable("the store is away"))
    await settle()
    assert registry.cached("a", 1) is None


async def test_a_template_that_is_no_schema_is_remembered_and_says_what_to_do() -> None:
    source = Stored(a=b'{"type":"whatever"}')
    registry = SchemaRegistry(source)
    for _ in range(2):
        with pytest.raises(Conflict) as caught:
            await registry.get("a", 1)
        assert caught.value.code == "template_invalid"
        assert "delete it" in caught.value.detail
    with pytest.raises(Conflict):
        registry.cached("a", 1)
    assert registry.cached("a", 2) is None
    assert source.reads == 1
    source.templates["a"] = NEW
    assert title(NEW)(await registry.get("a", 2))


async def test_both_caches_are_bounded() -> None:
    source = Stored(**{f"s{i}": json.dumps({"title": str(i)}).encode() for i in range(6)})
    registry = SchemaRegistry(source, compiled_count_max=2, revision_count_max=4)
    first = await registry.get("s0", 0)
    for i in range(1, 4):
        await registry.get(f"s{i}", 0)
    assert registry.cached("s0", 0) is first
    await registry.get("s4", 0)
    assert registry.cached("s1", 0) is None
    assert registry.cached("s0", 0) is first
    for i in range(6):
        await registry.get(f"s{i}", 0)
    again = await registry.get("s0", 1)
    assert again is not first
    assert again.hash == first.hash


async def test_a_large_template_is_compiled_beside_the_loop() -> None:
    text = json.dumps({"properties": {f"p{i}": {"type": "string"} for i in range(1000)}}).encode()
    schema = await SchemaRegistry(Stored(a=text)).get("a", 1)
    assert title(text)(schema)
