"""Second implementations, written from the RFCs alone, to check ours against."""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")


def hkdf_extract(salt: bytes, ikm: bytes) -> bytes:
    """RFC 5869, section 2.2."""
    return hmac.digest(salt or bytes(32), ikm, "sha256")


def hkdf_expand(prk: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, section 2.3."""
    okm = block = b""
    for counter in range(1, 256):
        if len(okm) >= length:
            break
        block = hmac.digest(prk, block + info + bytes((counter,)), "sha256")
        okm += block
    return okm[:length]


def hpke_key_schedule(
    *, aead_id: int, info: bytes, ephemeral: X25519PrivateKey, recipient_public: bytes
) -> tuple[bytes, bytes, bytes, bytes]:
    """RFC 9180, sections 4.1 and 5.1, base mode: encapsulated key, shared secret, key, base nonce."""
    enc = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient_public))
    eae_prk = _labeled_extract(_KEM_SUITE, b"", b"eae_prk", shared)
    shared_secret = _labeled_expand(_KEM_SUITE, eae_prk, b"shared_secret", enc + recipient_public, 32)
    suite = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x0020, 0x0001, aead_id))
    context = (
        b"\x00"
        + _labeled_extract(suite, b"", b"psk_id_hash", b"")
        + _labeled_extract(suite, b"", b"info_hash", info)
    )
    secret = _labeled_extract(suite, shared_secret, b"secret", b"")
    key_bytes = {1: 16, 2: 32}[aead_id]
    key = _labeled_expand(suite, secret, b"key", context, key_bytes)
    base_nonce = _labeled_expand(suite, secret, b"base_nonce", context, 12)
    return enc, shared_secret, key, base_nonce


def hpke_seal(
    *, info: bytes, ephemeral: X25519PrivateKey, recipient_public: bytes, plaintext: bytes
) -> bytes:
    """First message of base mode with AES-256-GCM and no associated data: encapsulated key, ciphertext."""
    enc, _, key, nonce = hpke_key_schedule(
        aead_id=2, info=info, ephemeral=ephemeral, recipient_public=recipient_public
    )
    return enc + AESGCM(key).encrypt(nonce, plaintext, b"")


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hkdf_extract(salt, b"HPKE-v1" + suite + label + ikm)


def _labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return hkdf_expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)
