"""Messages over sockets to both gRPC ports of real processes: with and without token, key and link key.

The harness takes both parts. To the real main worker it is clients and workers that join; to a
real proc worker it is the main worker that this one joins, so that it knows the link key.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from support.programs import Program, free_port, wait_until_ready

from deltadatabase.auth import join as joining
from deltadatabase.auth.join import JoinContext, JoinToken
from deltadatabase.crypto.wrap import wrap
from deltadatabase.limits import GRPC_MESSAGE_BYTES_MAX_DEFAULT, SHARD_COUNT_MAX
from deltadatabase.rpc import channels
from deltadatabase.rpc.pb import main_worker_pb2 as main_pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as main_grpc
from deltadatabase.rpc.pb import proc_worker_pb2 as data_pb
from deltadatabase.rpc.pb import types_pb2
from deltadatabase.rpc.pb.proc_worker_pb2 import EncodedRequestBatch
from fuzz.mutate import (
    framed,
    message_change,
    message_changed,
    message_filled,
    sequence_change,
    unframed,
    unknown_field,
)
from fuzz.plants import PlantedPrograms
from fuzz.sockets import ADMIN_KEY, make_key, still_serves
from fuzz.targets.control import join_seeds
from fuzz.targets.stack import KEYRING
from fuzz.targets.wire import requests as request_seeds
from fuzz.verdicts import Tally, Watch

TOKEN = "the-join-token-of-the-tests"
LINK_KEY = b"k" * joining.LINK_KEY_BYTES
CALL_S = 15.0
QUIET_S = 0.15
ANSWER_S = 0.03
TASKS = 12
_SUBSCRIBE = f"/{channels.MAIN_WORKER_SERVICE}/Subscribe"
_PROCESS = f"/{channels.MAIN_WORKER_SERVICE}/Process"
_EXCHANGE = f"/{channels.PROC_WORKER_SERVICE}/Exchange"
_OTHERS = (
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/deltadatabase.v1.MainWorker/Nothing",
    "/",
    "/a",
)
# Both are known, and are mistakes all the same: test_known.py.
_UNDECODABLE = "google.protobuf.message.DecodeError"
_BAD_PATH = "an object's path has an empty part or one that begins with a dot"
_CLOSED_MEANWHILE = "Internal error from Core"
"""What the client's own library says when it writes on a call that the other end has ended."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Side:
    """Messages to one port. ``kinds`` are drawn with equal chances."""

    def __init__(self, port: int, tally: Tally) -> None:
        self.port = port
        self.tally = tally
        self.kinds: list[Callable[[Random, grpc.aio.Channel], object]] = [self.garbage, self.other]
        self._left = 0

    async def run(self, messages: int, seed: object) -> None:
        """Send about so many messages."""
        self._left = messages
        random = Random(f"{seed}/{self.port}")
        await asyncio.gather(*(self._task(Random(random.random())) for _ in range(TASKS)))

    async def _task(self, random: Random) -> None:
        while self._left > 0 and not self.tally.wrong:
            async with channels.open_channel(
                f"127.0.0.1:{self.port}", message_bytes_max=256 << 20
            ) as channel:
                for _ in range(40):
                    if self._left <= 0 or self.tally.wrong:
                        break
                    try:
                        async with asyncio.timeout(CALL_S):
                            await random.choice(self.kinds)(random, channel)  # type: ignore[misc]
                    except TimeoutError:
                        self.tally.found(f"a call did not end in {CALL_S:.0f} s")

    def sent(self, messages: int = 1) -> None:
        """Count messages that went out."""
        self.tally.sent += messages
        self._left -= messages

    def ended(self, error: grpc.aio.AioRpcError | None, data: bytes = b"") -> None:
        """Count how a call ended."""
        code = grpc.StatusCode.OK if error is None else error.code()
        detail = "" if error is None else (error.details() or "")
        if detail == _CLOSED_MEANWHILE:
            self.tally.answers["closed meanwhile"] += 1
            return
        if _UNDECODABLE in detail:
            self.tally.answers["undecodable"] += 1
            return
        self.tally.answers[code.name] += 1
        if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS):
            self.tally.found(f"ended with {code.name} {detail[:300]!r}", data)

    async def garbage(self, random: Random, _channel: grpc.aio.Channel) -> None:
        """Bytes that are no gRPC, or begin like it."""
        data = random.choice(
            (
                random.randbytes(random.randrange(1, 300)),
                _PREFACE + random.randbytes(random.randrange(1, 300)),
                _PREFACE + b"\0\0\0\4\0\0\0\0\0" + _frame(random) + _frame(random),
                b"GET / HTTP/1.1\r\n\r\n",
                b"\x16\x03\x01" + random.randbytes(100),
            )
        )
        self.sent()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(data)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read(1 << 16)
            writer.close()
            await writer.wait_closed()
        except OSError:
            pass
        self.tally.answers["garbage"] += 1

    async def other(self, random: Random, channel: grpc.aio.Channel) -> None:
        """Other services, and none."""
        data = random.randbytes(random.randrange(60))
        self.sent()
        try:
            await channel.unary_unary(random.choice(_OTHERS), bytes, bytes)(data, timeout=5)
        except grpc.aio.AioRpcError as exc:
            if exc.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL):
                self.tally.answers[f"other {exc.code().name}"] += 1  # Of gRPC's own services.
            else:
                self.ended(exc, data)
        else:
            self.tally.answers["OK"] += 1


def _frame(random: Random) -> bytes:
    body = random.randbytes(random.randrange(40))
    size = random.choice((len(body), len(body) + 1, 0, 2**24 - 1))
    return (
        size.to_bytes(3, "big")
        + bytes((random.randrange(12), random.randrange(256)))
        + random.randbytes(4)
        + body
    )


# The main worker's port


class MainSide(Side):
    """Clients and workers to a real main worker."""

    def __init__(self, port: int, tally: Tally, keys: list[str]) -> None:
        super().__init__(port, tally)
        self._keys = keys
        self._seeds = join_seeds()
        self._change = sequence_change(message_change(main_pb.WorkerMessage))
        self._call_change = message_change(main_pb.ProcessRequest)
        self.kinds += [self.client, self.client, self.client, self.joins, self.joins, self.joins]

    async def client(self, random: Random, channel: grpc.aio.Channel) -> None:
        """Calls as a gRPC client makes them."""
        call = channel.unary_unary(_PROCESS, bytes, bytes)
        key = random.choice(self._keys)
        seed = main_pb.ProcessRequest(
            op=random.choice((1, 2, 3, 10, 11, 12, 13)),  # type: ignore[arg-type]
            schema_id="notes",
            key=random.choice(("a", "b")),
            document=b'{"a": 1}',
        ).SerializeToString()
        for _ in range(random.randrange(1, 30)):
            data = self._call_change(random, seed, b"") if random.random() < 0.8 else seed
            if random.random() < 0.002:
                data = (
                    b"\x22" + _varint(GRPC_MESSAGE_BYTES_MAX_DEFAULT) + bytes(GRPC_MESSAGE_BYTES_MAX_DEFAULT)
                )
            self.sent()
            try:
                await call(data, metadata=(("authorization", f"Bearer {key}"),) if key else ())
            except grpc.aio.AioRpcError as exc:
                self.ended(exc, data)
            else:
                self.tally.answers["OK"] += 1

    async def joins(self, random: Random, channel: grpc.aio.Channel) -> None:
        """A worker that joins, with the token or without, and says anything."""
        proves = random.random() < 0.8
        data = self._change(random, random.choice(self._seeds), random.choice(self._seeds))
        parts = unframed(data)
        if parts and random.random() < 0.5:
            with contextlib.suppress(DecodeError):
                first = main_pb.WorkerMessage.FromString(parts[0])
                if first.HasField("join"):
                    message_changed(random, first.join)
                    parts[0] = first.SerializeToString()
        call = channel.stream_stream(_SUBSCRIBE, bytes, bytes)()  # type: ignore[call-arg]
        asked, nonce = main_pb.Join(), b""
        ended: grpc.aio.AioRpcError | None = None
        heard = asyncio.Event()

        async def listen() -> None:
            nonlocal nonce
            while isinstance(answer := await call.read(), bytes):
                told = main_pb.MainMessage.FromString(answer)
                self.tally.answers[f"main {told.WhichOneof('message')}"] += 1
                nonce = told.challenge.nonce or nonce
                heard.set()

        listening = asyncio.create_task(listen())
        try:
            for part in parts:
                if random.random() < 0.05:
                    part += unknown_field(random)
                with contextlib.suppress(DecodeError):
                    message = main_pb.WorkerMessage.FromString(part)
                    if message.HasField("join"):
                        asked = message.join
                    if message.HasField("proof") and proves:
                        message.proof.proof = _proof(asked, nonce)
                        part = message.SerializeToString()
                    if message.HasField("ready"):
                        # Others are known: test_known.py.
                        store = message.ready.store.database
                        store.shards = min(max(store.shards, 1), SHARD_COUNT_MAX)
                        # Only the database in use may become bound, or the main worker takes no other.
                        part = message.SerializeToString()
                self.sent()
                heard.clear()
                await call.write(part)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER_S):
                        await heard.wait()
            await call.done_writing()
            await listening
        except grpc.aio.AioRpcError as exc:
            ended = exc
        except asyncio.InvalidStateError:
            pass  # It ended before we did.
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        code = await call.code()
        if ended is None and code is not grpc.StatusCode.OK:
            ended = grpc.aio.AioRpcError(
                code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=await call.details()
            )
        self.ended(ended, data)


def _proof(asked: main_pb.Join, nonce: bytes) -> bytes:
    context = JoinContext(
        server_nonce=nonce,
        worker_nonce=asked.nonce,
        worker_id=asked.worker_id,
        instance_id=asked.instance_id,
        public_key=asked.public_key,
        grpc_addr=asked.grpc_addr,
    )
    return joining.worker_proof(JoinToken(TOKEN.encode()), context)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes((*encoded, number))


# The proc worker's port


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
        )
        await context.write(main_pb.MainMessage(admitted=admitted))
        while isinstance(message := await context.read(), main_pb.WorkerMessage):
            if message.HasField("ready"):
                self.instance_id = asked.instance_id
                self.joined.set()
                await context.write(main_pb.MainMessage(member=main_pb.Member(epoch=1)))
            elif message.HasField("heartbeat"):
                beat = main_pb.MainHeartbeat(sequence=message.heartbeat.sequence, epoch=1)
                await context.write(main_pb.MainMessage(heartbeat=beat))


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
                self.tally.found("the holder of the link key was refused")
                return
            welcome = data_pb.ReplyBatch.FromString(answer).welcome
            proof = joining.link_proof(LINK_KEY, "main", b"n" * 32, welcome.nonce_worker)
            parts = [EncodedRequestBatch(hello=data_pb.Hello(proof=proof)).SerializeToString()]
            parts += [self._batch(random) for _ in range(random.randrange(1, 12))]
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self.tally.found("the holder of the link key could not open a stream")
            return
        for batch in await self._say(call, parts):
            for reply in batch.replies:
                replied += 1
                kind = types_pb2.ErrorKind.Name(reply.error.kind) if reply.HasField("error") else "OK"
                self.tally.answers[f"reply {kind.removeprefix('ERROR_KIND_')}"] += 1
                if reply.error.kind == types_pb2.ERROR_KIND_INTERNAL and reply.error.detail != _BAD_PATH:
                    self.tally.found(f"replied INTERNAL {reply.error.detail!r}", framed(parts))

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
                data += b"\x42" + _varint(8 << 20) + bytes(8 << 20)
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
        return len(EncodedRequestBatch.FromString(part).requests)
    except DecodeError:
        return 1


# Runs


def fuzz_main(started: PlantedPrograms, folder: Path, messages: int, seed: int) -> tuple[Tally, float]:
    """Messages to a real main worker, which has one real proc worker."""
    tally = Tally()
    rest, port = free_port(), free_port()
    url = f"http://127.0.0.1:{rest}"
    environ = {"JOIN_TOKEN": TOKEN, "MASTER_KEY": "5d" * 32, "ADMIN_KEY": ADMIN_KEY}
    store = f"-shared-fs={folder / 'db'}"
    main = started.start(
        "main-worker",
        f"-rest-addr=127.0.0.1:{rest}",
        f"-grpc-addr=127.0.0.1:{port}",
        f"-state-dir={folder / 'state'}",
        store,
        environ=environ,
    )
    worker = started.start(
        "proc-worker",
        f"-main-addr=127.0.0.1:{port}",
        "-worker-id=one",
        store,
        "-cache-bytes=16MiB",
        environ=environ,
    )
    wait_until_ready(url, main)
    keys = [ADMIN_KEY, ADMIN_KEY, make_key(url, "read")[1], "wrong", ""]
    watch = Watch(tally, {"main worker": main, "proc worker": worker})
    side = MainSide(port, tally, keys)
    begun = time.monotonic()
    asyncio.run(_go_on(side, watch, messages, seed))
    seconds = time.monotonic() - begun
    if watch.alive():
        with contextlib.suppress(AssertionError):
            wait_until_ready(url, main, timeout_s=15)
        still_serves(url, tally)
    watch.judge()
    return tally, seconds


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
        await _go_on(side, watch, messages, seed)
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


async def _go_on(side: Side, watch: Watch, messages: int, seed: int) -> None:
    await side.run(messages // 4, seed)
    watch.begin()
    while side.tally.sent < messages and not side.tally.wrong and watch.alive():
        await side.run(min(5000, messages - side.tally.sent), f"{seed}/{side.tally.sent}")
