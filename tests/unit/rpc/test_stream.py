"""The client's end alone, over a call whose writes end when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest

from deltadatabase import limits
from deltadatabase.errors import LinkLost, NotFound, OutcomeUnknown, TooLarge, Unavailable
from deltadatabase.model import Command, Op, Result
from deltadatabase.rpc import convert, status
from deltadatabase.rpc.pb.proc_worker_pb2 import (
    Documents,
    EncodedReplyBatch,
    EncodedRequestBatch,
    Reply,
    Request,
)
from deltadatabase.rpc.stream import WorkerStream


class FakeCall:
    """A stream whose other end is the test."""

    def __init__(self) -> None:
        self.written: asyncio.Queue[EncodedRequestBatch] = asyncio.Queue()
        self.may_write = asyncio.Semaphore(0)
        self.to_read: asyncio.Queue[object] = asyncio.Queue()
        self.cancelled = False

    async def write(self, data: bytes) -> None:
        self.written.put_nowait(EncodedRequestBatch.FromString(data))
        await self.may_write.acquire()

    async def read(self) -> object:
        return await self.to_read.get()

    def cancel(self) -> bool:
        self.cancelled = True
        return True

    async def next_batch(self) -> list[Request]:
        """The next batch, whose write goes on until ``may_write`` is released."""
        batch = await self.written.get()
        return [Request.FromString(encoded) for encoded in batch.requests]

    def answer(self, *replies: Reply) -> None:
        batch = EncodedReplyBatch(replies=[reply.SerializeToString() for reply in replies])
        self.to_read.put_nowait(batch.SerializeToString())


class FakeChannel:
    closed = False

    async def close(self, grace: float | None) -> None:
        self.closed = True


@pytest.fixture
async def call() -> FakeCall:
    return FakeCall()


@pytest.fixture
async def channel() -> FakeChannel:
    return FakeChannel()


@pytest.fixture
async def stream(call: FakeCall, channel: FakeChannel) -> AsyncIterator[WorkerStream]:
    made = WorkerStream(
        cast(grpc.aio.Channel, channel), cast(Any, call), limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT
    )
    yield made
    await made.close()
    assert call.cancelled
    assert channel.closed


def start(stream: WorkerStream, key: str, op: Op = Op.GET, timeout_ms: int = 9_000) -> asyncio.Task[Result]:
    command = Command(op=op, key=key, write_id=b"w" * 16, timeout_ms=timeout_ms)
    return asyncio.create_task(stream.call(command))


async def test_requests_made_during_a_write_form_the_next_batch(stream: WorkerStream, call: FakeCall) -> None:
    tasks = [start(stream, "a")]
    (first,) = await call.next_batch()
    tasks += [start(stream, key) for key in "bcd"]
    await asyncio.sleep(0)
    assert call.written.empty()
    call.may_write.release()
    rest = await call.next_batch()
    assert [request.key for request in (first, *rest)] == list("abcd")
    call.answer(*(convert.encode_reply(each.id, Result(etag=each.key)) for each in reversed(rest)))
    call.answer(Reply(id=first.id, error=status.encode_error(NotFound("gone"))))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], NotFound)
    assert [cast(Result, outcome).etag for outcome in outcomes[1:]] == list("bcd")


async def test_requests_of_one_turn_of_the_loop_share_a_batch(stream: WorkerStream, call: FakeCall) -> None:
    tasks = [start(stream, str(number)) for number in range(50)]
    assert len(await call.next_batch()) == 50
    await stream.close()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_write_that_was_never_sent_is_not_in_doubt(stream: WorkerStream, call: FakeCall) -> None:
    sent = start(stream, "a", Op.PUT, timeout_ms=20)
    (request,) = await call.next_batch()
    unsent = start(stream, "b", Op.PUT, timeout_ms=20)
    outcomes = await asyncio.gather(sent, unsent, return_exceptions=True)
    assert type(outcomes[0]) is OutcomeUnknown
    assert type(outcomes[1]) is Unavailable
    assert {cast(Unavailable, outcome).code for outcome in outcomes} == {"timeout"}
    call.may_write.release()
    batch = await call.written.get()
    assert list(batch.cancelled) == [request.id]
    assert not batch.requests


async def test_plain_reads_share_columns(stream: WorkerStream, call: FakeCall) -> None:
    def ask(key: str) -> asyncio.Task[Result]:
        return asyncio.create_task(stream.call(Command(op=Op.GET, key=key, shard=1)))

    tasks = [ask(key) for key in "ab"]
    other = start(stream, "put", Op.PUT)
    batch = await call.written.get()
    assert list(batch.reads.key) == [b"a", b"b"]
    (put,) = [Request.FromString(each) for each in batch.requests]
    gone, late = ask("gone"), ask("late")
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    call.may_write.release()
    # What was withdrawn before it was sent never leaves, and the worker is not bothered with it.
    later = await call.written.get()
    assert (list(later.reads.key), list(later.cancelled)) == ([b"late"], [])
    ids = [*batch.reads.id, *later.reads.id, 999]
    documents = Documents(
        id=ids, version=ids, etag=["a", "b", "late", "?"], updated_ms=ids, document=[b"{}"] * 4
    )
    reply = convert.encode_reply(put.id, Result(etag="put")).SerializeToString()
    call.to_read.put_nowait(EncodedReplyBatch(documents=documents, replies=[reply]).SerializeToString())
    assert [(await task).etag for task in (*tasks, late, other)] == ["a", "b", "late", "put"]
    assert stream.in_flight == 0


async def test_ragged_columns_end_the_stream(stream: WorkerStream, call: FakeCall) -> None:
    task = start(stream, "a")
    await call.next_batch()
    call.to_read.put_nowait(EncodedReplyBatch(documents=Documents(id=[1])).SerializeToString())
    with pytest.raises(LinkLost):
        await task


async def test_a_broken_stream_tells_what_was_sent(
    stream: WorkerStream, call: FakeCall, channel: FakeChannel
) -> None:
    sent = start(stream, "a")
    await call.next_batch()
    unsent = start(stream, "b", Op.PUT)
    await asyncio.sleep(0)
    call.to_read.put_nowait(grpc.aio.EOF)  # type: ignore[attr-defined]  # its stubs lack it
    outcomes = await asyncio.gather(sent, unsent, return_exceptions=True)
    assert type(outcomes[0]) is LinkLost
    assert type(outcomes[1]) is Unavailable
    assert outcomes[1].code == "link_down"
    assert stream.lost.is_set()
    await stream.close()
    assert channel.closed


@pytest.mark.parametrize("turns", range(4))
async def test_what_a_closed_stream_calls_unsent_is_never_sent(
    stream: WorkerStream, call: FakeCall, turns: int
) -> None:
    """Its caller hears that nothing was applied, and sends it again elsewhere or says 503."""
    task = start(stream, "a", Op.PUT)
    for _ in range(turns):
        await asyncio.sleep(0)
    await stream.close()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    sent = [] if call.written.empty() else list(call.written.get_nowait().requests)
    assert isinstance(outcome, LinkLost if sent else Unavailable)


async def test_garbage_from_the_worker_ends_the_stream(stream: WorkerStream, call: FakeCall) -> None:
    task = start(stream, "a")
    await call.next_batch()
    call.to_read.put_nowait(b"\xff\xff\xff")
    with pytest.raises(LinkLost):
        await task


async def test_answers_that_nobody_waits_for_are_dropped(stream: WorkerStream, call: FakeCall) -> None:
    task = start(stream, "a")
    (request,) = await call.next_batch()
    task.cancel()
    await asyncio.wait([task])
    call.answer(convert.encode_reply(request.id, Result()), convert.encode_reply(999, Result()))
    call.may_write.release()
    assert list((await call.written.get()).cancelled) == [request.id]
    assert not stream.lost.is_set()


async def test_an_oversized_request_is_refused_alone(stream: WorkerStream, call: FakeCall) -> None:
    document = bytes(limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT)
    with pytest.raises(TooLarge):
        await stream.call(Command(op=Op.VALIDATE, document=document))
    assert stream.in_flight == 0
    assert not stream.lost.is_set()
    assert call.written.empty()


async def test_a_worker_that_knows_no_columns_gets_requests(call: FakeCall, channel: FakeChannel) -> None:
    stream = WorkerStream(
        cast(grpc.aio.Channel, channel),
        cast(Any, call),
        limits.GRPC_MESSAGE_BYTES_MAX_DEFAULT,
        as_columns=False,
    )
    task = start(stream, "a")
    batch = await call.written.get()
    assert len(batch.requests) == 1 and not batch.HasField("reads")
    task.cancel()
    await stream.close()
