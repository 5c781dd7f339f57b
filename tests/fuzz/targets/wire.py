"""The data stream between main worker and proc worker: every message of either end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import grpc
import grpc.aio
from contract.links import INSTANCE, counting_random, secret
from google.protobuf.message import DecodeError
from support.fake_store import FakeStore

from deltadatabase.clock import system_random
from deltadatabase.errors import DeltaError, Invalid, Unauthenticated, Unavailable
from deltadatabase.model import Command, Op, Result
from deltadatabase.rpc import convert, handshake
from deltadatabase.rpc.exchange import ExchangeService
from deltadatabase.rpc.handshake import LinkSecret
from deltadatabase.rpc.pb import proc_worker_pb2 as pb
from deltadatabase.rpc.pb import types_pb2
from deltadatabase.rpc.stream import WorkerStream
from fuzz.engine import Target, Wrong
from fuzz.mutate import framed, message_change, sequence_change, unframed
from fuzz.targets.stack import Loop, make_node

LINK_KEY = b"the link key of the fuzzer"
GREETED = b"greeted"
"""The first part of an input, where the harness does the handshake and the rest are batches."""


def commands() -> list[Command]:
    name = {"schema_id": "notes", "key": "first", "shard": 3, "term": 1}
    write = {**name, "write_id": b"\1" * 16}
    return [
        Command(op=Op.GET, **name),  # type: ignore[arg-type]
        Command(op=Op.GET, if_none_match=("*", '"1-aa"'), **name),  # type: ignore[arg-type]
        Command(op=Op.PUT, document=b'{"a": 1}', if_match=('"1-aa"',), **write),  # type: ignore[arg-type]
        Command(op=Op.PUT, document=b'{"a": 1}', revision=2, request_id="r", **write),  # type: ignore[arg-type]
        Command(op=Op.DELETE, **write),  # type: ignore[arg-type]
        Command(op=Op.RESOLVE, **write),  # type: ignore[arg-type]
        Command(op=Op.VALIDATE, document=b"{}", schema_hash="aa", **name),  # type: ignore[arg-type]
        Command(op=Op.SCHEMA_PUT, schema_id="notes", document=b'{"type": "object"}'),
        Command(op=Op.SCHEMA_GET, schema_id="notes"),
        Command(op=Op.SCHEMA_DELETE, schema_id="notes"),
        Command(op=Op.SCHEMA_LIST),
        Command(op=Op.NAMESPACES),
        Command(op=Op.RESERVE_EPOCHS, term=0, number=10_000, write_id=b"\2" * 16),
    ]


OF_A_READ = frozenset(
    {"id", "op", "schema_id", "key", "shard", "term", "if_none_match", "timeout_ms", "request_id"}
    | {"traceparent", "deleted"}
)


def requests() -> list[bytes]:
    return [
        convert.encode_request(number, command).SerializeToString()
        for number, command in enumerate(commands(), 1)
    ]


def check_request(data: bytes) -> None:
    """One request: a command that encodes to an equal request, or ``Invalid``; of a GET what it has."""
    try:
        message = pb.Request.FromString(data)
        command = convert.decode_request(message)
    except (DecodeError, Invalid):
        pb_id(data)
        return
    message.DiscardUnknownFields()
    if command.op is Op.GET:
        for field, _ in message.ListFields():
            if field.name not in OF_A_READ:
                message.ClearField(field.name)
    if convert.encode_request(message.id, command) != message:
        raise Wrong("a command does not survive its own notation")


def pb_id(data: bytes) -> None:
    """The id alone, as the worker reads it of what it cannot read whole."""
    try:
        pb.RequestId.FromString(data)
    except DecodeError:
        return


def request(_folder: Path) -> Target:
    return Target("stream-request", check_request, requests(), message_change(pb.Request))


def check_reply(data: bytes) -> None:
    """One reply: a result that encodes to an equal reply, or an error of the tree."""
    try:
        message = pb.Reply.FromString(data)
        result = convert.decode_reply(message)
    except (DecodeError, DeltaError) as exc:
        if isinstance(exc, DeltaError) and not exc.code:
            raise Wrong("an error without a code") from exc
        return
    message.DiscardUnknownFields()
    if convert.encode_reply(message.id, result) != message:
        raise Wrong("a result does not survive its own notation")


def reply(_folder: Path) -> Target:
    error = types_pb2.Error(kind=9, code="version_mismatch", detail="d", etag='"1-aa"', retry_after_ms=5)
    seeds = [
        pb.Reply(
            id=1, version=3, etag='"3-aa"', document=b"{}", updated_ms=5, names=["a"]
        ).SerializeToString(),
        pb.Reply(id=2, error=error).SerializeToString(),
    ]
    return Target("stream-reply", check_reply, seeds, message_change(pb.Reply))


class Aborted(Exception):
    """What gRPC raises into a handler that aborts its call."""


class Context:
    """Stands for gRPC on the worker's end: hands the input out, takes the answers in."""

    def __init__(self, parts: list[bytes], service: ExchangeService) -> None:
        self._parts = parts
        self._greeting = parts[:1] == [GREETED]
        if self._greeting:
            del parts[0]
        self._service = service
        self._prove = secret(LINK_KEY)[0]
        self._step = 0
        self.replies: list[pb.Reply] = []
        self.welcome: pb.Welcome | None = None
        self.aborted: grpc.StatusCode | None = None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:50000"

    async def read(self) -> object:
        self._step += 1
        await asyncio.sleep(0)
        if self._greeting and self._step == 1:
            return pb.RequestBatch(hello=pb.Hello(nonce_main=b"n" * 32)).SerializeToString()
        if self._greeting and self._step == 2:
            assert self.welcome is not None
            proof = self._prove("main", b"n" * 32, self.welcome.nonce_worker)
            return pb.RequestBatch(hello=pb.Hello(proof=proof)).SerializeToString()
        if self._parts:
            return self._parts.pop(0)
        # The end comes when everything is answered.
        for _ in range(10_000):
            if not self._service.in_flight:
                break
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return grpc.aio.EOF

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        batch = pb.ReplyBatch.FromString(data)
        if batch.HasField("welcome"):
            self.welcome = batch.welcome
        self.replies.extend(batch.replies)

    async def abort(self, code: grpc.StatusCode, detail: str) -> None:
        self.aborted = code
        raise Aborted


class Server:
    """Takes the service's handler in, as gRPC's server does."""

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        class Details:
            method = "/deltadatabase.v1.ProcWorker/Exchange"
            invocation_metadata = ()

        found = handlers[0].service(Details())  # type: ignore[arg-type]
        assert found is not None
        self.handle = found.stream_stream


def exchange(_folder: Path) -> Target:
    """Streams of batches to a whole worker on a store in memory."""
    loop = Loop()
    prove, verify = secret(LINK_KEY)

    async def run(data: bytes) -> Context:
        node = make_node(FakeStore())
        service = ExchangeService(
            node,
            prove=prove,
            verify=verify,
            random=counting_random(),
            instance_id=lambda: INSTANCE,
            handshake_timeout_s=1.0,
        )
        server = Server()
        service.register(server)  # type: ignore[arg-type]
        context = Context(unframed(data), service)
        try:
            await server.handle(None, context)  # type: ignore[misc]
        except Aborted:
            pass
        await service.settle(2.0)
        await node.settle(0.0)
        return context

    def check(data: bytes) -> None:
        context = loop.run(run(data))
        if context.aborted not in (None, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT):
            raise Wrong(f"the stream ended with {context.aborted}")
        for answered in context.replies:
            if answered.error.kind == types_pb2.ERROR_KIND_INTERNAL:
                raise Wrong(f"answered internal: {answered.error.code}")

    each = requests()
    reads = pb.Reads(
        id=[91, 92],
        schema_id=[b"notes", b"notes"],
        key=[b"a", b"b"],
        shard=[1, 2],
        term=[1, 1],
        timeout_ms=[1000, 1000],
        request_id=[b"r1", b"r2"],
    )
    seeds = [
        framed((GREETED, pb.EncodedRequestBatch(requests=each).SerializeToString())),
        framed((GREETED, *(pb.EncodedRequestBatch(requests=[one]).SerializeToString() for one in each))),
        framed((GREETED, pb.EncodedRequestBatch(requests=each[:2], cancelled=[1, 2]).SerializeToString())),
        framed((GREETED, pb.EncodedRequestBatch(reads=reads, requests=each[:1]).SerializeToString())),
        framed((pb.RequestBatch(hello=pb.Hello(nonce_main=b"n" * 32)).SerializeToString(), b"")),
        framed((b"", b"\xff\xff")),
    ]
    return Target("exchange", check, seeds, _stream_changed, loop.close)


_parts_changed = sequence_change(message_change(pb.RequestBatch))


def _stream_changed(random: Random, data: bytes, other: bytes) -> bytes:
    """Change what comes after the handshake, mostly: a peer that fails it is not heard at all."""
    first, *rest = unframed(data) or [b""]
    if random.random() < 0.1:
        return _parts_changed(random, data, other)
    changed = _parts_changed(random, framed(rest), framed(unframed(other)[1:]))
    return framed((GREETED if random.random() < 0.5 else first,)) + changed


class Call:
    """Stands for gRPC on the main worker's end of the handshake."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    async def write(self, data: bytes) -> None:
        pb.RequestBatch.FromString(data)

    async def read(self) -> object:
        return self._parts.pop(0) if self._parts else grpc.aio.EOF


def greeting(_folder: Path) -> Target:
    """What answers at a worker's address is believed only with a proof."""
    loop = Loop()
    prove, verify = secret(LINK_KEY)

    def check(data: bytes) -> None:
        mine = LinkSecret(prove, verify, system_random)
        try:
            loop.run(handshake.greet(Call(unframed(data)), mine, "main", INSTANCE))  # type: ignore[arg-type]
        except (Unauthenticated, Unavailable):
            return
        raise Wrong("a peer without the link key was believed")

    welcome = pb.Welcome(nonce_worker=b"w" * 32, proof=b"p" * 32, worker_instance_id=INSTANCE)
    seed = framed((pb.ReplyBatch(welcome=welcome).SerializeToString(),))
    return Target("greeting", check, [seed, b""], sequence_change(message_change(pb.ReplyBatch)), loop.close)


# The main worker's end of an open stream


class ReplyCall:
    """Stands for gRPC under a stream that is open: what a worker says, whatever that is."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts
        self._written = 0

    async def write(self, data: bytes) -> None:
        batch = pb.RequestBatch.FromString(data)
        self._written += len(batch.requests) + len(batch.reads.id)

    async def read(self) -> object:
        while self._written < len(ASKED):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self._parts.pop(0) if self._parts else grpc.aio.EOF

    def cancel(self) -> bool:
        return True


class NoChannel:
    async def close(self, grace: float | None) -> None:
        """Nothing to close."""


ASKED = commands()[:4]


def answers(_folder: Path) -> Target:
    """Each call ends with a result or an error of the tree, and the stream with its loss."""
    loop = Loop()

    async def run(data: bytes) -> tuple[list[object], WorkerStream]:
        call = ReplyCall(unframed(data))
        stream = WorkerStream(NoChannel(), call, 1 << 20)  # type: ignore[arg-type]
        outcomes = await asyncio.gather(*(stream.call(one) for one in ASKED), return_exceptions=True)
        await stream.close()
        return [*outcomes], stream

    def check(data: bytes) -> None:
        outcomes, stream = loop.run(run(data))
        for outcome in outcomes:
            if not isinstance(outcome, Result | DeltaError):
                raise Wrong(f"a call ended with {type(outcome).__name__}")
        if stream.in_flight or not stream.lost.is_set():
            raise Wrong("something was left of a stream that has ended")

    good = [pb.Reply(id=number, version=1, etag='"1-aa"', document=b"{}") for number in range(1, 5)]
    failed = pb.Reply(id=2, error=types_pb2.Error(kind=17))
    documents = pb.Documents(
        id=[1, 2], version=[1, 1], etag=['"1-aa"', '"1-bb"'], updated_ms=[1, 1], document=[b"{}", b"{}"]
    )
    seeds = [
        framed((pb.ReplyBatch(replies=good).SerializeToString(),)),
        framed([pb.ReplyBatch(replies=[one]).SerializeToString() for one in good]),
        framed((pb.ReplyBatch(replies=[failed]).SerializeToString(),)),
        framed((pb.ReplyBatch(documents=documents, replies=good[2:]).SerializeToString(),)),
    ]
    return Target("answers", check, seeds, sequence_change(message_change(pb.ReplyBatch)), loop.close)
