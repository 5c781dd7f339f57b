"""What every link to a worker promises, checked on both of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from contract.links import ScriptedHandler, dial, serving
from deltadatabase import limits
from deltadatabase.errors import (
    Internal,
    Invalid,
    Issue,
    LinkLost,
    NotOwner,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.model import Command, Op, Result
from deltadatabase.rpc.link import WRITES, Link
from deltadatabase.rpc.local import LocalLink

WRITE_ID = bytes(range(16))


@pytest.fixture
async def handler() -> ScriptedHandler:
    return ScriptedHandler()


@pytest.fixture(params=["local", "stream"])
async def link(request: pytest.FixtureRequest, handler: ScriptedHandler) -> AsyncIterator[Link]:
    if request.param == "local":
        local = LocalLink(handler)
        yield local
        await local.close()
        return
    async with serving(handler) as (_, address):
        stream = await dial(address)
        yield stream
        await stream.close()


def get(key: str = "k", timeout_ms: int = 5_000) -> Command:
    return Command(op=Op.GET, schema_id="s", key=key, shard=7, term=3, timeout_ms=timeout_ms)


def of(op: Op, timeout_ms: int = 5_000) -> Command:
    return Command(op=op, schema_id="s", key="k", write_id=WRITE_ID, document=b"{}", timeout_ms=timeout_ms)


async def test_a_fast_answer_never_reaches_execute(link: Link, handler: ScriptedHandler) -> None:
    document = random.Random(1).randbytes(limits.DOCUMENT_BYTES_MAX_DEFAULT)
    handler.fast_script = lambda command: Result(version=4, etag='"4-a"', document=document)
    assert await link.call(get()) == Result(version=4, etag='"4-a"', document=document)
    assert handler.started == []


async def test_only_a_worker_in_this_process_answers_without_a_wait(
    link: Link, handler: ScriptedHandler
) -> None:
    handler.fast_script = lambda command: Result(version=7)
    answer = link.cached(Command(op=Op.GET))
    assert answer == (Result(version=7) if link.local else None)
    await link.close()
    assert link.cached(Command(op=Op.GET)) is None


async def test_a_command_arrives_whole_and_its_result_returns_whole(
    link: Link, handler: ScriptedHandler
) -> None:
    command = Command(
        op=Op.PUT,
        schema_id="chat.room",
        key="ü/🙂",
        shard=1023,
        term=2**40,
        write_id=WRITE_ID,
        document=b'{"a": 1}',
        if_match=('"1-aa"', "*"),
        if_none_match=(),
        revision=9,
        schema_hash="ab" * 32,
        validated=True,
        number=5,
        timeout_ms=4_321,
        request_id="r-1",
    )
    result = Result(
        version=2,
        etag='"2-bb"',
        updated_ms=1_700_000_000_123,
        document=b"\x00\xff",
        created=True,
        not_modified=True,
        found=True,
        schema_hash="cd" * 32,
        names=("a", "b"),
        number=77,
        queue_us=1,
        validate_us=2,
        seal_us=3,
        store_us=4,
    )

    async def answer(_: Command) -> Result:
        return result

    handler.script = answer
    assert await link.call(command) == result
    assert handler.started == [command]


async def test_answers_find_their_callers_in_any_order(link: Link, handler: ScriptedHandler) -> None:
    order = random.Random(7)

    async def answer(command: Command) -> Result:
        for _ in range(order.randrange(20)):
            await asyncio.sleep(0)
        return Result(etag=command.key)

    handler.script = answer
    keys = [f"key-{number}" for number in range(600)]
    results = await asyncio.gather(*(link.call(get(key)) for key in keys))
    assert [result.etag for result in results] == keys
    assert link.in_flight == 0


@pytest.mark.parametrize("fast", [True, False])
async def test_errors_keep_their_class_and_fields(link: Link, handler: ScriptedHandler, fast: bool) -> None:
    errors = [
        VersionMismatch("the etag is not current", etag='"3-cc"'),
        NotOwner("a newer term", term=12),
        Invalid("refused", code="schema", issues=(Issue("/a", "type", "not a string"),)),
    ]
    for error in errors:

        def fail_fast(_: Command, error: Exception = error) -> Result:
            raise error

        async def fail(_: Command, error: Exception = error) -> Result:
            raise error

        if fast:
            handler.fast_script = fail_fast
        else:
            handler.script = fail
        with pytest.raises(type(error)) as caught:
            await link.call(get())
        assert type(caught.value) is type(error)
        assert vars(caught.value) == vars(error)


@pytest.mark.parametrize("fast", [True, False])
async def test_a_mistake_in_the_handler_tells_only_its_class(
    link: Link, handler: ScriptedHandler, fast: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_fast(_: Command) -> Result:
        raise KeyError("secret")

    async def fail(_: Command) -> Result:
        raise TimeoutError("secret")

    if fast:
        handler.fast_script = fail_fast
    else:
        handler.script = fail
    with pytest.raises(Internal) as caught:
        await link.call(get())
    assert "secret" not in str(caught.value) + caplog.text
    assert ("KeyError" if fast else "TimeoutError") in caplog.text


@pytest.mark.parametrize("op", list(Op))
async def test_past_its_time_only_a_write_is_in_doubt(link: Link, handler: ScriptedHandler, op: Op) -> None:
    with pytest.raises(OutcomeUnknown if op in WRITES else Unavailable) as caught:
        await link.call(of(op, timeout_ms=30))
    assert caught.value.code == "timeout"
    assert not isinstance(caught.value, LinkLost)
    assert link.in_flight == 0
    await handler.until(lambda: len(handler.cancelled) == 1)


async def test_without_time_left_nothing_is_sent(link: Link, handler: ScriptedHandler) -> None:
    with pytest.raises(Unavailable) as caught:
        await link.call(of(Op.PUT, timeout_ms=0))
    assert caught.value.code == "timeout"
    handler.release.set()
    await link.call(get())
    assert [command.op for command in handler.started] == [Op.GET]


async def test_a_cancelled_caller_cancels_the_work(link: Link, handler: ScriptedHandler) -> None:
    task = asyncio.create_task(link.call(of(Op.PUT)))
    await handler.until(lambda: len(handler.started) == 1)
    assert link.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await handler.until(lambda: len(handler.cancelled) == 1)
    assert link.in_flight == 0
    assert not link.lost.is_set()


async def test_calls_in_flight_are_bounded(link: Link, handler: ScriptedHandler) -> None:
    tasks = [asyncio.create_task(link.call(get())) for _ in range(limits.STREAM_IN_FLIGHT_MAX)]
    await handler.until(lambda: len(handler.started) == limits.STREAM_IN_FLIGHT_MAX)
    assert link.in_flight == limits.STREAM_IN_FLIGHT_MAX
    with pytest.raises(Overloaded) as caught:
        await link.call(get())
    assert caught.value.retry_after_s is not None
    handler.release.set()
    await asyncio.gather(*tasks)
    await link.call(get())


async def test_close_fails_what_is_in_flight(link: Link, handler: ScriptedHandler) -> None:
    tasks = [asyncio.create_task(link.call(of(op))) for op in (Op.GET, Op.PUT)]
    await handler.until(lambda: len(handler.started) == 2)
    await link.close()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, LinkLost)
    assert link.lost.is_set()
    assert link.in_flight == 0
    with pytest.raises(Unavailable) as caught:
        await link.call(get())
    assert caught.value.code == "link_down"
    await link.close()
