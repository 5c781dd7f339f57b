"""What somebody who can write to the store may do to a sealed entity, and whether it is refused.

``forgeries`` makes the objects, ``Court`` puts each in an entity's place and judges what a worker
does with it. A verdict is a sentence about what went wrong; no verdicts means that all was refused.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from vectors.reference import hkdf_expand, hkdf_extract

from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import DeltaError
from deltadatabase.model import Command, Header, Op, RecentWrite, RecentWrites
from deltadatabase.storage.base import Store, When
from deltadatabase.storage.paths import entity_path
from support.clocks import FakeClock, SeededRandom
from support.workers import KEYRING, make_committer

SALT: Final = slice(19, 51)
KEY_ID: Final = slice(11, 19)
VERSION: Final = slice(63, 71)
TERM: Final = slice(71, 79)
TIME: Final = slice(79, 87)
WRITE_ID: Final = slice(87, 103)
FLAGS: Final = 6
RECENT: Final = slice(104, 128)
INFO: Final = b"deltadatabase/v1/entity\x01"

NAME: Final = ("s", "victim")
TERM_NOW: Final = 5
#: Of an odd length: cut off, it leaves an object of a tombstone's size.
DOCUMENT: Final = b'{"secret":"hummingbirds"}'
WITNESS: Final = ("s", "witness")


@dataclass(frozen=True)
class Forgery:
    """One object to put in the victim's place; ``code`` is the only answer that is right."""

    what: str
    data: bytes
    code: str = "integrity"


def header(name: tuple[str, str], *, version: int = 2, tombstone: bool = False, seed: int = 0) -> Header:
    draw = SeededRandom(seed + 1000)
    return Header(
        schema_id=name[0],
        key=name[1],
        version=version,
        term=TERM_NOW,
        updated_ms=1_700_000_000_000,
        write_id=draw(16),
        recent=RecentWrites.of(RecentWrite(version - 1, draw(16))),
        tombstone=tombstone,
    )


def seal(name: tuple[str, str] = NAME, document: bytes = DOCUMENT, *, seed: int = 0, **more: int) -> bytes:
    return Sealer(KEYRING, SeededRandom(seed)).seal(header(name, seed=seed, **more), document)


def body_offset(data: bytes) -> int:
    return int.from_bytes(data[7:11])


def signed_anew(data: bytes) -> bytes:
    """The object with a MAC that fits its header: for whom the MAC is no obstacle."""
    offset = body_offset(data)
    keys = hkdf_expand(hkdf_extract(data[SALT], KEYRING.primary.reveal()), INFO, 64)
    mac = hmac.digest(keys[32:], data[: offset - 32], "sha256")
    return data[: offset - 32] + mac + data[offset:]


def changed(data: bytes, place: slice | int, *, to: bytes | None = None) -> bytes:
    where = slice(place, place + 1) if isinstance(place, int) else place
    new = bytes(byte ^ 0x5A for byte in data[where]) if to is None else to
    return data[: where.start] + new + data[where.stop :]


def flips(data: bytes) -> Iterator[Forgery]:
    """Every bit of every byte. A key id that nobody holds is told apart, by design."""
    for place in range(len(data)):
        code = "key_unavailable" if KEY_ID.start <= place < KEY_ID.stop else "integrity"
        for bit in range(8):
            yield Forgery(
                f"flip byte={place} bit={bit}",
                changed(data, place, to=bytes((data[place] ^ 1 << bit,))),
                code,
            )


def lengths(data: bytes) -> Iterator[Forgery]:
    for length in range(len(data)):
        yield Forgery(f"truncate length={length}", data[:length])
    for more in (b"\0", b"\0\0", data[-1:], bytes(16), data, bytes(1 << 20)):
        yield Forgery(f"extend by={len(more)} starts={more[:1].hex()}", data + more)
    yield Forgery("twice the header", data[: body_offset(data)] + data)


def foreign_bytes(data: bytes) -> Iterator[Forgery]:
    for what, foreign in {
        "json": b'{"a":1}',
        "zeros": bytes(400),
        "ones": b"\xff" * 400,
        "zip": b"PK\x03\x04" + bytes(300),
        "magic alone": b"DDBe",
        "magic and zeros": b"DDBe" + bytes(500),
        "huge header length": changed(data, slice(7, 11), to=b"\xff\xff\xff\xff"),
        "no header length": changed(data, slice(7, 11), to=bytes(4)),
        "many recent writes": changed(data, 103, to=b"\xff"),
        "16 MiB": SeededRandom(9)(1 << 10) * (1 << 14),
    }.items():
        yield Forgery(f"foreign {what}", foreign)


def wrong_places(data: bytes) -> Iterator[Forgery]:
    """Whole objects, sealed by a worker, where they do not belong."""
    yield Forgery("swap key of the same schema", seal(("s", "other")))
    yield Forgery("swap same key of another schema", seal(("t", "victim")))
    yield Forgery("swap schema and key shifted", seal(("sv", "ictim")))
    yield Forgery("swap tombstone of another key", seal(("s", "other"), b"", tombstone=True))
    stranger = Keyring(MasterKey(b"\x08" * 32))
    foreign = Sealer(stranger, SeededRandom(1)).seal(header(NAME), DOCUMENT)
    yield Forgery("foreign key", foreign, "key_unavailable")
    yield Forgery("foreign key under our key id", changed(foreign, KEY_ID, to=data[KEY_ID]))


def splices(data: bytes) -> Iterator[Forgery]:
    """Parts of two writes of the same entity."""
    other = seal(seed=7, document=DOCUMENT[::-1], version=3)
    assert len(other) == len(data)
    at = body_offset(data)
    yield Forgery("splice header with another ciphertext", data[:at] + other[at:])
    yield Forgery("splice ciphertext with another header", other[:at] + data[at:])
    yield Forgery("splice header with another tag", data[:-16] + other[-16:])
    yield Forgery("splice header with another mac", data[: at - 32] + other[at - 32 : at] + data[at:])
    # The same keys are derived, so that only the fields around the salt tell the writes apart.
    for what, place in {"version": VERSION, "write id": WRITE_ID, "nonce": slice(51, 63)}.items():
        yield Forgery(f"splice {what} of another write", changed(data, place, to=other[place]))


FIELDS: Final = {
    "version": (VERSION, (99).to_bytes(8)),
    "term higher": (TERM, (TERM_NOW + 1).to_bytes(8)),
    "term highest": (TERM, b"\xff" * 8),
    "term lower": (TERM, (1).to_bytes(8)),
    "time": (TIME, None),
    "write id": (WRITE_ID, None),
    "recent write": (RECENT, None),
    "tombstone flag": (FLAGS, b"\x01"),
    "unknown flag": (FLAGS, b"\x02"),
    "suite": (5, b"\x00"),
    "format version": (4, b"\x02"),
    "nonce": (slice(51, 63), None),
    "salt": (SALT, None),
}


def fields(data: bytes) -> Iterator[Forgery]:
    """Each field changed, without the MAC and with one that fits: then the AAD must catch it."""
    for what, (place, value) in FIELDS.items():
        forged = changed(data, place, to=value)
        yield Forgery(f"field {what}", forged)
        yield Forgery(f"re-signed {what}", signed_anew(forged))
    yield Forgery("field key id", changed(data, KEY_ID), "key_unavailable")
    # A tombstone made of a live entity: flag, no ciphertext but its tag, parity put right.
    short = changed(data, FLAGS, to=b"\x01")[: body_offset(data)] + data[-16:]
    yield Forgery("made a tombstone", short)
    yield Forgery("re-signed made a tombstone", signed_anew(short))


def forgeries(data: bytes) -> Iterator[Forgery]:
    """All of them, for one sealed entity."""
    for kind in (flips, lengths, foreign_bytes, wrong_places, splices, fields):
        yield from kind(data)


def few_forgeries(data: bytes) -> Iterator[Forgery]:
    """One of each kind and place, for stores where each costs time."""
    for kind in (foreign_bytes, wrong_places, splices, fields):
        yield from kind(data)
    yield from list(flips(data))[:: 8 * 7 + 1]
    yield from list(lengths(data))[::17]


@dataclass
class Court:
    """A worker over a store in which the victim's object is replaced, again and again.

    Attributes:
        store: anything that fulfils the contract.
        verdicts: what was not refused as it must be.
    """

    store: Store
    verdicts: list[str] = field(default_factory=list)

    async def begin(self, data: bytes) -> None:
        """Store the victim and a witness, whose service must go on."""
        await self.store.put(entity_path(*NAME), data, When.ABSENT)
        await self.store.put(entity_path(*WITNESS), seal(WITNESS, b'"witness"', seed=3), When.ABSENT)

    async def judge(self, forgery: Forgery, genuine: bytes) -> None:
        """Put the forgery in place, ask for everything that touches it, put the genuine one back."""
        path = entity_path(*NAME)
        await self.store.put(path, forgery.data, When.ALWAYS)
        worker = make_committer(self.store, clock=FakeClock(), seed=11)
        for op in (Op.GET, Op.PUT, Op.DELETE, Op.RESOLVE, Op.GET):
            try:
                await worker.execute(_command(op))
            except DeltaError as exc:
                if exc.code != forgery.code:
                    self._found(forgery, f"{op.name} answered {exc.code}")
                if "hummingbird" in exc.detail or exc.term:
                    self._found(forgery, f"{op.name} revealed something")
            else:
                self._found(forgery, f"{op.name} was served")
            try:
                if worker.fast(_command(Op.GET)) is not None:
                    self._found(forgery, f"{op.name} cached it")
            except DeltaError as exc:
                self._found(forgery, f"{op.name} cached an answer {exc.code}")
        if (await self.store.get(path)).data != forgery.data:
            self._found(forgery, "it was replaced")
        try:
            witness = await worker.execute(_command(Op.GET, WITNESS))
            if witness.document != b'"witness"':
                self._found(forgery, "the witness changed")
            await self.store.put(path, genuine, When.ALWAYS)
            again = await worker.execute(_command(Op.GET))
            if again.document != DOCUMENT:
                self._found(forgery, "something of it was kept")
        except DeltaError as exc:
            self._found(forgery, f"others or the genuine one answered {exc.code}")
            await self.store.put(path, genuine, When.ALWAYS)

    def _found(self, forgery: Forgery, what: str) -> None:
        self.verdicts.append(f"{forgery.what}: {what}")


async def judged(store: Store, genuine: bytes, *, thorough: bool = True) -> list[str]:
    """Try everything against a worker on ``store``; what was not refused as it must be."""
    court = Court(store)
    await court.begin(genuine)
    for forgery in forgeries(genuine) if thorough else few_forgeries(genuine):
        await court.judge(forgery, genuine)
        await asyncio.sleep(0)
    return court.verdicts


def header_verdicts(genuine: bytes) -> list[str]:
    """Forged headers that ``open_header`` or ``meta_json`` take for true.

    Neither sees the ciphertext, so forgeries in it, and headers that were signed anew, are none.
    """
    sealer = Sealer(KEYRING, SeededRandom(1))
    assert sealer.open_header(genuine, *NAME).write_id == genuine[WRITE_ID]
    found = []
    names_only = {"swap"}
    for forgery in forgeries(genuine):
        if (
            forgery.what.startswith("re-signed")
            or forgery.data[: body_offset(genuine)] == genuine[: body_offset(genuine)]
        ):
            continue
        # A whole object of another write is a true header; only its name may be wrong.
        calls = {"open_header": lambda data: sealer.open_header(data, *NAME)}
        if forgery.what.split()[0] not in names_only:
            calls["meta_json"] = sealer.meta_json  # type: ignore[assignment]
        if forgery.what == "splice ciphertext with another header":
            continue
        for call, function in calls.items():
            try:
                function(forgery.data)
            except DeltaError as exc:
                if exc.code != forgery.code:
                    found.append(f"{forgery.what}: {call} answered {exc.code}")
            except OverflowError:  # It went on with a time that no clock shows.
                found.append(f"{forgery.what}: {call} believed it")
            else:
                found.append(f"{forgery.what}: {call} believed it")
    return found


def _command(op: Op, name: tuple[str, str] = NAME) -> Command:
    return Command(
        op=op,
        schema_id=name[0],
        key=name[1],
        shard=1,
        term=TERM_NOW,
        write_id=b"\x01" * 16 if op is not Op.GET else b"",
        document=b'{"new":1}' if op is Op.PUT else b"",
    )
