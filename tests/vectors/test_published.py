"""Published vectors through the primitives we use; each file names its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from deltadatabase.crypto.wrap import WrapKey
from vectors import reference


def cases(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((Path(__file__).parent / f"{name}.json").read_text())["cases"]
    return loaded


@pytest.mark.parametrize("case", cases("aes_256_gcm"))
def test_aes_gcm(case: dict[str, Any]) -> None:
    cipher = AESGCM(bytes.fromhex(case["key"]))
    nonce, aad = bytes.fromhex(case["iv"]), bytes.fromhex(case["aad"])
    sealed = bytes.fromhex(case["ct"] + case["tag"])
    if case["pt"] is None:
        with pytest.raises(InvalidTag):
            cipher.decrypt(nonce, sealed, aad)
    else:
        plaintext = bytes.fromhex(case["pt"])
        assert cipher.encrypt(nonce, plaintext, aad) == sealed
        assert cipher.decrypt(nonce, sealed, aad) == plaintext


@pytest.mark.parametrize("case", cases("hkdf_sha256"))
def test_hkdf(case: dict[str, Any]) -> None:
    ikm, salt, info, okm = (bytes.fromhex(case[name]) for name in ("ikm", "salt", "info", "okm"))
    assert HKDF(algorithm=SHA256(), length=case["l"], salt=salt, info=info).derive(ikm) == okm
    # The second implementation is used below and for the golden envelopes: it must be right too.
    prk = reference.hkdf_extract(salt, ikm)
    assert prk.hex() == case["prk"]
    assert reference.hkdf_expand(prk, info, case["l"]) == okm


@pytest.mark.parametrize("case", cases("hpke_base_x25519"))
def test_hpke_reference(case: dict[str, Any]) -> None:
    """Our second HPKE reproduces the published values, their associated data included."""
    enc, shared_secret, key, base_nonce = reference.hpke_key_schedule(
        aead_id=case["aead_id"],
        info=bytes.fromhex(case["info"]),
        ephemeral=X25519PrivateKey.from_private_bytes(bytes.fromhex(case["skEm"])),
        recipient_public=bytes.fromhex(case["pkRm"]),
    )
    assert enc.hex() == case["enc"]
    assert shared_secret.hex() == case["shared_secret"]
    assert key.hex() == case["key"]
    assert base_nonce.hex() == case["base_nonce"]
    plaintext, aad = bytes.fromhex(case["pt"]), bytes.fromhex(case["aad"])
    assert AESGCM(key).encrypt(base_nonce, plaintext, aad).hex() == case["ct"]


@pytest.mark.parametrize("case", cases("hpke_base_x25519"))
def test_unwrap_opens_what_the_reference_sealed(case: dict[str, Any]) -> None:
    """The library's single-shot HPKE takes no associated data, so the vectors reach it this way."""
    recipient = WrapKey(X25519PrivateKey.from_private_bytes(bytes.fromhex(case["skRm"])))
    assert recipient.public_bytes.hex() == case["pkRm"]
    info, plaintext = bytes.fromhex(case["info"]), bytes.fromhex(case["pt"])
    sealed = reference.hpke_seal(
        info=info,
        ephemeral=X25519PrivateKey.from_private_bytes(bytes.fromhex(case["skEm"])),
        recipient_public=recipient.public_bytes,
        plaintext=plaintext,
    )
    assert recipient.unwrap(sealed, info) == plaintext
