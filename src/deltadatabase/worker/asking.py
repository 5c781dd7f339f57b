"""What a worker says and checks when it asks to be admitted, at a join or a renewal. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deltadatabase.auth import join as joining
from deltadatabase.auth.join import JoinContext, JoinToken
from deltadatabase.clock import Clock, Random
from deltadatabase.crypto.keyring import Keyring
from deltadatabase.crypto.wrap import WrapKey
from deltadatabase.errors import DeltaError, StartupError
from deltadatabase.rpc.pb import main_worker_pb2 as pb


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who asks to join.

    Attributes:
        worker_id: configured name, the same after a restart.
        grpc_addr: where the data service listens.
        backend: ``s3`` or ``directory``.
        token: looks the join token up, anew for each join; None: only a main worker on the
            same machine admits this worker.
        trusts_unproven: a main worker that demands no proof is accepted without one of its own:
            right only where it is on this machine and no token was configured.
        version: of this program.
        message_bytes_max: largest message that the data service takes.
    """

    worker_id: str
    grpc_addr: str
    backend: str
    token: Callable[[], JoinToken | None]
    trusts_unproven: bool
    version: str
    message_bytes_max: int


class Asking:
    """One admission that is being asked for, with a key pair and a nonce of its own.

    Args:
        applicant: who asks.
        purpose: a new membership, or one more time for a member.
        instance_id: this run of the worker, or the membership that goes on.
        clock, random: time and nonces.

    Attributes:
        asked_s: when it was asked for, in monotonic seconds.
        public_key: what the keys are to be wrapped for.
        nonce: used once.
    """

    def __init__(
        self,
        applicant: Applicant,
        purpose: joining.Purpose,
        instance_id: str,
        *,
        clock: Clock,
        random: Random,
    ) -> None:
        self.asked_s = clock.monotonic_s()
        self.instance_id = instance_id
        self.nonce = random(joining.NONCE_BYTES)
        self._applicant = applicant
        self._purpose: joining.Purpose = purpose
        self._key = WrapKey.generate()
        self._agreed: JoinContext | None = None
        self._token: JoinToken | None = None
        self._proof_required = True

    @property
    def public_key(self) -> bytes:
        """What the keys are to be wrapped for."""
        return self._key.public_bytes

    def prove(self, challenge: pb.Challenge) -> pb.Proof:
        """Answer a challenge.

        Raises:
            StartupError: ``not_admitted``: there is no join token to prove.
        """
        # Not earlier: a main worker makes its token file before it answers anybody.
        token = self._token = self._applicant.token()
        self._proof_required = challenge.proof_required
        self._agreed = JoinContext(
            server_nonce=challenge.nonce,
            worker_nonce=self.nonce,
            worker_id=self._applicant.worker_id,
            instance_id=self.instance_id,
            public_key=self.public_key,
            grpc_addr=self._applicant.grpc_addr,
            purpose=self._purpose,
        )
        if challenge.proof_required and token is None:
            raise StartupError(
                "the main worker demands a join token; give this worker the same JOIN_TOKEN",
                code="not_admitted",
            )
        return pb.Proof(proof=joining.worker_proof(token, self._agreed) if token else b"")

    def accept(self, admitted: pb.Admitted) -> bytes:
        """Check the main worker's proof; return what it wrapped for us.

        Raises:
            StartupError: ``not_admitted``: the main worker did not prove itself.
        """
        agreed, token = self._agreed, self._token
        if agreed is None:
            raise StartupError("the main worker answered out of turn", code="not_admitted")
        proven = token is not None and joining.verify_main(token, agreed, admitted.wrapped, admitted.proof)
        if not proven and (self._proof_required or not self._applicant.trusts_unproven):
            raise StartupError(
                "the main worker did not prove that it holds the join token; check -main-addr, and give "
                "both the same JOIN_TOKEN",
                code="not_admitted",
            )
        try:
            key_id = bytes.fromhex(admitted.key_id)
            return self._key.unwrap(admitted.wrapped, joining.wrap_info(agreed, key_id))
        except (DeltaError, ValueError):
            raise _wrong_keys() from None


def read_keyring(payload: bytes) -> Keyring:
    """Read the keyring that came wrapped. Raises StartupError (``not_admitted``)."""
    try:
        return Keyring.from_payload(payload)
    except DeltaError:
        raise _wrong_keys() from None


def _wrong_keys() -> StartupError:
    return StartupError("the main worker sent keys that were not made for this worker", code="not_admitted")
