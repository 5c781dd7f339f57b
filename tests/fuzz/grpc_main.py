"""Messages over sockets to a real main worker: clients, and workers that join, with and without token."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from random import Random

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from support.programs import free_port, wait_until_ready

from deltadatabase.auth import join as joining
from deltadatabase.auth.join import JoinContext, JoinToken
from deltadatabase.limits import GRPC_MESSAGE_BYTES_MAX_DEFAULT
from deltadatabase.rpc import channels
from deltadatabase.rpc.pb import main_worker_pb2 as main_pb
from fuzz.grpc_side import TOKEN, Side, go_on, varint
from fuzz.mutate import (
    message_change,
    message_changed,
    sequence_change,
    unframed,
    unknown_field,
)
from fuzz.plants import PlantedPrograms
from fuzz.sockets import ADMIN_KEY, make_key, still_serves
from fuzz.targets.control import join_seeds
from fuzz.verdicts import Tally, Watch

ANSWER_S = 0.03
_SUBSCRIBE = f"/{channels.MAIN_WORKER_SERVICE}/Subscribe"
_PROCESS = f"/{channels.MAIN_WORKER_SERVICE}/Process"


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
                    b"\x22" + varint(GRPC_MESSAGE_BYTES_MAX_DEFAULT) + bytes(GRPC_MESSAGE_BYTES_MAX_DEFAULT)
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
    asyncio.run(go_on(side, watch, messages, seed))
    seconds = time.monotonic() - begun
    if watch.alive():
        with contextlib.suppress(AssertionError):
            wait_until_ready(url, main, timeout_s=15)
        still_serves(url, tally)
    watch.judge()
    return tally, seconds
