"""How the two ends of a stream prove the link key to each other before anything else is read.

The main worker sends a nonce; the worker answers with its own and a proof over both; the
main worker sends its proof over both. Each proof names its role, so that none can be sent
back as one's own. The HMACs themselves are the business of ``auth``; they arrive as functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import grpc.aio
import msgspec
from google.protobuf.message import DecodeError

from deltadatabase import limits
from deltadatabase.clock import Random
from deltadatabase.errors import Unauthenticated
from deltadatabase.rpc import link
from deltadatabase.rpc.pb.proc_worker_pb2 import EncodedReplyBatch, EncodedRequestBatch, Hello, Welcome

NONCE_BYTES: Final = 32
HANDSHAKE_TIMEOUT_S: Final = limits.HANDSHAKE_TIMEOUT_S
ROLE_MAIN: Final = "main"
ROLE_WORKER: Final = "worker"

Prove = Callable[[str, bytes, bytes], bytes]
"""(role, nonce of the main worker, nonce of the worker) to the proof that one holds the link key."""
Verify = Callable[[str, bytes, bytes, bytes], bool]
"""The same and a proof: whether the proof is right, compared in constant time."""

ClientCall = grpc.aio.StreamStreamCall[bytes, bytes]
ServerContext = grpc.aio.ServicerContext[object, bytes]


class LinkSecret(msgspec.Struct, frozen=True):
    """What one end can do with the link key, and its source of nonces."""

    prove: Prove
    verify: Verify
    random: Random


async def greet(
    call: ClientCall, secret: LinkSecret, main_instance_id: str, expected_worker_instance_id: str
) -> bool:
    """Do the main worker's part; tell whether the worker takes plain reads as columns.

    Raises:
        Unauthenticated: the peer is another instance, or does not hold the link key.
        Unavailable: the peer ended the stream.
        grpc.RpcError: the stream broke.
    """
    nonce_main = secret.random(NONCE_BYTES)
    hello = Hello(nonce_main=nonce_main, main_instance_id=main_instance_id)
    await call.write(EncodedRequestBatch(hello=hello).SerializeToString())
    data = await call.read()
    if not isinstance(data, bytes):
        raise link.link_down()
    refused = Unauthenticated("the worker at this address is not the one that joined", code="wrong_peer")
    try:
        welcome = EncodedReplyBatch.FromString(data).welcome
    except DecodeError:
        raise refused from None
    if (
        welcome.worker_instance_id != expected_worker_instance_id
        or len(welcome.nonce_worker) != NONCE_BYTES
        or not secret.verify(ROLE_WORKER, nonce_main, welcome.nonce_worker, welcome.proof)
    ):
        raise refused
    hello = Hello(proof=secret.prove(ROLE_MAIN, nonce_main, welcome.nonce_worker))
    await call.write(EncodedRequestBatch(hello=hello).SerializeToString())
    return welcome.takes_reads


async def admit(context: ServerContext, secret: LinkSecret, worker_instance_id: str) -> str | None:
    """Do the worker's part; return the main worker's instance id, None for a peer to refuse."""
    try:
        first = await receive(context, limits.HANDSHAKE_BYTES_MAX)
        if (
            first is None
            or first.requests
            or first.HasField("reads")
            or len(first.hello.nonce_main) != NONCE_BYTES
        ):
            return None
        nonce_main, nonce_worker = first.hello.nonce_main, secret.random(NONCE_BYTES)
        welcome = Welcome(
            nonce_worker=nonce_worker,
            proof=secret.prove(ROLE_WORKER, nonce_main, nonce_worker),
            worker_instance_id=worker_instance_id,
            takes_reads=True,
        )
        await context.write(EncodedReplyBatch(welcome=welcome).SerializeToString())
        second = await receive(context, limits.HANDSHAKE_BYTES_MAX)
    except DecodeError:
        return None
    if second is None or second.requests or second.HasField("reads"):
        return None
    proved = secret.verify(ROLE_MAIN, nonce_main, nonce_worker, second.hello.proof)
    return first.hello.main_instance_id if proved else None


async def receive(context: ServerContext, bytes_max: int | None = None) -> EncodedRequestBatch | None:
    """Return the peer's next message, None once it has ended the stream.

    Raises:
        DecodeError: it is not a message of ours, or larger than ``bytes_max``.
    """
    data = await context.read()
    if not isinstance(data, bytes):
        return None
    if bytes_max is not None and len(data) > bytes_max:
        # Decoded, a stranger's message may take many times its own size.
        raise DecodeError("a message is too large")
    return EncodedRequestBatch.FromString(data)
