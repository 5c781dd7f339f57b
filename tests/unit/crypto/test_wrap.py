from __future__ import annotations

import pytest

from deltadatabase.crypto.wrap import PUBLIC_KEY_BYTES, WrapKey, wrap
from deltadatabase.errors import Invalid, Unauthenticated


def test_the_recipient_opens_it() -> None:
    key = WrapKey.generate()
    assert len(key.public_bytes) == PUBLIC_KEY_BYTES
    sealed = wrap(key.public_bytes, b"payload", b"info")
    assert b"payload" not in sealed
    assert key.unwrap(sealed, b"info") == b"payload"
    assert wrap(key.public_bytes, b"payload", b"info") != sealed


def test_nobody_else_and_nothing_else_opens_it() -> None:
    key = WrapKey.generate()
    sealed = wrap(key.public_bytes, b"payload", b"info")
    with pytest.raises(Unauthenticated):
        WrapKey.generate().unwrap(sealed, b"info")
    with pytest.raises(Unauthenticated):
        key.unwrap(sealed, b"other info")


def test_damage_is_refused() -> None:
    key = WrapKey.generate()
    sealed = wrap(key.public_bytes, b"payload", b"info")
    truncated = [sealed[:size] for size in range(len(sealed))]
    flipped = [
        sealed[:offset] + bytes((sealed[offset] ^ 0x80,)) + sealed[offset + 1 :]
        for offset in range(len(sealed))
        if offset != 31  # RFC 7748 ignores the top bit of the last byte of a public key.
    ]
    for data in (*truncated, *flipped, bytes(32) + sealed[32:]):
        with pytest.raises(Unauthenticated):
            key.unwrap(data, b"info")


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32), (1).to_bytes(32, "little")])
def test_malformed_public_keys_are_refused(public: bytes) -> None:
    with pytest.raises(Invalid):
        wrap(public, b"payload", b"info")


def test_the_private_key_is_not_shown() -> None:
    key = WrapKey.generate()
    assert repr(key) == f"WrapKey(public_bytes={key.public_bytes.hex()})"
