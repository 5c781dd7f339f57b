"""The control plane: gRPC service ``MainWorker``, where proc workers join and stay.

One stream is one membership: join, challenge, proof, admitted, ready, member, heartbeats. The
master key leaves only wrapped for the key pair of a worker that has proven the join token; the
main worker proves it as well, over the wrapped bytes (``auth/join.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import grpc.aio

from deltadatabase.auth import join as joining
from deltadatabase.auth.join import JoinContext, JoinPolicy
from deltadatabase.clock import Clock, Random
from deltadatabase.crypto.keyring import Keyring
from deltadatabase.crypto.wrap import wrap
from deltadatabase.errors import DeltaError, Denied, Invalid, Overloaded, Unauthenticated, Unavailable
from deltadatabase.gateway.members import Cluster, MemberLink
from deltadatabase.gateway.peers import is_same_user, reachable_address
from deltadatabase.limits import GRPC_MESSAGE_BYTES_MAX, HANDSHAKE_TIMEOUT_S, KIB, STORE_WAIT_MAX_S
from deltadatabase.model import MemberInfo, MemberState, StoreSight
from deltadatabase.rpc.convert import decode_store_report
from deltadatabase.rpc.doorway import Doorway
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc
from deltadatabase.telemetry.logging import get_logger

NAME_BYTES_MAX: Final = 253
LAST_WORDS_S: Final = 1.0
FINAL_REFUSALS: Final = frozenset({"invalid", "denied", "unauthenticated", "other_database"})

log = get_logger(__name__)

Dial = Callable[[str, bytes, str, int], Awaitable[MemberLink]]
"""Opens the data link: address, link key, instance id, largest message that the worker takes."""
ClientContext = grpc.aio.ServicerContext[pb.ProcessRequest, pb.ProcessResponse]
Process = Callable[[pb.ProcessRequest, ClientContext], Awaitable[pb.ProcessResponse]]
"""Serves one call of a gRPC client."""
Outbox = asyncio.Queue[pb.MainMessage | None]
"""Messages to a worker; None ends it."""
Stream = grpc.aio.ServicerContext[pb.WorkerMessage, pb.MainMessage]


class ControlPlane(pb_grpc.MainWorkerServicer):
    """Admits workers and keeps their memberships.

    Args:
        cluster: takes members in.
        keyring: wrapped for each admitted worker.
        policy: which proof is demanded.
        dial: opens the data link to an admitted worker.
        process: serves gRPC clients.
        clock, random: time and nonces.
        instance_id: this run of the main worker.
        key_label: what people call the primary master key.
        doorway: bounds the callers whose proof is not known yet.
    """

    def __init__(
        self,
        cluster: Cluster,
        keyring: Keyring,
        policy: JoinPolicy,
        *,
        dial: Dial,
        process: Process,
        clock: Clock,
        random: Random,
        instance_id: str,
        key_label: str,
        doorway: Doorway,
    ) -> None:
        self._cluster = cluster
        self._keyring = keyring
        self._policy = policy
        self._dial = dial
        self._process = process
        self._clock = clock
        self._random = random
        self._instance_id = instance_id
        self._key_label = key_label
        self._doorway = doorway

    async def Process(  # noqa: N802  # the service's own name
        self, request: pb.ProcessRequest, context: ClientContext
    ) -> pb.ProcessResponse:
        """Serve one call of a gRPC client."""
        return await self._process(request, context)

    async def Subscribe(  # type: ignore[override]  # noqa: N802  # grpc.aio's other form: read and write
        self, request_iterator: object, context: Stream
    ) -> None:
        """Carry one membership from its join to its end."""
        worker_id = ""
        try:
            with self._doorway.place(context.peer()):
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                    asked = (await _receive(context, "join")).join
                    _check_join(asked)
                    worker_id = asked.worker_id
                    link_key, address = await self._admit(context, asked)
            await self._serve_member(context, asked, link_key, address)
        except asyncio.CancelledError:
            # The server ends. gRPC would write a stack trace past our log; nothing runs after this.
            log.debug("stream was cut", worker_id=worker_id)
        except TimeoutError:
            log.warning("worker did not finish joining in time", worker_id=worker_id, peer=context.peer())
        except DeltaError as exc:
            # As many as a stranger likes; they must not fill the log.
            note = log.debug if isinstance(exc, Overloaded) else log.warning
            note("worker refused", worker_id=worker_id, peer=context.peer(), code=exc.code, detail=exc.detail)
            await _send(
                context,
                pb.MainMessage(
                    refused=pb.Refused(code=exc.code, detail=exc.detail, retry=exc.code not in FINAL_REFUSALS)
                ),
            )

    # -- joining -----------------------------------------------------------------------

    async def _admit(self, context: Stream, asked: pb.Join) -> tuple[bytes, str]:
        """Check the worker's proof, and hand it the wrapped keys.

        Returns:
            The link key, and the address of the worker's data service.

        Raises:
            Unauthenticated: no valid proof.
            Denied: no join token is configured and it isn't on this machine.
            Invalid: malformed messages.
        """
        token = self._policy.token_for(asked.backend)
        if token is None and not is_same_user(context.peer()):
            raise Denied(
                "no join token is configured, so only workers of the main worker's own user on its own "
                "machine are admitted; give both the same JOIN_TOKEN"
            )
        nonce = self._random(joining.NONCE_BYTES)
        await _send(
            context,
            pb.MainMessage(challenge=pb.Challenge(nonce=nonce, proof_required=token is not None)),
        )
        proof = (await _receive(context, "proof")).proof.proof
        agreed = JoinContext(
            server_nonce=nonce,
            worker_nonce=asked.nonce,
            worker_id=asked.worker_id,
            instance_id=asked.instance_id,
            public_key=asked.public_key,
            grpc_addr=asked.grpc_addr,
        )
        if token is not None and not joining.verify_worker(token, agreed, proof):
            raise Unauthenticated(
                "the join token was not proven; give both sides the same JOIN_TOKEN, or the same S3 secret "
                "key, or the same -shared-fs"
            )
        link_key = self._random(joining.LINK_KEY_BYTES)
        key_id = self._keyring.primary.key_id
        wrapped = wrap(
            asked.public_key, link_key + self._keyring.to_payload(), joining.wrap_info(agreed, key_id)
        )
        await _send(
            context,
            pb.MainMessage(
                admitted=pb.Admitted(
                    wrapped=wrapped,
                    proof=b"" if token is None else joining.main_proof(token, agreed, wrapped),
                    key_id=key_id.hex(),
                    main_instance_id=self._instance_id,
                )
            ),
        )
        log.info(
            "worker admitted",
            worker_id=asked.worker_id,
            peer=context.peer(),
            version=asked.version,
            proven=token is not None,
        )
        return link_key, reachable_address(asked.grpc_addr, context.peer())

    # -- the membership ----------------------------------------------------------------

    async def _serve_member(self, context: Stream, asked: pb.Join, link_key: bytes, address: str) -> None:
        async with asyncio.timeout(STORE_WAIT_MAX_S):
            first = await _receive(context, "ready", "start_failed")
        if first.HasField("start_failed"):
            self._cluster.start_failed(asked.worker_id, first.start_failed.code, first.start_failed.detail)
            return
        link = await self._open_link(address, link_key, asked)
        info = MemberInfo(
            worker_id=asked.worker_id,
            instance_id=asked.instance_id,
            state=MemberState.AVAILABLE,
            key_id=self._key_label,
            last_seen_ms=self._clock.wall_ms(),
            address=address,
        )
        outbox: Outbox = asyncio.Queue()
        # Heard and answered already while its shards are moving to it.
        hearing = asyncio.create_task(self._hear(context, asked.instance_id, outbox))
        sending = asyncio.create_task(_send_all(context, outbox))
        try:
            membership = await self._cluster.admit(
                info,
                decode_store_report(first.ready.store),
                link,
                on_replaced=lambda: outbox.put_nowait(pb.MainMessage(replaced=pb.Replaced())),
            )
            outbox.put_nowait(pb.MainMessage(member=pb.Member(epoch=self._cluster.epoch)))
            # A member whose data link broke is of no use: it joins again.
            ends = {asyncio.create_task(event.wait()) for event in (membership.ended, link.lost)}
            await asyncio.wait({hearing, sending, *ends}, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        finally:
            self._cluster.leave(asked.instance_id)
            outbox.put_nowait(None)
            await asyncio.wait({sending}, timeout=LAST_WORDS_S)
            hearing.cancel()
            sending.cancel()
            await asyncio.gather(hearing, sending, return_exceptions=True)
            await link.close()

    async def _open_link(self, address: str, link_key: bytes, asked: pb.Join) -> MemberLink:
        try:
            return await self._dial(address, link_key, asked.instance_id, asked.message_bytes_max)
        except DeltaError as exc:
            raise Unavailable(
                f"the main worker cannot reach this worker's grpc address={address}; see -advertise-addr",
                code="worker_unreachable",
            ) from exc

    async def _hear(self, context: Stream, instance_id: str, outbox: Outbox) -> None:
        draining: asyncio.Task[None] | None = None
        templates: dict[str, str] = {}
        while (message := await _next(context)) is not None:
            match message.WhichOneof("message"):
                case "heartbeat":
                    self._cluster.heard(
                        instance_id,
                        message.heartbeat.highest_epoch_stored,
                        sight_of(message.heartbeat.store),
                    )
                    answer = pb.MainHeartbeat(
                        sequence=message.heartbeat.sequence,
                        epoch=self._cluster.epoch,
                        poll_templates=self._cluster.polls(instance_id),
                    )
                    outbox.put_nowait(pb.MainMessage(heartbeat=answer))
                case "templates":
                    templates |= message.templates.etags
                    if not message.templates.more:
                        self._cluster.templates_seen(templates)
                        templates = {}
                case "drain" if draining is None:
                    draining = asyncio.create_task(self._drain(instance_id, outbox))
                case _:
                    pass  # Of a later version: nothing that a membership depends on.

    async def _drain(self, instance_id: str, outbox: Outbox) -> None:
        await self._cluster.drain(instance_id)
        outbox.put_nowait(pb.MainMessage(drained=pb.Drained()))


def sight_of(number: int) -> StoreSight:
    """What a heartbeat says of the store; a number of a later version says nothing."""
    try:
        return StoreSight(number)
    except ValueError:
        return StoreSight.UNSPECIFIED


def _check_join(asked: pb.Join) -> None:
    _, colon, port = asked.grpc_addr.rpartition(":")
    texts = (asked.worker_id, asked.instance_id, asked.grpc_addr)
    if (
        not asked.worker_id
        or not asked.instance_id
        or any(len(text) > NAME_BYTES_MAX or not text.isprintable() for text in texts)
        or not (colon and port.isascii() and port.isdigit() and 0 < int(port) < 65_536)
        or len(asked.nonce) != joining.NONCE_BYTES
        or asked.backend not in ("directory", "s3")
        or not KIB <= asked.message_bytes_max <= GRPC_MESSAGE_BYTES_MAX
    ):
        raise Invalid("the join message is malformed")


async def _next(context: Stream) -> pb.WorkerMessage | None:
    message: object = await context.read()  # grpc.aio.EOF at the end
    return message if isinstance(message, pb.WorkerMessage) else None


async def _receive(context: Stream, *kinds: str) -> pb.WorkerMessage:
    """Return the next message, which must be one of ``kinds``; heartbeats meanwhile are passed over.

    Raises:
        Unavailable: the worker went away.
        Invalid: it sent something else.
    """
    while (message := await _next(context)) is not None:
        kind = message.WhichOneof("message")
        if kind in kinds:
            return message
        if kind != "heartbeat":
            raise Invalid("the worker sent a message out of turn")
    raise Unavailable("the worker went away while joining")


async def _send(context: Stream, message: pb.MainMessage) -> None:
    try:
        await context.write(message)
    except (grpc.RpcError, asyncio.InvalidStateError) as exc:
        raise Unavailable("the worker went away") from exc


async def _send_all(context: Stream, outbox: Outbox) -> None:
    while (message := await outbox.get()) is not None:
        await _send(context, message)
