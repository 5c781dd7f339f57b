"""The control plane: gRPC service ``MainWorker``, where proc workers join and stay.

One stream is one membership: join, challenge, proof, admitted, ready, member, heartbeats. An
admission lasts for a limited time (``admission.py``): the member renews it, and so gets the keyring
in force when that has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from deltadatabase.auth import join as joining
from deltadatabase.auth.join import JoinContext
from deltadatabase.clock import Clock, Random
from deltadatabase.errors import DeltaError, Invalid, Unavailable
from deltadatabase.gateway.admission import Admissions
from deltadatabase.gateway.members import Cluster, MemberLink
from deltadatabase.gateway.peers import reachable_address
from deltadatabase.limits import GRPC_MESSAGE_BYTES_MAX, HANDSHAKE_TIMEOUT_S, KIB, STORE_WAIT_MAX_S
from deltadatabase.model import MemberInfo, MemberState, StoreSight
from deltadatabase.rpc.channels import MAIN_WORKER_SERVICE
from deltadatabase.rpc.convert import decode_store_report
from deltadatabase.rpc.doorway import Doorway
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.telemetry.audit import Action, Audit, Outcome
from deltadatabase.telemetry.logging import get_logger

NAME_BYTES_MAX: Final = 253
LAST_WORDS_S: Final = 1.0
NO_MESSAGE: Final = "this is no message of this service"
FINAL_REFUSALS: Final = frozenset({"invalid", "denied", "unauthenticated", "other_database"})

log = get_logger(__name__)

Dial = Callable[[str, bytes, str, int], Awaitable[MemberLink]]
"""Opens the data link: address, link key, instance id, largest message that the worker takes."""
ClientContext = grpc.aio.ServicerContext[pb.ProcessRequest, pb.ProcessResponse]
Process = Callable[[pb.ProcessRequest, ClientContext], Awaitable[pb.ProcessResponse]]
"""Serves one call of a gRPC client."""
Outbox = asyncio.Queue[pb.MainMessage | None]
"""Messages to a worker; None ends it."""
Stream = grpc.aio.ServicerContext[bytes, pb.MainMessage]


class ControlPlane:
    """Admits workers and keeps their memberships.

    Args:
        cluster: takes members in.
        admissions: decides who is admitted, and hands out the keys.
        dial: opens the data link to an admitted worker.
        process: serves gRPC clients.
        clock, random: time, and keys of data links.
        audit: told who is admitted and who is not.
        doorway: bounds the callers whose proof is not known yet.
    """

    def __init__(
        self,
        cluster: Cluster,
        admissions: Admissions,
        *,
        dial: Dial,
        process: Process,
        clock: Clock,
        random: Random,
        audit: Audit,
        doorway: Doorway,
    ) -> None:
        self._cluster = cluster
        self._admissions = admissions
        self._dial = dial
        self._process = process
        self._clock = clock
        self._random = random
        self._audit = audit
        self._doorway = doorway

    def serve_on(self, server: grpc.aio.Server) -> None:
        """Add the service to a server, which then decodes nothing itself.

        gRPC would answer what is no message with a failure of its own, and write an error to the log
        for each, whoever sent it.
        """
        methods: dict[str, Any] = {
            "Process": grpc.unary_unary_rpc_method_handler(
                self.process, response_serializer=pb.ProcessResponse.SerializeToString
            ),
            "Subscribe": grpc.stream_stream_rpc_method_handler(
                self.subscribe, response_serializer=pb.MainMessage.SerializeToString
            ),
        }
        service = grpc.method_handlers_generic_handler(MAIN_WORKER_SERVICE, methods)
        server.add_generic_rpc_handlers((service,))

    async def process(self, data: bytes, context: ClientContext) -> pb.ProcessResponse:
        """Serve one call of a gRPC client."""
        try:
            request = pb.ProcessRequest.FromString(data)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)
        return await self._process(request, context)

    async def subscribe(self, _: object, context: Stream) -> None:
        """Carry one membership from its join to its end."""
        worker_id = ""
        try:
            with self._doorway.place(context.peer()):
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                    asked = (await _receive(context, "join")).join
                    _check_join(asked)
                    worker_id = asked.worker_id
                    admission = await self._admit(context, asked)
            await self._serve_member(context, admission)
        except asyncio.CancelledError:
            # The server ends. gRPC would write a stack trace past our log; nothing runs after this.
            log.debug("stream was cut", worker_id=worker_id)
        except TimeoutError:
            self._refused(context, worker_id, "timeout", "it did not finish joining in time")
        except DeltaError as exc:
            self._refused(context, worker_id, exc.code, exc.detail)
            await _send(
                context,
                pb.MainMessage(
                    refused=pb.Refused(code=exc.code, detail=exc.detail, retry=exc.code not in FINAL_REFUSALS)
                ),
            )

    # -- joining -----------------------------------------------------------------------

    async def _admit(self, context: Stream, asked: pb.Join) -> _Admission:
        """Check the worker's proof, and hand it the wrapped keys.

        Raises:
            Unauthenticated: no valid proof.
            Denied: no join token is configured and it isn't on this machine.
            Invalid: malformed messages.
        """
        challenge = self._admissions.challenge(asked.backend, context.peer(), asked.nonce)
        await _send(context, pb.MainMessage(challenge=challenge))
        proof = (await _receive(context, "proof")).proof.proof
        agreed = JoinContext(
            server_nonce=challenge.nonce,
            worker_nonce=asked.nonce,
            worker_id=asked.worker_id,
            instance_id=asked.instance_id,
            public_key=asked.public_key,
            grpc_addr=asked.grpc_addr,
        )
        link_key = self._random(joining.LINK_KEY_BYTES)
        admission = _Admission(
            asked,
            link_key,
            reachable_address(asked.grpc_addr, context.peer()),
            self._admissions.keys.fingerprint(),
            self._expiry_s(),
        )
        admitted = self._admissions.admit(agreed, asked.backend, proof, link_key=link_key)
        await _send(context, pb.MainMessage(admitted=admitted))
        self._audit.event(
            Action.WORKER_ADMITTED,
            Outcome.OK,
            principal=asked.worker_id,
            address=context.peer(),
            version=asked.version,
            proven=challenge.proof_required,
        )
        return admission

    def _refused(self, context: Stream, worker_id: str, code: str, detail: str) -> None:
        """Strangers can cause this as often as they like: the audit log decides what is written."""
        self._audit.event(
            Action.WORKER_REFUSED,
            Outcome.REFUSED,
            principal=worker_id,
            address=context.peer(),
            code=code,
            detail=detail,
        )

    def _expiry_s(self) -> float:
        return self._clock.monotonic_s() + self._admissions.ttl_s

    # -- the membership ----------------------------------------------------------------

    async def _serve_member(self, context: Stream, admission: _Admission) -> None:
        asked = admission.asked
        async with asyncio.timeout(STORE_WAIT_MAX_S):
            first = await _receive(context, "ready", "start_failed")
        if first.HasField("start_failed"):
            self._cluster.start_failed(asked.worker_id, first.start_failed.code, first.start_failed.detail)
            return
        link = await self._open_link(admission)
        info = MemberInfo(
            worker_id=asked.worker_id,
            instance_id=asked.instance_id,
            state=MemberState.AVAILABLE,
            key_id=self._admissions.keys.label(),
            last_seen_ms=self._clock.wall_ms(),
            address=admission.address,
        )
        outbox: Outbox = asyncio.Queue()
        # Heard and answered already while its shards are moving to it.
        hearing = asyncio.create_task(self._hear(context, admission, outbox))
        expiring = asyncio.create_task(self._expire(admission))
        sending = asyncio.create_task(_send_all(context, outbox))
        try:
            membership = await self._cluster.admit(
                info,
                decode_store_report(first.ready.store),
                link,
                keyring=admission.keyring,
                on_replaced=lambda: outbox.put_nowait(pb.MainMessage(replaced=pb.Replaced())),
            )
            outbox.put_nowait(pb.MainMessage(member=pb.Member(epoch=self._cluster.epoch)))
            # A member whose data link broke is of no use: it joins again.
            ends = {asyncio.create_task(event.wait()) for event in (membership.ended, link.lost)}
            await asyncio.wait({hearing, expiring, sending, *ends}, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
            for ended in (hearing, expiring):
                if ended.done() and isinstance(reason := ended.exception(), DeltaError):
                    raise reason
        finally:
            self._cluster.leave(asked.instance_id)
            outbox.put_nowait(None)
            await asyncio.wait({sending}, timeout=LAST_WORDS_S)
            for task in (hearing, expiring, sending):
                task.cancel()
            await asyncio.gather(hearing, expiring, sending, return_exceptions=True)
            await link.close()

    async def _open_link(self, admission: _Admission) -> MemberLink:
        address, asked = admission.address, admission.asked
        try:
            return await self._dial(address, admission.link_key, asked.instance_id, asked.message_bytes_max)
        except DeltaError as exc:
            raise Unavailable(
                f"the main worker cannot reach this worker's grpc address={address}; see -advertise-addr",
                code="worker_unreachable",
            ) from exc

    async def _expire(self, admission: _Admission) -> None:
        """Raise Unavailable when the admission was not renewed in time."""
        while (left_s := admission.expires_s - self._clock.monotonic_s()) > 0:  # noqa: ASYNC110 - it moves
            await asyncio.sleep(left_s)
        raise Unavailable("the admission was not renewed in time", code="admission_expired")

    async def _hear(self, context: Stream, admission: _Admission, outbox: Outbox) -> None:
        """Take a member's messages in. Raises DeltaError for a renewal that is refused."""
        instance_id = admission.asked.instance_id
        agreed: JoinContext | None = None
        draining: asyncio.Task[None] | None = None
        templates: dict[str, str] = {}
        while (message := await _next(context)) is not None:
            match message.WhichOneof("message"):
                case "heartbeat":
                    self._cluster.heard(
                        instance_id,
                        message.heartbeat.highest_epoch_stored,
                        sight_of(message.heartbeat.store),
                        message.heartbeat.keyring,
                    )
                    answer = pb.MainHeartbeat(
                        sequence=message.heartbeat.sequence,
                        epoch=self._cluster.epoch,
                        poll_templates=self._cluster.polls(instance_id),
                        keyring=self._admissions.keys.fingerprint(),
                    )
                    outbox.put_nowait(pb.MainMessage(heartbeat=answer))
                case "templates":
                    templates |= message.templates.etags
                    if not message.templates.more:
                        self._cluster.templates_seen(templates)
                        templates = {}
                case "renew":
                    challenge = self._admissions.challenge(
                        admission.asked.backend, context.peer(), message.renew.nonce
                    )
                    agreed = _renewal(admission.asked, message.renew, challenge.nonce)
                    outbox.put_nowait(pb.MainMessage(challenge=challenge))
                case "proof" if agreed is not None:
                    admitted = self._admissions.admit(agreed, admission.asked.backend, message.proof.proof)
                    agreed = None  # A proof counts once.
                    admission.expires_s = self._expiry_s()
                    outbox.put_nowait(pb.MainMessage(admitted=admitted))
                    self._audit.event(
                        Action.WORKER_RENEWED,
                        Outcome.OK,
                        principal=admission.asked.worker_id,
                        address=context.peer(),
                    )
                case "drain" if draining is None:
                    draining = asyncio.create_task(self._drain(instance_id, outbox))
                case _:
                    pass  # Of a later version: nothing that a membership depends on.

    async def _drain(self, instance_id: str, outbox: Outbox) -> None:
        await self._cluster.drain(instance_id)
        outbox.put_nowait(pb.MainMessage(drained=pb.Drained()))


@dataclass(slots=True)
class _Admission:
    """One worker's admission.

    Attributes:
        asked: its join message.
        link_key: what the data link is proven with.
        address: where its data service is dialled.
        keyring: fingerprint of the keyring that it was given when it joined.
        expires_s: when it ends unless it is renewed, in monotonic seconds.
    """

    asked: pb.Join
    link_key: bytes = field(repr=False)
    address: str
    keyring: bytes
    expires_s: float


def _renewal(asked: pb.Join, renew: pb.Renew, server_nonce: bytes) -> JoinContext:
    """What both proofs of a renewal cover. Raises Invalid."""
    if len(renew.nonce) != joining.NONCE_BYTES:
        raise Invalid("the renewal is malformed")
    return JoinContext(
        server_nonce=server_nonce,
        worker_nonce=renew.nonce,
        worker_id=asked.worker_id,
        instance_id=asked.instance_id,
        public_key=renew.public_key,
        grpc_addr=asked.grpc_addr,
        purpose="renew",
    )


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
    data: object = await context.read()  # grpc.aio.EOF at the end
    if not isinstance(data, bytes):
        return None
    try:
        return pb.WorkerMessage.FromString(data)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, NO_MESSAGE)


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
