"""Messages over sockets to a real proc worker: strangers, and its main worker, which the harness is.

So the harness knows the link key, and all that a worker guards itself against is heard by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from random import Random
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from support.programs import Program, free_port

from deltadatabase.auth import join as joining
from deltadatabase.auth.join import JoinContext, JoinToken
from deltadatabase.crypto.wrap import wrap
from deltadatabase.rpc import channels
from deltadatabase.rpc.pb import main_worker_pb2 as main_pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as main_grpc
from deltadatabase.rpc.pb import proc_worker_pb2 as data_pb
from deltadatabase.rpc.pb import types_pb2
from deltadatabase.rpc.pb.proc_worker_pb2 import EncodedRequestBatch
from fuzz.grpc_side import CLOSED_MEANWHILE, TOKEN, Side, go_on, varint
from fuzz.mutate import (
    framed,
    message_change,
    message_filled,
    sequence_change,
    unframed,
    unknown_field,
)
from fuzz.plants import PlantedPrograms
from fuzz.targets.stack import KEYRING
from fuzz.targets.wire import requests as request_seeds
from fuzz.verdicts import Tally, Watch

LINK_KEY = b"k" * joining.LINK_KEY_BYTES
QUIET_S = 0.15
AGAIN_S = 0.3
_EXCHANGE = f"/{channels.PROC_WORKER_SERVICE}/Exchange"


class FakeMain(main_grpc.MainWorkerServicer):
    """A main worker that admits one proc worker and lets the harness keep the link key."""

    def __init__(self) -> None:
        self.joined = asyncio.Event()
        self.instance_id = ""

    async def Subscribe(self, _requests: object, context: grpc.aio.ServicerContext) -> None:  # type: ignore[type-arg, override]  # noqa: N802
        with contextlib.suppress(asyncio.CancelledError):  # The end: gRPC would write a stack trace.
            await self._serve(context)

    async def _serve(self, context: grpc.aio.ServicerContext) -> None:  # type: ignore[type-arg]
        asked = (await context.read()).join  # type: ignore[union-attr]
        nonce = b"s" * 32
        await context.write(
            main_pb.MainMessage(challenge=main_pb.Challenge(nonce=nonce, proof_required=True))
        )
        await context.read()
        agreed = JoinContext(
            server_nonce=nonce,
            worker_nonce=asked.nonce,
            worker_id=asked.worker_id,
            instance_id=asked.instance_id,
            public_key=asked.public_key,
            grpc_addr=asked.grpc_addr,
        )
        key_id = KEYRING.primary.key_id
        payload = LINK_KEY + KEYRING.to_payload()
        wrapped = wrap(asked.public_key, payload, joining.wrap_info(agreed, key_id))
        admitted = main_pb.Admitted(
            wrapped=wrapped,
            proof=joining.main_proof(JoinToken(TOKEN.encode()), agreed, wrapped),
            key_id=key_id.hex(),
            main_instance_id="fuzzer",
            ttl_ms=86_400_000,
        )
        await context.write(main_pb.MainMessage(admitted=admitted))
        while isinstance(message := await context.read(), main_pb.WorkerMessage):
            if message.HasField("ready"):
                self.instance_id = asked.instance_id
                self.joined.set()
                await context.write(main_pb.MainMessage(member=main_pb.Member(epoch=1)))
            elif message.HasField("heartbeat"):
                beat = main_pb.MainHeartbeat(
                    sequence=message.heartbeat.sequence, epoch=1, keyring=KEYRING.fingerprint
                )
                await context.write(main_pb.MainMessage(heartbeat=beat))


async def _full(call: Any) -> bool:
    """Whether a stream was turned away because its address had no place left.

    A client that writes when that happens hears only of its own library's trouble.
    """
    details = await call.details() or ""
    return "too many callers" in details or details == CLOSED_MEANWHILE


class ProcSide(Side):
    """A main worker, or somebody who would like to be one, to a real proc worker."""

    def __init__(self, port: int, tally: Tally) -> None:
        super().__init__(port, tally)
        self._requests = request_seeds()
        self._request_change = message_change(data_pb.Request)
        self._batch_change = message_change(data_pb.RequestBatch)
        self.kinds += [self.strangers, *[self.batches] * 5]

    async def strangers(self, random: Random, channel: grpc.aio.Channel) -> None:
        """Streams without a proof, or with a wrong one: none is served."""
        call = channel.stream_stream(_EXCHANGE, bytes, bytes)()  # type: ignore[call-arg]
        hello = data_pb.RequestBatch(hello=data_pb.Hello(nonce_main=b"n" * 32)).SerializeToString()
        proof = data_pb.RequestBatch(hello=data_pb.Hello(proof=random.randbytes(32))).SerializeToString()
        parts = [hello, proof, self._batch(random)]
        if random.random() < 0.5:
            parts = unframed(sequence_change(self._batch_change)(random, framed(parts), framed(parts)))
        replies = await self._say(call, parts)
        if any(batch.replies for batch in replies):
            self.tally.found("a stranger was served", framed(parts))

    async def batches(self, random: Random, channel: grpc.aio.Channel) -> None:
        """Streams of the main worker, which holds the link key, and says anything on them."""
        call = channel.stream_stream(_EXCHANGE, bytes, bytes)()  # type: ignore[call-arg]
        replied = 0
        try:
            await call.write(
                EncodedRequestBatch(hello=data_pb.Hello(nonce_main=b"n" * 32)).SerializeToString()
            )
            answer = await call.read()
            if not isinstance(answer, bytes):
                if await _full(call):
                    await self._again(random, channel)
                else:
                    self.tally.found("the holder of the link key was refused")
                return
            welcome = data_pb.ReplyBatch.FromString(answer).welcome
            proof = joining.link_proof(LINK_KEY, "main", b"n" * 32, welcome.nonce_worker)
            parts = [EncodedRequestBatch(hello=data_pb.Hello(proof=proof)).SerializeToString()]
            parts += [self._batch(random) for _ in range(random.randrange(1, 12))]
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            if await _full(call):
                # The strangers of this harness come from the same address, and fill its places.
                await self._again(random, channel)
                return
            self.tally.found(f"the holder of the link key could not open a stream: {await call.code()}")
            return
        for batch in await self._say(call, parts):
            for reply in batch.replies:
                replied += 1
                kind = types_pb2.ErrorKind.Name(reply.error.kind) if reply.HasField("error") else "OK"
                self.tally.answers[f"reply {kind.removeprefix('ERROR_KIND_')}"] += 1
                if reply.error.kind == types_pb2.ERROR_KIND_INTERNAL:
                    self.tally.found(f"replied INTERNAL {reply.error.detail!r}", framed(parts))

    async def _again(self, random: Random, channel: grpc.aio.Channel) -> None:
        self.tally.answers["places full"] += 1
        await asyncio.sleep(AGAIN_S)
        await self.batches(random, channel)

    def _batch(self, random: Random) -> bytes:
        draw = random.random()
        if draw < 0.08:
            return random.randbytes(random.randrange(200))
        if draw < 0.16:
            return message_filled(random, data_pb.RequestBatch(), 0.7).SerializeToString() + unknown_field(
                random
            )
        chosen: list[bytes] = []
        for number in random.sample(range(1, 200), random.randrange(1, 12)):
            message = data_pb.Request.FromString(random.choice(self._requests))
            message.id = number
            if message.shard > 0:
                # A term that is too high closes its shard to all who come after: so not always the same.
                message.shard = random.randrange(1024)
            data = message.SerializeToString()
            if random.random() < 0.6:
                data = self._request_change(random, data, data)
            if random.random() < 0.001:
                data += b"\x42" + varint(8 << 20) + bytes(8 << 20)
            chosen.append(data)
        cancelled = [random.randrange(200)] if random.random() < 0.2 else []
        return EncodedRequestBatch(requests=chosen, cancelled=cancelled).SerializeToString()

    async def _say(self, call: grpc.aio.StreamStreamCall, parts: list[bytes]) -> list[data_pb.ReplyBatch]:  # type: ignore[type-arg]
        """Send the parts, and return what came until nothing came any more."""
        heard: list[data_pb.ReplyBatch] = []

        async def listen() -> None:
            while isinstance(answer := await call.read(), bytes):
                heard.append(data_pb.ReplyBatch.FromString(answer))

        listening = asyncio.create_task(listen())
        error: grpc.aio.AioRpcError | None = None
        try:
            for part in parts:
                self.sent(max(1, _requests_in(part)))
                await call.write(part)
                await asyncio.sleep(0.005)
            await asyncio.wait({listening}, timeout=QUIET_S)
            await call.done_writing()
            await listening
        except grpc.aio.AioRpcError as exc:
            error = exc
        except asyncio.InvalidStateError:
            pass
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        code = await call.code()
        if error is None and code is not grpc.StatusCode.OK:
            error = grpc.aio.AioRpcError(
                code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=await call.details()
            )
        self.ended(error, framed(parts))
        return heard


def _requests_in(part: bytes) -> int:
    try:
        batch = EncodedRequestBatch.FromString(part)
        return len(batch.requests) + len(batch.reads.id)
    except DecodeError:
        return 1


def fuzz_proc(started: PlantedPrograms, folder: Path, messages: int, seed: int) -> tuple[Tally, float]:
    """Messages to a real proc worker, whose main worker is the harness."""
    return asyncio.run(_fuzz_proc(started, folder, messages, seed))


async def _fuzz_proc(started: PlantedPrograms, folder: Path, messages: int, seed: int) -> tuple[Tally, float]:
    tally = Tally()
    server = channels.new_server()
    fake = FakeMain()
    main_grpc.add_MainWorkerServicer_to_server(fake, server)
    main_port, port = channels.listen(server, "127.0.0.1:0"), free_port()
    await server.start()
    worker: Program = started.start(
        "proc-worker",
        f"-main-addr=127.0.0.1:{main_port}",
        f"-grpc-addr=127.0.0.1:{port}",
        "-worker-id=one",
        f"-shared-fs={folder / 'db'}",
        "-cache-bytes=16MiB",
        environ={"JOIN_TOKEN": TOKEN},
    )
    try:
        async with asyncio.timeout(30):
            await fake.joined.wait()
        watch = Watch(tally, {"proc worker": worker})
        side = ProcSide(port, tally)
        begun = time.monotonic()
        await go_on(side, watch, messages, seed)
        seconds = time.monotonic() - begun
        if watch.alive() and not tally.wrong:
            async with channels.open_channel(f"127.0.0.1:{port}") as channel:
                before = tally.answers.total()
                await side.batches(Random(7), channel)
                if tally.answers.total() == before:
                    tally.found("does not serve any more")
        watch.judge()
        return tally, seconds
    finally:
        await server.stop(None)
