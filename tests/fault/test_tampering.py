"""Objects that somebody changed in the store: each is refused, and each planted bug is noticed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.clocks import FakeClock, SeededRandom
from support.fake_store import FakeStore
from support.tampering import (
    NAME,
    TERM_NOW,
    body_offset,
    few_forgeries,
    forgeries,
    header_verdicts,
    judged,
    seal,
)
from support.workers import make_committer

from deltadatabase.clock import SystemClock, system_random
from deltadatabase.crypto import envelope
from deltadatabase.crypto import format as layout
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.errors import Corrupt, NotFound, NotOwner
from deltadatabase.model import Command, Op
from deltadatabase.storage.base import When
from deltadatabase.storage.local import DirectoryObjects
from deltadatabase.storage.paths import entity_path

_ids = SeededRandom(99)


async def test_every_forgery_is_refused_with_the_one_error_again_and_again():
    assert await judged(FakeStore(), seal()) == []


async def test_forgeries_of_a_directory_are_refused(tmp_path):
    store = DirectoryObjects(tmp_path, clock=SystemClock(), random=system_random)
    try:
        assert await judged(store, seal(), thorough=False) == []
    finally:
        await store.close()


async def test_no_header_is_believed_before_its_mac():
    assert header_verdicts(seal()) == []


@pytest.mark.parametrize("other", ["live", "dead"])
async def test_an_object_copied_over_a_tombstone_brings_nothing_back(other):
    store = FakeStore()
    owner = make_committer(store, clock=FakeClock(), seed=1)
    await owner.execute(command(Op.PUT))
    await owner.execute(command(Op.DELETE))
    copied = seal(("s", "other")) if other == "live" else seal(("s", "other"), b"", tombstone=True)
    await store.put(entity_path(*NAME), copied, When.ALWAYS)
    cold = make_committer(store, clock=FakeClock(), seed=2)
    for op in (Op.GET, Op.PUT, Op.DELETE):
        with pytest.raises(Corrupt):
            await cold.execute(command(op))
    assert store.objects[entity_path(*NAME)].data == copied


def command(op: Op) -> Command:
    document = b"1" if op is Op.PUT else b""
    return Command(
        op=op, schema_id=NAME[0], key=NAME[1], shard=1, term=TERM_NOW, document=document, write_id=_ids(16)
    )


def test_the_harness_tries_every_bit_and_every_length():
    genuine = seal()
    names = [forgery.what for forgery in forgeries(genuine)]
    assert len(names) == len(set(names))
    assert sum(name.startswith("flip") for name in names) == 8 * len(genuine)
    assert sum(name.startswith("truncate") for name in names) == len(genuine)
    assert all(forgery.data != genuine for forgery in forgeries(genuine))
    assert len(list(few_forgeries(genuine))) > 80


# -- planted bugs: what the harness must notice -----------------------------------------------


class _NoAssociatedData:
    """AES-GCM as somebody uses it who forgets the associated data."""

    def __init__(self, key: bytes) -> None:
        self._inner = AESGCM(key)

    def encrypt(self, nonce, data, associated):
        return self._inner.encrypt(nonce, data, None)

    def decrypt(self, nonce, data, associated):
        return self._inner.decrypt(nonce, bytes(data), None)


class _NoTag:
    """AES-GCM as somebody uses it who decrypts without a look at the tag."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, nonce, data, associated):
        return AESGCM(self._key).encrypt(nonce, data, associated)

    def decrypt(self, nonce, data, associated):
        counter = modes.CTR(nonce + (2).to_bytes(4))
        return Cipher(algorithms.AES(self._key), counter).decryptor().update(bytes(data)[:-16])


async def verdicts() -> list[str]:
    return await judged(FakeStore(), seal(), thorough=False)


async def test_planted_no_associated_data_is_noticed(monkeypatch):
    monkeypatch.setattr(envelope, "AESGCM", _NoAssociatedData)
    found = await verdicts()
    # The MAC still guards the header, so only he who can forge one gets in: that is what it is for.
    assert any(verdict.startswith("re-signed version: GET was served") for verdict in found)
    assert any(verdict.startswith("re-signed term higher: GET answered not_owner") for verdict in found)
    assert all(verdict.startswith("re-signed") for verdict in found)


async def test_planted_tag_not_checked_is_noticed(monkeypatch):
    monkeypatch.setattr(envelope, "AESGCM", _NoTag)
    genuine = seal()
    found = await verdicts()
    in_body = [verdict for verdict in found if verdict.startswith("flip")]
    assert in_body and all(
        int(verdict.split("byte=")[1].split()[0]) >= body_offset(genuine) for verdict in in_body
    )
    assert any(verdict.startswith("splice header with another ciphertext") for verdict in found)


async def test_planted_mac_not_checked_is_noticed(monkeypatch):
    monkeypatch.setattr(envelope.hmac, "compare_digest", lambda one, other: True)
    found = header_verdicts(seal())
    for field in ("version", "term higher", "write id", "time", "recent write"):
        assert f"field {field}: open_header believed it" in found
        assert f"field {field}: meta_json believed it" in found


async def test_planted_term_believed_before_the_mac_is_noticed(monkeypatch):
    checked = Sealer._checked

    def hasty(self, data):
        term = layout.parse(data).header.term
        if term > TERM_NOW:
            raise NotOwner("entity was written under a newer term", term=term)
        return checked(self, data)

    monkeypatch.setattr(Sealer, "_checked", hasty)
    found = await verdicts()
    assert "field term higher: GET answered not_owner" in found
    assert "field term highest: DELETE answered not_owner" in found
    # Tried as a create first: whether that was what is there cannot be told without the header.
    assert "field term highest: PUT answered outcome_unknown" in found


async def test_planted_tombstone_flag_believed_before_the_mac_is_noticed(monkeypatch):
    opened = Sealer.open

    def hasty(self, data, schema_id, key):
        parsed = layout.parse(data)
        return (parsed.header, b"") if parsed.header.tombstone else opened(self, data, schema_id, key)

    monkeypatch.setattr(Sealer, "open", hasty)
    found = await verdicts()
    assert "made a tombstone: DELETE was served" in found


@pytest.mark.parametrize("ignored", ["schema", "key"])
async def test_planted_name_not_compared_is_noticed(monkeypatch, ignored):
    opened = Sealer.open

    def careless(self, data, schema_id, key):
        header = layout.parse(data).header
        if ignored == "schema":
            return opened(self, data, header.schema_id, key)
        return opened(self, data, schema_id, header.key)

    monkeypatch.setattr(Sealer, "open", careless)
    expected = {"schema": "swap same key of another schema", "key": "swap key of the same schema"}
    assert f"{expected[ignored]}: GET was served" in await verdicts()


async def test_planted_damage_taken_for_absence_is_noticed(monkeypatch):
    opened = Sealer.open

    def lenient(self, data, schema_id, key):
        try:
            return opened(self, data, schema_id, key)
        except Corrupt:
            raise NotFound("there is no such entity") from None

    monkeypatch.setattr(Sealer, "open", lenient)
    assert "foreign zeros: GET answered not_found" in await verdicts()


async def test_planted_cache_of_what_was_refused_is_noticed(monkeypatch):
    opened = Sealer.open

    def forgetful(self, data, schema_id, key):
        # As if the bytes of the first read were kept and only checked when they came in.
        try:
            kept[:] = [opened(self, data, schema_id, key)]
        except Corrupt:
            if not kept:
                raise
        return kept[0]

    kept: list[object] = []
    monkeypatch.setattr(Sealer, "open", forgetful)
    assert any("GET was served" in verdict for verdict in await verdicts())
