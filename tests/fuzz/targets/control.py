"""The control plane, both ends; calls of gRPC clients; and the keys that travel on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from support.clocks import SeededRandom

from deltadatabase.auth import join as joining
from deltadatabase.auth.join import JoinContext, JoinPolicy, JoinToken
from deltadatabase.clock import SystemClock, system_random
from deltadatabase.crypto.keyring import Keyring
from deltadatabase.crypto.wrap import WrapKey, wrap
from deltadatabase.errors import Invalid, StartupError, Unauthenticated, Unavailable
from deltadatabase.gateway.admission import Admissions
from deltadatabase.gateway.control import ControlPlane
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.keys import Keys
from deltadatabase.gateway.members import Cluster
from deltadatabase.gateway.process import ClientCalls
from deltadatabase.model import Command, Result, StoreSight
from deltadatabase.rpc.convert import encode_store_report
from deltadatabase.rpc.doorway import Doorway, places_for
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.telemetry.audit import Audit
from deltadatabase.worker.asking import Applicant
from deltadatabase.worker.membership import Identity, MembershipClient, MembershipLease
from fuzz.engine import Target, Wrong
from fuzz.mutate import bytes_changed, framed, message_change, sequence_change, unframed
from fuzz.targets.stack import ADMIN_KEY, KEYRING, Loop, Stack, State, report
from fuzz.targets.wire import Aborted

TOKEN = JoinToken(b"the-join-token-of-the-fuzzer")
RESTART_EVERY = 500


class Link:
    """A data link to a worker that does everything it is told."""

    local = False

    def cached(self, command: Command) -> Result | None:
        return None

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    async def call(self, command: Command) -> Result:
        return Result(found=True, number=command.number)

    async def close(self) -> None:
        self.lost.set()


class Worker:
    """Stands for gRPC on the main worker's end: sends the input's messages, and a proof where one is due."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self._join = pb.Join()
        self._renew: pb.Renew | None = None
        self._nonce = b""
        self.sent: list[pb.MainMessage] = []

    def peer(self) -> str:
        return "ipv4:127.0.0.1:50000"

    async def read(self) -> object:
        await asyncio.sleep(0)
        while self._parts:
            data = self._parts.pop(0)
            try:
                message = pb.WorkerMessage.FromString(data)
            except DecodeError:
                return data
            if message.HasField("join"):
                self._join = message.join
            elif message.HasField("renew"):
                self._renew = message.renew
            elif message.HasField("proof") and not message.proof.proof:
                message.proof.proof = joining.worker_proof(TOKEN, self._context())
            return message.SerializeToString()
        for _ in range(20):
            await asyncio.sleep(0)
        return grpc.aio.EOF

    async def abort(self, status: grpc.StatusCode, detail: str) -> None:
        if status is not grpc.StatusCode.INVALID_ARGUMENT:
            raise Wrong(f"aborted with {status}")
        raise Aborted

    async def write(self, message: pb.MainMessage) -> None:
        self.sent.append(message)
        if message.HasField("challenge"):
            self._nonce = message.challenge.nonce

    def _context(self) -> JoinContext:
        asked, fresh = self._join, self._renew or self._join
        return JoinContext(
            server_nonce=self._nonce,
            worker_nonce=fresh.nonce,
            worker_id=asked.worker_id,
            instance_id=asked.instance_id,
            public_key=fresh.public_key,
            grpc_addr=asked.grpc_addr,
            purpose="join" if self._renew is None else "renew",
        )


def join_seeds() -> list[bytes]:
    key = WrapKey.generate()
    join = pb.Join(
        worker_id="proc-1",
        instance_id="i7",
        public_key=key.public_bytes,
        nonce=b"n" * 32,
        grpc_addr="127.0.0.1:50052",
        backend="s3",
        version="1",
        message_bytes_max=1 << 25,
    )
    story = [
        pb.WorkerMessage(join=join),
        pb.WorkerMessage(proof=pb.Proof()),
        pb.WorkerMessage(ready=pb.Ready(store=encode_store_report(report()))),
        pb.WorkerMessage(heartbeat=pb.WorkerHeartbeat(sequence=1, highest_epoch_stored=1, store=1)),
        pb.WorkerMessage(templates=pb.TemplateSnapshot(etags={"notes": "1", "chat.v1": "2"})),
        pb.WorkerMessage(renew=pb.Renew(public_key=key.public_bytes, nonce=b"r" * 32)),
        pb.WorkerMessage(proof=pb.Proof()),
        pb.WorkerMessage(drain=pb.Drain()),
        pb.WorkerMessage(heartbeat=pb.WorkerHeartbeat(sequence=2, store=2)),
    ]
    parts = [message.SerializeToString() for message in story]
    failed = pb.WorkerMessage(start_failed=pb.StartFailed(code="store_refused", detail="d"))
    return [
        framed(parts),
        framed(parts[:4]),
        framed((*parts[:2], failed.SerializeToString())),
        framed(parts[:1]),
    ]


def join(_folder: Path) -> Target:
    """Workers that join the main worker, most of them with a proof that is right."""
    loop = Loop()
    count = 0
    plane: ControlPlane
    cluster: Cluster

    async def dial(address: str, link_key: bytes, instance_id: str, message_bytes_max: int) -> Link:
        return Link()

    async def process(request: object, context: object) -> pb.ProcessResponse:
        return pb.ProcessResponse()

    def restart() -> None:
        nonlocal plane, cluster
        clock = SystemClock()
        router = Router(clock=clock, random=SeededRandom(1))
        keys = Keys(KEYRING)
        cluster = Cluster(router, State(), clock=clock, random=SeededRandom(2), keys=keys)  # type: ignore[arg-type]
        plane = ControlPlane(
            cluster,
            Admissions(keys, JoinPolicy(explicit=TOKEN), random=SeededRandom(3), instance_id="main"),
            dial=dial,
            process=process,
            clock=clock,
            random=SeededRandom(4),
            audit=Audit(clock),
            doorway=Doorway(places_for(1 << 20)),
        )

    restart()

    async def run(data: bytes) -> Worker:
        worker = Worker(unframed(data))
        with contextlib.suppress(Aborted):
            await plane.subscribe(None, worker)  # type: ignore[arg-type]
        return worker

    def check(data: bytes) -> None:
        nonlocal count
        count += 1
        if count % RESTART_EVERY == 0 or cluster.readiness()[-1].passed is False:
            loop.run(cluster.close())
            restart()
        loop.run(run(data))
        if cluster.store_reports():
            raise Wrong("a worker that went away is still a member")
        cluster.members()
        cluster.readiness()

    return Target("join", check, join_seeds(), sequence_change(message_change(pb.WorkerMessage)), loop.close)


# The worker's end


class Polled:
    async def templates(self) -> dict[str, str]:
        return {}

    async def highest_epoch(self) -> int:
        return 0

    async def look(self) -> StoreSight:
        return StoreSight.HELD


class MainCall:
    """Stands for gRPC on the worker's end: a main worker that says what the input says."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self._join = pb.Join()
        self._renew: pb.Renew | None = None
        self._nonce = b""

    async def write(self, message: pb.WorkerMessage) -> None:
        await asyncio.sleep(0)
        if message.HasField("join"):
            self._join = message.join
        elif message.HasField("renew"):
            self._renew = message.renew

    async def read(self) -> object:
        await asyncio.sleep(0)
        while self._parts:
            try:
                message = pb.MainMessage.FromString(self._parts.pop(0))
            except DecodeError:
                raise grpc.aio.AioRpcError(
                    grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata()
                ) from None
            if message.HasField("challenge"):
                self._nonce = message.challenge.nonce
                if self._renew is not None and not message.challenge.worker_nonce:
                    message.challenge.worker_nonce = self._renew.nonce
            elif message.HasField("admitted") and not message.admitted.wrapped:
                self._admit(message.admitted)
            return message
        return grpc.aio.EOF

    def _admit(self, admitted: pb.Admitted) -> None:
        asked, fresh = self._join, self._renew or self._join
        agreed = JoinContext(
            server_nonce=self._nonce,
            worker_nonce=fresh.nonce,
            worker_id=asked.worker_id,
            instance_id=asked.instance_id,
            public_key=fresh.public_key,
            grpc_addr=asked.grpc_addr,
            purpose="join" if self._renew is None else "renew",
        )
        key_id = KEYRING.primary.key_id
        link_key = b"" if self._renew else b"l" * joining.LINK_KEY_BYTES
        payload = link_key + KEYRING.to_payload()
        admitted.wrapped = wrap(fresh.public_key, payload, joining.wrap_info(agreed, key_id))
        admitted.proof = joining.main_proof(TOKEN, agreed, admitted.wrapped)
        admitted.key_id = key_id.hex()
        admitted.worker_nonce = fresh.nonce

    async def done_writing(self) -> None:
        """Nothing more comes."""

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def cancel(self) -> bool:
        return True


class Channel:
    def __init__(self, call: MainCall) -> None:
        self._call = call

    def stream_stream(self, *_: object, **__: object) -> Callable[[], MainCall]:
        return lambda: self._call

    unary_unary = stream_stream


def membership(_folder: Path) -> Target:
    """A worker whose main worker says anything at all."""
    loop = Loop()
    clock = SystemClock()

    async def opened(keyring: Keyring) -> tuple[Any, Any, Any]:
        return report(), Polled(), Polled()

    async def rekeyed(keyring: Keyring) -> None:
        """Nothing has to be done."""

    async def run(data: bytes) -> Identity:
        identity = Identity()
        applicant = Applicant(
            worker_id="proc-1",
            grpc_addr="127.0.0.1:1",
            backend="s3",
            token=lambda: TOKEN,
            trusts_unproven=False,
            version="1",
            message_bytes_max=1 << 20,
        )
        client = MembershipClient(
            applicant,
            identity,
            MembershipLease(clock),
            opened,
            rekeyed,
            on_member=lambda: None,
            clock=clock,
            random=system_random,
        )
        try:
            await client.stay(Channel(MainCall(unframed(data))))  # type: ignore[arg-type]
        except (Unavailable, StartupError):
            pass
        return identity

    def check(data: bytes) -> None:
        if loop.run(run(data)).link_key:
            raise Wrong("a link key outlived its membership")

    story = [
        pb.MainMessage(challenge=pb.Challenge(nonce=b"s" * 32, proof_required=True)),
        pb.MainMessage(admitted=pb.Admitted()),
        pb.MainMessage(member=pb.Member(epoch=3)),
        pb.MainMessage(heartbeat=pb.MainHeartbeat(sequence=1, epoch=3, poll_templates=True)),
        pb.MainMessage(heartbeat=pb.MainHeartbeat(sequence=2, epoch=3, keyring=b"another")),
        pb.MainMessage(challenge=pb.Challenge(nonce=b"t" * 32, proof_required=True)),
        pb.MainMessage(admitted=pb.Admitted(ttl_ms=60_000)),
        pb.MainMessage(drained=pb.Drained()),
    ]
    parts = [message.SerializeToString() for message in story]
    refused = pb.MainMessage(refused=pb.Refused(code="denied", detail="d")).SerializeToString()
    replaced = pb.MainMessage(replaced=pb.Replaced()).SerializeToString()
    seeds = [framed(parts), framed((parts[0], refused)), framed((*parts[:3], replaced))]
    return Target("membership", check, seeds, sequence_change(message_change(pb.MainMessage)), loop.close)


# Keys


def keys(_folder: Path) -> Target:
    """The wrapped keyring: opened only as it was sealed."""
    key = WrapKey.generate()
    payload = b"l" * joining.LINK_KEY_BYTES + KEYRING.to_payload()
    good = wrap(key.public_bytes, payload, b"info")

    def check(data: bytes) -> None:
        try:
            unwrapped = key.unwrap(data, b"info")
        except Unauthenticated:
            pass
        else:
            if data != good or unwrapped != payload:
                raise Wrong("unwrapped what nobody wrapped")
        for part in (data, data[32:], payload[: len(data) % 100]):
            try:
                keyring = Keyring.from_payload(part)
            except Invalid:
                continue
            if Keyring.from_payload(keyring.to_payload()).ids != keyring.ids:
                raise Wrong("a keyring does not survive its own notation")
        try:
            wrap(data[:32], b"x", b"info")
        except Invalid:
            pass

    def changed(random: Random, data: bytes, other: bytes) -> bytes:
        if random.random() < 0.05:
            return random.choice((bytes(32), b"\1" + bytes(31), b"\xff" * 32)) + data[32:]
        return bytes_changed(random, data, other)

    return Target("wrapped-keys", check, [good, b"\1" + b"k" * 64, b"\1" + b"k" * 32], changed)


# Calls of gRPC clients


class ClientContext:
    def __init__(self) -> None:
        self.status: grpc.StatusCode | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {ADMIN_KEY}"),)

    def set_trailing_metadata(self, metadata: object) -> None:
        """Seen by a client."""

    def peer(self) -> str:
        return "ipv4:127.0.0.1:50000"

    async def abort(self, code: grpc.StatusCode, detail: str) -> None:
        self.status = code
        raise Aborted


ANSWERS = frozenset(grpc.StatusCode) - {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
}


def process(folder: Path) -> Target:
    """Unary calls, through the router down to the stored object."""
    stack = Stack(folder)
    count = 0

    async def run(data: bytes) -> None:
        try:
            message = pb.ProcessRequest.FromString(data)
        except DecodeError:
            return
        context = ClientContext()
        calls = ClientCalls(
            stack.router, stack.accounts, document_bytes_max=100_000, audit=Audit(SystemClock())
        )
        try:
            answer = await calls(message, context)  # type: ignore[arg-type]
        except Aborted:
            if context.status not in ANSWERS:
                raise Wrong(f"answered {context.status}") from None
        else:
            pb.ProcessResponse.FromString(answer.SerializeToString())

    def check(data: bytes) -> None:
        nonlocal count
        count += 1
        if count % 300 == 0:
            stack.restart()
        stack.loop.run(run(data))

    seeds = [
        pb.ProcessRequest(op=op, schema_id="notes", key="a", document=b'{"a": 1}').SerializeToString()  # type: ignore[arg-type]
        for op in (1, 2, 3, 10, 11, 12, 13, 14, 20)
    ]
    return Target("process", check, seeds, message_change(pb.ProcessRequest), stack.close)
