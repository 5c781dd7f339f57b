"""Admission of workers, at a join and again and again while they stay: proofs demanded, keys wrapped.

The master keys leave only wrapped for the key pair of a worker that has proven the join token; the
main worker proves it as well, over the wrapped bytes (``auth/join.py``).
"""

from __future__ import annotations

from deltadatabase.auth import join as joining
from deltadatabase.auth.join import JoinContext, JoinPolicy
from deltadatabase.clock import Random
from deltadatabase.crypto.wrap import wrap
from deltadatabase.errors import Denied, Unauthenticated
from deltadatabase.gateway.keys import Keys
from deltadatabase.gateway.peers import is_same_user
from deltadatabase.limits import WORKER_TTL_S
from deltadatabase.rpc.pb import main_worker_pb2 as pb


class Admissions:
    """Decides on workers, one challenge and one proof at a time.

    Args:
        keys: what an admitted worker gets.
        policy: which proof is demanded.
        random: nonces.
        instance_id: this run of the main worker.
        ttl_s: how long an admission lasts, seconds.
    """

    def __init__(
        self, keys: Keys, policy: JoinPolicy, *, random: Random, instance_id: str, ttl_s: float = WORKER_TTL_S
    ) -> None:
        self.keys = keys
        self.ttl_s = ttl_s
        self._policy = policy
        self._random = random
        self._instance_id = instance_id

    def challenge(self, backend: str, peer: str, worker_nonce: bytes) -> pb.Challenge:
        """What a worker has to prove.

        Args:
            backend: the worker's store, ``directory`` or ``s3``: tells which join token can apply.
            peer: gRPC's name of the caller.
            worker_nonce: what it sent; tells it which of its questions this answers.

        Raises:
            Denied: no join token is configured and it isn't on this machine.
        """
        token = self._policy.token_for(backend)
        if token is None and not is_same_user(peer):
            raise Denied(
                "no join token is configured, so only workers of the main worker's own user on its own "
                "machine are admitted; give both the same JOIN_TOKEN"
            )
        return pb.Challenge(
            nonce=self._random(joining.NONCE_BYTES),
            proof_required=token is not None,
            worker_nonce=worker_nonce,
        )

    def admit(self, agreed: JoinContext, backend: str, proof: bytes, *, link_key: bytes = b"") -> pb.Admitted:
        """Check the proof and wrap the keys.

        Args:
            agreed: what both sides' proofs cover.
            backend: as for ``challenge``.
            proof: the worker's.
            link_key: goes with the keys at a join; b"" at a renewal.

        Raises:
            Unauthenticated: the proof is wrong.
            Invalid: the public key is malformed.
        """
        token = self._policy.token_for(backend)
        if token is not None and not joining.verify_worker(token, agreed, proof):
            raise Unauthenticated(
                "the join token was not proven; give both sides the same JOIN_TOKEN, or the same S3 secret "
                "key, or the same -shared-fs"
            )
        keyring = self.keys.keyring
        key_id = keyring.primary.key_id
        wrapped = wrap(agreed.public_key, link_key + keyring.to_payload(), joining.wrap_info(agreed, key_id))
        return pb.Admitted(
            wrapped=wrapped,
            proof=b"" if token is None else joining.main_proof(token, agreed, wrapped),
            key_id=key_id.hex(),
            main_instance_id=self._instance_id,
            ttl_ms=int(self.ttl_s * 1000),
            worker_nonce=agreed.worker_nonce,
        )
