"""A worker's conversation with its main worker: join, prove, receive the keys, stay.

One call of ``stay`` is one membership. It ends when the stream does; the caller joins again. An
admission is for a limited time; the member renews it in time, and also when the main worker's
heartbeats name another keyring than its own, which the renewal brings.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import grpc.aio

from deltadatabase.auth import join as joining
from deltadatabase.clock import Clock, Random
from deltadatabase.crypto.keyring import Keyring
from deltadatabase.errors import DeltaError, StartupError, Unavailable
from deltadatabase.limits import (
    HANDSHAKE_TIMEOUT_S,
    HEARTBEAT_INTERVAL_S,
    MEMBERSHIP_TIMEOUT_S,
    REJOIN_DELAY_S,
    TEMPLATE_POLL_S,
)
from deltadatabase.model import StoreReport, StoreSight
from deltadatabase.rpc.convert import encode_store_report, encode_templates
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc
from deltadatabase.telemetry.logging import get_logger
from deltadatabase.worker.asking import Applicant, Asking, read_keyring

INSTANCE_ID_BYTES: Final = 8
RENEW_AGAIN_S: Final = 2.0
"""Pause between two renewals that something other than time demands."""
HEARTBEATS_KEPT: Final = 16

Call = grpc.aio.StreamStreamCall[pb.WorkerMessage, pb.MainMessage]

log = get_logger(__name__)


@dataclass(slots=True)
class MembershipLease:
    """Whether the membership is known to be alive; asked before each put.

    Counted from when an answered heartbeat was sent, not from its answer: the main worker's
    own count began later, so it never gives the shards away while this one still holds.
    """

    clock: Clock
    timeout_s: float = MEMBERSHIP_TIMEOUT_S
    renewed_s: float = float("-inf")
    membership: int = 0

    def holds(self) -> bool:
        """Whether an answered heartbeat was sent less than the timeout ago."""
        return self.clock.monotonic_s() - self.renewed_s < self.timeout_s

    def end(self) -> None:
        """Give the lease up; the next membership is another one."""
        self.renewed_s = float("-inf")
        self.membership += 1


@dataclass(slots=True)
class Identity:
    """What the present membership is known by; changes with each join."""

    instance_id: str = ""
    link_key: bytes = field(default=b"", repr=False)

    def prove(self, role: str, nonce_main: bytes, nonce_worker: bytes) -> bytes:
        """Prove the link key on the data stream."""
        return joining.link_proof(self.link_key, _role(role), nonce_main, nonce_worker)

    def verify(self, role: str, nonce_main: bytes, nonce_worker: bytes, proof: bytes) -> bool:
        """Check the other side's proof; never without a membership."""
        return bool(self.link_key) and joining.verify_link(
            self.link_key, _role(role), nonce_main, nonce_worker, proof
        )


def _role(role: str) -> joining.Role:
    return "main" if role == "main" else "worker"


class Polled(Protocol):
    """What the polling member looks up in the store."""

    async def templates(self) -> dict[str, str]: ...

    async def highest_epoch(self) -> int: ...


class Checked(Protocol):
    """Tells whether the store still holds the database. Never raises a DeltaError."""

    async def look(self) -> StoreSight: ...


Opened = Callable[[Keyring], Awaitable[tuple[StoreReport, Polled, Checked]]]
"""Opens (or keeps) the store with these keys. Raises StartupError."""
Rekeyed = Callable[[Keyring], Awaitable[None]]
"""Makes sure that other keys fit the open store, and works with them on its return. Raises DeltaError."""


class MembershipClient:
    """Joins one main worker, again and again.

    Args:
        applicant: who joins.
        identity: told of each membership's instance id and link key.
        lease: renewed by each answered heartbeat.
        opened: called with the keys, before serving.
        rekeyed: called with other keys, while serving.
        on_member: called once per membership, when the main worker counts on this worker.
        clock, random: time and nonces.
    """

    def __init__(
        self,
        applicant: Applicant,
        identity: Identity,
        lease: MembershipLease,
        opened: Opened,
        rekeyed: Rekeyed,
        *,
        on_member: Callable[[], None],
        clock: Clock,
        random: Random,
    ) -> None:
        self._applicant = applicant
        self._identity = identity
        self._lease = lease
        self._opened = opened
        self._rekeyed = rekeyed
        self._on_member = on_member
        self._clock = clock
        self._random = random
        self._sent: dict[int, float] = {}
        self._polls = False
        self._highest_epoch = 0
        self._sight = StoreSight.UNSPECIFIED
        self._drained = asyncio.Event()
        self._keyring = b""
        self._asked_s = float("-inf")
        self._expires_s = self._renew_s = 0.0
        self._renewal_due = asyncio.Event()
        self._renewing: Asking | None = None
        self._renewed: asyncio.Future[Keyring] | None = None
        self._call: Call | None = None
        self._writing = asyncio.Lock()

    async def stay(self, channel: grpc.aio.Channel) -> None:
        """Join, and stay until the membership ends.

        Raises:
            Unavailable: it ended, or the main worker cannot be reached: join again.
            StartupError: never again with this configuration (``not_admitted``, ``replaced``,
                ``wrong_master_key``, ``store_refused``, …).
        """
        self._sent.clear()
        self._polls = False
        self._renewing = self._renewed = None
        self._renewal_due.clear()
        call: Call = pb_grpc.MainWorkerStub(channel).Subscribe()  # type: ignore[call-arg]  # grpc.aio: no iterator
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                keyring = await self._join(call)
            try:
                report, polled, checked = await self._opened(keyring)
            except StartupError as exc:
                failure = pb.StartFailed(code=exc.code, detail=exc.detail)
                await self._send(call, pb.WorkerMessage(start_failed=failure))
                await call.done_writing()
                await call.code()
                raise
            self._highest_epoch = report.database.highest_epoch
            self._sight = StoreSight.UNSPECIFIED
            await self._send(call, pb.WorkerMessage(ready=pb.Ready(store=encode_store_report(report))))
            self._call = call
            tasks = [
                asyncio.create_task(work)
                for work in (
                    self._listen(call),
                    self._beat(call),
                    self._poll(call, polled),
                    self._look(checked),
                    self._keep_admitted(call),
                )
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        except (grpc.RpcError, asyncio.InvalidStateError, TimeoutError) as exc:
            raise Unavailable(
                "the main worker cannot be reached; check -main-addr, and that both have TLS or neither",
                code="main_worker_unreachable",
            ) from exc
        finally:
            self._call = None
            self._lease.end()
            self._identity.link_key = b""
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            call.cancel()

    async def drain(self, timeout_s: float) -> None:
        """Ask for everything to be moved away; returns when it is, or the time or stream is up."""
        if (call := self._call) is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(call, pb.WorkerMessage(drain=pb.Drain()))
                drained = asyncio.create_task(self._drained.wait())
                ended = asyncio.ensure_future(call.code())
                await asyncio.wait({drained, ended}, return_when=asyncio.FIRST_COMPLETED)
                drained.cancel()
                ended.cancel()
        except (grpc.RpcError, asyncio.InvalidStateError, TimeoutError):
            log.warning("left without a complete drain")

    def renew_now(self) -> None:
        """Ask for the keyring in force: an entity was met whose master key is not in ours."""
        if self._clock.monotonic_s() - self._asked_s > RENEW_AGAIN_S:
            self._renewal_due.set()

    async def _join(self, call: Call) -> Keyring:
        asked = self._applicant
        asking = self._ask("join", self._random(INSTANCE_ID_BYTES).hex())
        await self._send(
            call,
            pb.WorkerMessage(
                join=pb.Join(
                    worker_id=asked.worker_id,
                    instance_id=asking.instance_id,
                    public_key=asking.public_key,
                    nonce=asking.nonce,
                    grpc_addr=asked.grpc_addr,
                    backend=asked.backend,
                    version=asked.version,
                    message_bytes_max=asked.message_bytes_max,
                )
            ),
        )
        challenge = (await self._expect(call, "challenge")).challenge
        await self._send(call, pb.WorkerMessage(proof=asking.prove(challenge)))
        admitted = (await self._expect(call, "admitted")).admitted
        payload = self._admitted(asking, admitted)
        keyring = read_keyring(payload[joining.LINK_KEY_BYTES :])
        self._identity.instance_id = asking.instance_id
        self._identity.link_key = payload[: joining.LINK_KEY_BYTES]
        self._keyring = keyring.fingerprint
        return keyring

    def _ask(self, purpose: joining.Purpose, instance_id: str) -> Asking:
        asking = Asking(self._applicant, purpose, instance_id, clock=self._clock, random=self._random)
        self._asked_s = asking.asked_s
        return asking

    def _admitted(self, asking: Asking, admitted: pb.Admitted) -> bytes:
        """Note until when we are admitted; return what came wrapped. Raises StartupError."""
        payload = asking.accept(admitted)
        # Counted from when it was asked for: the main worker's own count began later.
        self._expires_s = asking.asked_s + admitted.ttl_ms / 1000
        self._renew_s = asking.asked_s + admitted.ttl_ms / 2000
        return payload

    async def _keep_admitted(self, call: Call) -> None:
        """Renew the admission in time, and whenever the keyring in force is another one than ours.

        Raises:
            Unavailable: it was not renewed in time.
            StartupError: the main worker did not prove itself, or its keys do not fit the database.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._renew_s - self._clock.monotonic_s())):
                    await self._renewal_due.wait()
            self._renewal_due.clear()
            if self._clock.monotonic_s() > self._expires_s:
                raise Unavailable("the admission was not renewed in time", code="admission_expired")
            try:
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                    keyring = await self._renew(call)
                if keyring.fingerprint != self._keyring:
                    await self._rekeyed(keyring)
                    self._keyring = keyring.fingerprint
            except StartupError:
                raise
            except (DeltaError, TimeoutError) as exc:
                code = exc.code if isinstance(exc, DeltaError) else "timeout"
                log.warning("the admission was not renewed; it is tried again", code=code)
                await asyncio.sleep(REJOIN_DELAY_S)
                self._renewal_due.set()

    async def _renew(self, call: Call) -> Keyring:
        asking = self._renewing = self._ask("renew", self._identity.instance_id)
        self._renewed = asyncio.get_running_loop().create_future()
        renew = pb.Renew(public_key=asking.public_key, nonce=asking.nonce)
        await self._send(call, pb.WorkerMessage(renew=renew))
        return await self._renewed

    async def _answer_renewal(self, call: Call, message: pb.MainMessage) -> None:
        """Go on with a renewal under way. Raises StartupError."""
        asking, renewed = self._renewing, self._renewed
        if asking is None or renewed is None:
            return
        challenged = message.WhichOneof("message") == "challenge"
        answers = message.challenge.worker_nonce if challenged else message.admitted.worker_nonce
        if answers != asking.nonce:
            return  # Of a renewal that took too long: proving it now would look like a wrong proof.
        if challenged:
            await self._send(call, pb.WorkerMessage(proof=asking.prove(message.challenge)))
        elif not renewed.done():
            renewed.set_result(read_keyring(self._admitted(asking, message.admitted)))

    async def _listen(self, call: Call) -> None:
        while True:
            message = await self._expect(call, "heartbeat", "member", "drained", "challenge", "admitted")
            match message.WhichOneof("message"):
                case "heartbeat":
                    sent_s = self._sent.pop(message.heartbeat.sequence, None)
                    if sent_s is not None:
                        self._lease.renewed_s = max(self._lease.renewed_s, sent_s)
                    self._polls = message.heartbeat.poll_templates
                    if message.heartbeat.keyring != self._keyring:
                        self.renew_now()
                case "challenge" | "admitted":
                    await self._answer_renewal(call, message)
                case "member":
                    self._on_member()
                case _:
                    self._drained.set()

    async def _beat(self, call: Call) -> None:
        sequence = 0
        while True:
            sequence += 1
            self._sent[sequence] = self._clock.monotonic_s()
            self._sent.pop(sequence - HEARTBEATS_KEPT, None)
            beat = pb.WorkerHeartbeat(
                sequence=sequence,
                highest_epoch_stored=self._highest_epoch,
                store=f"STORE_SIGHT_{self._sight.name}",
                keyring=self._keyring,
            )
            await self._send(call, pb.WorkerMessage(heartbeat=beat))
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    async def _poll(self, call: Call, polled: Polled) -> None:
        known: dict[str, str] | None = None
        while True:
            await asyncio.sleep(TEMPLATE_POLL_S if known is not None else HEARTBEAT_INTERVAL_S)
            if not self._polls:
                known = None
                continue
            try:
                self._highest_epoch = max(self._highest_epoch, await polled.highest_epoch())
                templates = await polled.templates()
            except DeltaError as exc:
                log.warning("the store could not be polled for changed schemas", code=exc.code)
                continue
            if templates != known:
                known = templates
                for part in encode_templates(templates):
                    await self._send(call, pb.WorkerMessage(templates=part))

    async def _look(self, checked: Checked) -> None:
        # Each member looks: a directory may be gone for one machine alone.
        while True:
            await asyncio.sleep(TEMPLATE_POLL_S)
            self._sight = await checked.look()

    async def _send(self, call: Call, message: pb.WorkerMessage) -> None:
        async with self._writing:
            await call.write(message)

    async def _expect(self, call: Call, *kinds: str) -> pb.MainMessage:
        """Return the next message of one of ``kinds``.

        Raises:
            StartupError: refused for good, or replaced.
            Unavailable: refused for now, or the stream ended.
        """
        while isinstance(message := await call.read(), pb.MainMessage):
            match message.WhichOneof("message"):
                case "refused" if message.refused.retry:
                    raise Unavailable(message.refused.detail, code=message.refused.code)
                case "refused":
                    raise StartupError(
                        f"the main worker refused this worker: {message.refused.detail}", code="not_admitted"
                    )
                case "replaced":
                    raise StartupError(
                        "another worker with this -worker-id took over; give each its own", code="replaced"
                    )
                case kind if kind in kinds:
                    return message
                case _:
                    continue  # Of a later version.
        raise Unavailable("the main worker ended the membership", code="membership_ended")
