"""The stream over real sockets: who is let in, what a bad peer can do, what survives an end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from contract.links import INSTANCE, ScriptedHandler, counting_random, dial, secret, serving

from deltadatabase import limits
from deltadatabase.errors import Internal, Invalid, LinkLost, NotFound, TooLarge, Unauthenticated, Unavailable
from deltadatabase.model import Command, Op, Result
from deltadatabase.rpc import channels, convert, exchange, handshake
from deltadatabase.rpc.handshake import ClientCall, LinkSecret
from deltadatabase.rpc.outbox import BATCH_OVERHEAD_BYTES
from deltadatabase.rpc.pb.proc_worker_pb2 import (
    EncodedReplyBatch,
    EncodedRequestBatch,
    Hello,
    Reads,
    Reply,
    Request,
)
from deltadatabase.rpc.status import decode_error

WRITE_ID = bytes(range(16))
TESTS = Path(__file__).parent.parent


@pytest.fixture
async def handler() -> ScriptedHandler:
    return ScriptedHandler()


@asynccontextmanager
async def raw_call(address: str, *, admitted: bool) -> AsyncIterator[ClientCall]:
    """The stream as a peer sees it that writes its own messages."""
    async with channels.open_channel(address) as channel:
        call: ClientCall = channel.stream_stream("/deltadatabase.v1.ProcWorker/Exchange", bytes, bytes)()  # type: ignore[call-arg]
        if admitted:
            await handshake.greet(call, LinkSecret(*secret(b"link key"), counting_random()), "main", INSTANCE)
        yield call
        call.cancel()


def encoded(request_id: int, op: Op = Op.GET, key: str = "k") -> bytes:
    command = Command(op=op, schema_id="s", key=key, write_id=WRITE_ID)
    return convert.encode_request(request_id, command).SerializeToString()


def batch(*requests: bytes) -> bytes:
    return EncodedRequestBatch(requests=requests).SerializeToString()


def reading(*request_ids: int, key: bytes = b"k") -> bytes:
    """Plain reads, as columns."""
    count = len(request_ids)
    reads = Reads(
        id=request_ids,
        schema_id=[b"s"] * count,
        key=[key] * count,
        shard=[0] * count,
        term=[1] * count,
        timeout_ms=[1000] * count,
        request_id=[b""] * count,
    )
    return EncodedRequestBatch(reads=reads).SerializeToString()


async def replies(call: ClientCall, count: int) -> dict[int, Reply]:
    found: dict[int, Reply] = {}
    while len(found) < count:
        data = await call.read()
        assert isinstance(data, bytes)
        for each in EncodedReplyBatch.FromString(data).replies:
            reply = Reply.FromString(each)
            found[reply.id] = reply
    return found


async def status_of(call: ClientCall) -> grpc.StatusCode:
    """The status with which the worker ends the stream; messages before it are skipped."""
    async with asyncio.timeout(5):
        try:
            while isinstance(await call.read(), bytes):
                pass
        except grpc.aio.AioRpcError:
            pass
        return await call.code()


# Who is let in


async def test_another_link_key_is_refused(handler: ScriptedHandler) -> None:
    async with serving(handler) as (_, address):
        with pytest.raises(Unauthenticated) as caught:
            await dial(address, key=b"another key")
        assert caught.value.code == "wrong_peer"


async def test_another_instance_is_refused(handler: ScriptedHandler) -> None:
    async with serving(handler) as (_, address):
        with pytest.raises(Unauthenticated):
            await dial(address, instance_id="another")


async def test_nobody_there() -> None:
    with pytest.raises(Unavailable) as caught:
        await dial("127.0.0.1:1")
    assert caught.value.code == "link_down"


async def test_another_service_there() -> None:
    server = channels.new_server()
    port = channels.listen(server, "127.0.0.1:0")
    await server.start()
    with pytest.raises(Unavailable) as caught:
        await dial(f"127.0.0.1:{port}")
    assert caught.value.code == "link_down"
    await server.stop(None)


@pytest.mark.parametrize(
    "messages",
    [
        [batch(encoded(1))],
        [EncodedRequestBatch(hello=Hello(nonce_main=bytes(8))).SerializeToString()],
        [b"\xff\xff\xff"],
        [EncodedRequestBatch(hello=Hello(nonce_main=bytes(32)), requests=[encoded(1)]).SerializeToString()],
        [EncodedRequestBatch(hello=Hello(nonce_main=bytes(32))).SerializeToString(), batch(encoded(1))],
        [EncodedRequestBatch(hello=Hello(nonce_main=bytes(32))).SerializeToString() + reading(1)],
        [EncodedRequestBatch(hello=Hello(nonce_main=bytes(32))).SerializeToString(), reading(1)],
        [
            EncodedRequestBatch(hello=Hello(nonce_main=bytes(32))).SerializeToString(),
            EncodedRequestBatch(hello=Hello(proof=bytes(32))).SerializeToString(),
            batch(encoded(1)),
        ],
    ],
    ids=[
        "no hello",
        "short nonce",
        "garbage",
        "request in hello",
        "request for proof",
        "read in hello",
        "read for proof",
        "wrong proof",
    ],
)
async def test_nothing_is_executed_without_a_proof(handler: ScriptedHandler, messages: list[bytes]) -> None:
    handler.fast_script = lambda command: pytest.fail("executed")
    async with serving(handler) as (_, address), raw_call(address, admitted=False) as call:
        for message in messages:
            try:
                await call.write(message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                break
        assert await status_of(call) is grpc.StatusCode.UNAUTHENTICATED
    assert handler.started == []


async def test_the_workers_own_proof_does_not_open_the_stream(handler: ScriptedHandler) -> None:
    async with serving(handler) as (_, address), raw_call(address, admitted=False) as call:
        await call.write(EncodedRequestBatch(hello=Hello(nonce_main=bytes(32))).SerializeToString())
        data = await call.read()
        assert isinstance(data, bytes)
        echoed = Hello(proof=EncodedReplyBatch.FromString(data).welcome.proof)
        await call.write(EncodedRequestBatch(hello=echoed).SerializeToString())
        assert await status_of(call) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_silent_peer_is_sent_away(handler: ScriptedHandler) -> None:
    async with (
        serving(handler, handshake_timeout_s=0.05) as (_, address),
        raw_call(address, admitted=False) as call,
    ):
        assert await status_of(call) is grpc.StatusCode.UNAUTHENTICATED


# What a bad message can do


async def test_a_malformed_request_fails_alone(handler: ScriptedHandler) -> None:
    handler.fast_script = lambda command: Result(etag=command.key)
    bad_text = encoded(2).replace(b"\x22\x01k", b"\x22\x01\xff")
    assert bad_text != encoded(2)
    unknown_op = Request(id=3, op=77).SerializeToString()  # type: ignore[arg-type]
    short_write_id = Request(id=4, op=2, write_id=b"short").SerializeToString()  # type: ignore[arg-type]
    async with serving(handler) as (_, address), raw_call(address, admitted=True) as call:
        await call.write(batch(encoded(1), bad_text, unknown_op, short_write_id, encoded(5)))
        found = await replies(call, 5)
        for request_id in (2, 3, 4):
            assert type(decode_error(found[request_id].error)) is Invalid
        assert found[1].etag == found[5].etag == "k"
        await call.write(batch(encoded(6)))
        assert (await replies(call, 1))[6].etag == "k"


async def test_a_malformed_read_fails_alone(handler: ScriptedHandler) -> None:
    handler.fast_script = lambda command: Result(etag=command.key)
    async with serving(handler) as (_, address), raw_call(address, admitted=True) as call:
        await call.write(reading(1, key=b"\xff"))
        assert type(decode_error((await replies(call, 1))[1].error)) is Invalid
        await call.write(reading(2, 3))
        data = await call.read()
        assert isinstance(data, bytes)
        documents = EncodedReplyBatch.FromString(data).documents
        assert list(documents.id) == [2, 3]
        assert list(documents.etag) == ["k", "k"]


@pytest.mark.parametrize("from_cache", [True, False])
async def test_a_failing_read_fails_alone(handler: ScriptedHandler, *, from_cache: bool) -> None:
    def fails(command: Command) -> Result | None:
        if command.key == "missing":
            raise NotFound("there is no such entity")
        if command.key == "mistake":
            raise ZeroDivisionError
        return Result(etag=command.key)

    async def execute(command: Command) -> Result:
        result = fails(command)
        assert result is not None
        return result

    handler.script = execute
    if from_cache:
        handler.fast_script = fails
    async with serving(handler) as (_, address):
        stream = await dial(address)
        commands = [Command(op=Op.GET, key=key, shard=1) for key in ("a", "missing", "mistake", "b")]
        a, missing, mistake, b = await asyncio.gather(*map(stream.call, commands), return_exceptions=True)
        assert (a, b) == (Result(etag="a"), Result(etag="b"))
        assert type(missing) is NotFound
        assert type(mistake) is Internal
        await stream.close()


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff",
        batch(b"\xff\xff"),
        batch(encoded(0)),
        batch(encoded(9, key="slow"), encoded(9)),
        reading(0),
        reading(9, 9),
        EncodedRequestBatch(reads=Reads(id=[9])).SerializeToString(),
    ],
    ids=[
        "garbage",
        "request without id",
        "id 0",
        "id in use",
        "read with id 0",
        "read with id in use",
        "ragged columns",
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_sent_away(handler: ScriptedHandler, message: bytes) -> None:
    async with serving(handler) as (service, address):
        async with raw_call(address, admitted=True) as call:
            await call.write(message)
            assert await status_of(call) is grpc.StatusCode.INVALID_ARGUMENT
        await service.settle(5)
        handler.release.set()
        stream = await dial(address)
        await stream.call(Command(op=Op.GET))
        await stream.close()


async def test_what_does_not_fit_a_message_fails_alone(handler: ScriptedHandler) -> None:
    limit = 1 * limits.MIB
    sizes = {"fits": limit - BATCH_OVERHEAD_BYTES - 100, "large": limit}
    handler.fast_script = lambda command: Result(document=bytes(sizes.get(command.key, 0)))
    async with serving(handler, message_bytes_max=limit) as (_, address):
        stream = await dial(address, message_bytes_max=limit)
        with pytest.raises(TooLarge):
            await stream.call(Command(op=Op.GET, key="large"))
        with pytest.raises(TooLarge):
            await stream.call(Command(op=Op.VALIDATE, document=bytes(sizes["large"])))
        assert len((await stream.call(Command(op=Op.GET, key="fits"))).document) == sizes["fits"]
        await stream.call(Command(op=Op.VALIDATE, document=bytes(sizes["fits"])))
        assert not stream.lost.is_set()
        await stream.close()


async def test_a_peer_that_reads_nothing_is_not_read_either(handler: ScriptedHandler) -> None:
    document = bytes(1 * limits.MIB)
    served = 0

    def answer(_: Command) -> Result:
        nonlocal served
        served += 1
        return Result(document=document)

    handler.fast_script = answer
    per_batch = exchange.UNSENT_BYTES_MAX // len(document) + 8
    async with serving(handler) as (_, address), raw_call(address, admitted=True) as call:
        for first in (1, 1 + per_batch):
            await call.write(batch(*(encoded(first + offset) for offset in range(per_batch))))
        await asyncio.sleep(0.2)
        assert served == per_batch
        assert len(await replies(call, 2 * per_batch)) == 2 * per_batch


# What survives an end


async def test_a_stopped_server_leaves_calls_in_doubt(handler: ScriptedHandler) -> None:
    async with serving(handler) as (_, address):
        stream = await dial(address)
        task = asyncio.create_task(stream.call(Command(op=Op.PUT, write_id=WRITE_ID)))
        await handler.until(lambda: len(handler.started) == 1)
    with pytest.raises(LinkLost):
        await task
    await asyncio.wait_for(stream.lost.wait(), 5)
    with pytest.raises(Unavailable):
        await stream.call(Command(op=Op.GET))
    await stream.close()


async def test_writes_run_on_when_their_stream_ends(handler: ScriptedHandler) -> None:
    async with serving(handler) as (service, address):
        stream = await dial(address)
        commands = [Command(op=Op.PUT, write_id=WRITE_ID), Command(op=Op.GET)]
        tasks = [asyncio.create_task(stream.call(command)) for command in commands]
        await handler.until(lambda: len(handler.started) == 2)
        assert service.in_flight == 2
        await stream.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        await handler.until(lambda: len(handler.cancelled) == 1)
        assert handler.cancelled[0].op is Op.GET
        assert not await service.settle(0)
        handler.release.set()
        assert await service.settle(5)
        assert [command.op for command in handler.finished] == [Op.PUT]


async def test_a_newer_stream_leaves_the_older_ones_work_alone(handler: ScriptedHandler) -> None:
    async with serving(handler) as (_, address):
        older = await dial(address)
        task = asyncio.create_task(older.call(Command(op=Op.GET, key="older")))
        await handler.until(lambda: len(handler.started) == 1)
        newer = await dial(address)
        handler.release.set()
        assert (await newer.call(Command(op=Op.GET, key="newer"))).etag == "newer"
        assert (await task).etag == "older"
        await older.close()
        await newer.close()


@pytest.mark.integration
async def test_a_killed_process_is_noticed_at_once() -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "integration.stream_server",
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
    )
    assert server.stdout is not None
    stream = await dial((await server.stdout.readline()).decode().strip())
    assert (await stream.call(Command(op=Op.GET, key="a"))).etag == "a"
    task = asyncio.create_task(stream.call(Command(op=Op.PUT, write_id=WRITE_ID)))
    await stream.call(Command(op=Op.GET))
    server.kill()
    with pytest.raises(LinkLost):
        await asyncio.wait_for(task, 2)
    await stream.close()
    await server.wait()


@pytest.mark.parametrize("admitted", [True, False], ids=["in use", "in its handshake"])
async def test_a_worker_that_ends_writes_no_stack_trace(
    handler: ScriptedHandler, admitted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    service = exchange.ExchangeService(
        handler, prove=secret(b"link key")[0], verify=secret(b"link key")[1], random=counting_random(),
        instance_id=lambda: INSTANCE,
    )  # fmt: skip
    server = channels.new_server()
    service.register(server)
    port = channels.listen(server, "127.0.0.1:0")
    await server.start()
    async with raw_call(f"127.0.0.1:{port}", admitted=admitted):
        while not service._streams:
            await asyncio.sleep(0.01)
        await service.close()
        assert not service._streams
        await server.stop(grace=0.2)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert not any(record.exc_info for record in caplog.records)
