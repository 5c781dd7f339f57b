"""Golden bytes of envelope format 1. They never change: databases hold such objects."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.model import Header, RecentWrite, RecentWrites
from vectors import reference

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "envelope_v1.json").read_text())
MASTER = bytes.fromhex(GOLDEN["master_key"])


def sealer(salt_and_nonce: bytes) -> Sealer:
    def drawn(size: int) -> bytes:
        assert size == len(salt_and_nonce)
        return salt_and_nonce

    return Sealer(Keyring(MasterKey(MASTER)), drawn)


def header_of(case: dict[str, Any]) -> Header:
    return Header(
        schema_id=case["schema_id"],
        key=case["key"],
        version=case["version"],
        term=case["term"],
        updated_ms=case["updated_ms"],
        write_id=bytes.fromhex(case["write_id"]),
        recent=RecentWrites.of(
            *(RecentWrite(version, bytes.fromhex(write_id)) for version, write_id in case["recent"])
        ),
        tombstone=case["tombstone"],
        key_id=bytes.fromhex(GOLDEN["key_id"]),
    )


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_sealing_gives_the_golden_bytes(case: dict[str, Any]) -> None:
    drawn = bytes.fromhex(case["salt"] + case["nonce"])
    assert sealer(drawn).seal(header_of(case), case["document"].encode()).hex() == case["sealed"]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_golden_bytes_open(case: dict[str, Any]) -> None:
    sealed = bytes.fromhex(case["sealed"])
    opened = sealer(b"").open(sealed, case["schema_id"], case["key"])
    assert opened == (header_of(case), case["document"].encode())
    assert sealer(b"").open_header(sealed, case["schema_id"], case["key"]) == header_of(case)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_golden_bytes_follow_the_written_layout(case: dict[str, Any]) -> None:
    """Read by offsets and RFCs alone, without any code of ours."""
    sealed = bytes.fromhex(case["sealed"])
    assert sealed[:6] == b"DDBe\x01\x01"
    assert sealed[6] == (1 if case["tombstone"] else 0)
    header_bytes = int.from_bytes(sealed[7:11], "big")
    key_id = reference.hkdf_expand(reference.hkdf_extract(b"", MASTER), b"deltadatabase/v1/key-id", 8)
    assert sealed[11:19] == key_id == bytes.fromhex(GOLDEN["key_id"])
    salt, nonce = sealed[19:51], sealed[51:63]
    assert (salt.hex(), nonce.hex()) == (case["salt"], case["nonce"])
    numbers = [int.from_bytes(sealed[at : at + 8], "big") for at in (63, 71, 79)]
    assert numbers == [case["version"], case["term"], case["updated_ms"]]
    assert sealed[87:103].hex() == case["write_id"]
    assert sealed[103] == len(case["recent"])
    names = 104 + 24 * len(case["recent"])
    schema_id, key = case["schema_id"].encode(), case["key"].encode()
    text = len(schema_id).to_bytes(2, "big") + schema_id + len(key).to_bytes(2, "big") + key
    assert sealed[names : names + len(text)] == text
    assert sealed[names + len(text) : header_bytes - 32] in (b"\x00", b"\x01\x00")
    assert len(sealed) % 2 == (1 if case["tombstone"] else 0)
    keys = reference.hkdf_expand(reference.hkdf_extract(salt, MASTER), b"deltadatabase/v1/entity\x01", 64)
    mac = hmac.digest(keys[32:], sealed[: header_bytes - 32], "sha256")
    assert sealed[header_bytes - 32 : header_bytes] == mac
    document = AESGCM(keys[:32]).decrypt(nonce, sealed[header_bytes:], sealed[:header_bytes])
    assert document == case["document"].encode()


def test_the_golden_cases_cover_both_paddings_of_both_kinds() -> None:
    seen = set()
    for case in GOLDEN["cases"]:
        sealed = bytes.fromhex(case["sealed"])
        unpadded = 104 + 24 * len(case["recent"]) + 4 + len((case["schema_id"] + case["key"]).encode()) + 1
        seen.add((case["tombstone"], int.from_bytes(sealed[7:11], "big") - 32 - unpadded))
    assert seen == {(False, 0), (False, 1), (True, 0), (True, 1)}
