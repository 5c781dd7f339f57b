"""Admission of workers: proofs that both sides hold the join token, or later the link key. Pure.

The main worker sends a nonce; the worker answers with the rest of a ``JoinContext`` and a
proof; the main worker sends the wrapped keyring with a proof of its own. Every proof is
HMAC-SHA256 over a label of its own and all that it vouches for, each part preceded by its
length, so that no two statements share their bytes. The token itself is never sent.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final, Literal, final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from deltadatabase.clock import Random
from deltadatabase.errors import StartupError

Role = Literal["main", "worker"]
"""Whose proof it is on a data stream."""
Purpose = Literal["join", "renew"]
"""What an admission is for: a new membership, or one more time for a member."""

NONCE_BYTES: Final = 32
LINK_KEY_BYTES: Final = 32
_TOKEN_BYTES_MIN: Final = 16

_S3_LABEL: Final = b"deltadatabase/v1/join-token-from-s3"
_WORKER_LABEL: Final = b"deltadatabase/v1/join/worker"
_MAIN_LABEL: Final = b"deltadatabase/v1/join/main"
_WRAP_LABEL: Final = b"deltadatabase/v1/join/wrap"
_LINK_LABEL: Final = b"deltadatabase/v1/link"


@final
class JoinToken:
    """The secret that main worker and workers share. Its ``repr`` hides it."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < _TOKEN_BYTES_MIN:
            raise StartupError(
                f"the join token is too short: at least {_TOKEN_BYTES_MIN} characters (128 bits) are needed, "
                f"length={len(secret)}",
                code="bad_flag",
            )
        self._secret = bytes(secret)

    @classmethod
    def from_text(cls, text: str) -> JoinToken:
        """Take a configured token; white space around it is ignored.

        Raises:
            StartupError: ``bad_flag``: shorter than 16 bytes.
        """
        return cls(text.strip().encode())

    @classmethod
    def derive_from_s3(cls, secret_key: str) -> JoinToken:
        """Derive the token where main worker and workers hold the same S3 secret key.

        Raises:
            StartupError: ``bad_flag``: the secret key is empty.
        """
        if not secret_key:
            raise StartupError("no join token can be derived from an empty S3 secret key", code="bad_flag")
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_S3_LABEL).derive(secret_key.encode())
        return cls(derived.hex().encode())

    @classmethod
    def generate(cls, random: Random) -> JoinToken:
        """Make a new token of 256 bits."""
        return cls(random(32).hex().encode())

    def text(self) -> str:
        """The token itself, for a file of mode 0600; ``from_text`` reads it back."""
        return self._secret.decode()

    def prove(self, label: bytes, *parts: bytes) -> bytes:
        """HMAC-SHA256 under this token over a label and parts."""
        return _mac(self._secret, label, *parts)

    def __repr__(self) -> str:
        return "JoinToken(…)"


@dataclass(frozen=True, slots=True)
class JoinPolicy:
    """Which join token a worker must prove (docs/decisions/0008).

    Attributes:
        explicit: configured; then it alone counts.
        directory: kept in the shared directory, for workers that use that directory.
        s3: derived from the S3 secret key, for workers on S3.
    """

    explicit: JoinToken | None = field(default=None, repr=False)
    directory: JoinToken | None = field(default=None, repr=False)
    s3: JoinToken | None = field(default=None, repr=False)

    def token_for(self, backend: str) -> JoinToken | None:
        """Return the token to be proven; None: only the loopback interface is trusted."""
        if self.explicit is not None:
            return self.explicit
        return self.directory if backend == "directory" else self.s3


class JoinContext(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one admission is about; both sides' proofs cover all of it.

    Attributes:
        server_nonce: the main worker's random bytes, used once.
        worker_nonce: the worker's random bytes, used once.
        worker_id: the worker's configured name.
        instance_id: this run of the worker.
        public_key: the key that the keyring is wrapped for (``crypto.wrap``).
        grpc_addr: where the worker serves, ``host:port``.
        purpose: what for; a proof for one is none for the other.
    """

    server_nonce: bytes
    worker_nonce: bytes
    worker_id: str
    instance_id: str
    public_key: bytes
    grpc_addr: str
    purpose: Purpose = "join"

    def encode(self) -> bytes:
        """All fields in order, each preceded by its length: two contexts never encode alike."""
        return _join(
            self.server_nonce,
            self.worker_nonce,
            self.worker_id.encode(),
            self.instance_id.encode(),
            self.public_key,
            self.grpc_addr.encode(),
            self.purpose.encode(),
        )


def worker_proof(token: JoinToken, context: JoinContext) -> bytes:
    """The worker's proof that it holds the token and means this admission."""
    return token.prove(_WORKER_LABEL, context.encode())


def verify_worker(token: JoinToken, context: JoinContext, proof: bytes) -> bool:
    """Check ``worker_proof`` in constant time."""
    return hmac.compare_digest(worker_proof(token, context), proof)


def main_proof(token: JoinToken, context: JoinContext, wrapped: bytes) -> bytes:
    """The main worker's proof that it holds the token and sent these wrapped bytes."""
    return token.prove(_MAIN_LABEL, context.encode(), wrapped)


def verify_main(token: JoinToken, context: JoinContext, wrapped: bytes, proof: bytes) -> bool:
    """Check ``main_proof`` in constant time."""
    return hmac.compare_digest(main_proof(token, context, wrapped), proof)


def wrap_info(context: JoinContext, key_id: bytes) -> bytes:
    """HPKE info that ties a wrapped keyring to this admission and to its primary key's id."""
    return _join(_WRAP_LABEL, context.encode(), key_id)


def link_proof(link_key: bytes, role: Role, nonce_main: bytes, nonce_worker: bytes) -> bytes:
    """One side's proof, on the data stream, that it holds the link key given at admission."""
    return _mac(link_key, _LINK_LABEL, role.encode(), nonce_main, nonce_worker)


def verify_link(
    link_key: bytes,
    role: Role,
    nonce_main: bytes,
    nonce_worker: bytes,
    proof: bytes,
) -> bool:
    """Check ``link_proof`` of the side that has ``role``, in constant time."""
    return hmac.compare_digest(link_proof(link_key, role, nonce_main, nonce_worker), proof)


def _mac(secret: bytes, label: bytes, *parts: bytes) -> bytes:
    return hmac.digest(secret, _join(label, *parts), "sha256")


def _join(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
