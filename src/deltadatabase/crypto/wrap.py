"""Sending keys to one worker: HPKE in base mode (RFC 9180).

KEM DHKEM(X25519, HKDF-SHA256), KDF HKDF-SHA256, AEAD AES-256-GCM; the wrapped form is the
KEM's encapsulated key (32 bytes) followed by the ciphertext. HPKE hides the payload from
everybody but the holder of the key; who that is, the join proofs say (``auth/join.py``).
"""

from __future__ import annotations

from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from deltadatabase.errors import Invalid, Unauthenticated

PUBLIC_KEY_BYTES: Final = 32

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@final
class WrapKey:
    """A worker's key pair, made anew for each admission and never stored.

    Attributes:
        public_bytes: the public key, 32 bytes (RFC 7748).
    """

    __slots__ = ("_private", "public_bytes")

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.public_bytes = private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> WrapKey:
        """Make a key pair; the randomness is the library's own, which takes no other."""
        return cls(X25519PrivateKey.generate())

    def unwrap(self, sealed: bytes, info: bytes) -> bytes:
        """Open what ``wrap`` sealed for this key under the same ``info``.

        Raises:
            Unauthenticated: it was damaged, or made for another key or purpose.
        """
        try:
            return _SUITE.decrypt(sealed, self._private, info=info)
        except InvalidTag:
            raise Unauthenticated("the wrapped key was not made for this worker's request") from None

    def __repr__(self) -> str:
        return f"WrapKey(public_bytes={self.public_bytes.hex()})"


def wrap(public_bytes: bytes, payload: bytes, info: bytes) -> bytes:
    """Seal ``payload`` so that only the holder of the private key opens it, and only under ``info``.

    Raises:
        Invalid: ``public_bytes`` is no usable X25519 public key.
    """
    try:
        return _SUITE.encrypt(payload, X25519PublicKey.from_public_bytes(public_bytes), info=info)
    except ValueError as exc:
        raise Invalid("the worker's public key is malformed") from exc
