"""Master keys: their ids, their check values, and which of them a database knows.

Each use of a master key has a key of its own, derived with HKDF-SHA256 (RFC 5869) under a
label of its own; the derivation for entities is in ``envelope.py``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final, Literal, final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from deltadatabase.clock import Random
from deltadatabase.errors import Invalid, StartupError, Unavailable
from deltadatabase.model import DatabaseInfo, KeyId

MASTER_KEY_BYTES: Final = 32

_KEY_ID_LABEL: Final = b"deltadatabase/v1/key-id"
_CHECK_VALUE_LABEL: Final = b"deltadatabase/v1/check-value"
_FINGERPRINT_LABEL: Final = b"deltadatabase/v1/keyring"
_PAYLOAD_FORMAT: Final = b"\x01"
_HEX_KEY: Final = re.compile(r"[0-9A-Fa-f]{64}")


@final
class MasterKey:
    """A 256-bit key from which the keys of single entities are derived.

    Its text forms never show it; ``reveal`` does.

    Attributes:
        key_id: names the key without revealing it; stored with everything that it seals.
    """

    __slots__ = ("_secret", "key_id")

    def __init__(self, secret: bytes) -> None:
        """Take the key's 32 bytes. Raises Invalid for another length."""
        if len(secret) != MASTER_KEY_BYTES:
            raise Invalid(f"a master key has {MASTER_KEY_BYTES} bytes, bytes={len(secret)}")
        self._secret = bytes(secret)
        self.key_id = KeyId(_derive(self._secret, _KEY_ID_LABEL)[:8])

    @classmethod
    def from_hex(cls, text: str) -> MasterKey:
        """Read 64 hex digits; white space around them is ignored.

        Raises:
            StartupError: ``bad_flag``; says what is wrong without repeating the value.
        """
        digits = text.strip()
        if not _HEX_KEY.fullmatch(digits):
            wrong = "other characters" if len(digits) == 2 * MASTER_KEY_BYTES else f"{len(digits)} characters"
            raise StartupError(f"the master key must be 64 hex digits, it has {wrong}", code="bad_flag")
        return cls(bytes.fromhex(digits))

    @classmethod
    def generate(cls, random: Random) -> MasterKey:
        """Make a new key."""
        return cls(random(MASTER_KEY_BYTES))

    def reveal(self) -> bytes:
        """The key itself, for deriving from it and for storing it."""
        return self._secret

    def check_value(self, database_id: str) -> str:
        """Hex digest by which a database recognises this key, different in each database."""
        return hmac.digest(_derive(self._secret, _CHECK_VALUE_LABEL), database_id.encode(), "sha256").hex()

    def __repr__(self) -> str:
        return f"MasterKey(key_id={self.key_id.hex()})"


@final
class Keyring:
    """The master key that seals, and earlier ones that only open.

    Attributes:
        primary: seals every new write.
        fingerprint: names this keyring without revealing it: which keys it has, and which is the primary.
    """

    __slots__ = ("_by_id", "fingerprint", "primary")

    def __init__(self, primary: MasterKey, previous: Iterable[MasterKey] = ()) -> None:
        self.primary = primary
        self._by_id = {primary.key_id: primary}
        for key in previous:
            self._by_id.setdefault(key.key_id, key)
        named = _FINGERPRINT_LABEL + primary.key_id + b"".join(sorted(self._by_id))
        self.fingerprint = hashlib.sha256(named).digest()[:16]

    @property
    def ids(self) -> tuple[KeyId, ...]:
        """Ids of all keys, the primary's first."""
        return tuple(self._by_id)

    def get(self, key_id: bytes) -> MasterKey:
        """The key with this id.

        Raises:
            Unavailable: ``key_unavailable``; a refreshed keyring may have it.
        """
        key = self._by_id.get(KeyId(key_id))
        if key is None:
            raise Unavailable(
                f"no master key here opens this entity, key_id={key_id.hex()}", code="key_unavailable"
            )
        return key

    def with_readable(self, key: MasterKey) -> Keyring:
        """This keyring and one more key, which seals nothing."""
        return Keyring(self.primary, (*self._by_id.values(), key))

    def promoted(self, key_id: bytes) -> Keyring:
        """The same keys with another one of them as the primary. Raises Unavailable: it is not there."""
        return Keyring(self.get(key_id), self._by_id.values())

    def without(self, key_ids: Iterable[str]) -> Keyring:
        """The same without the keys with these ids (hex). The primary key stays."""
        dropped = set(key_ids)
        kept = [key for key_id, key in self._by_id.items() if key_id.hex() not in dropped]
        return Keyring(self.primary, kept)

    def to_payload(self) -> bytes:
        """All keys as bytes, to be wrapped for a worker: format 1, then each key, the primary first."""
        return _PAYLOAD_FORMAT + b"".join(key.reveal() for key in self._by_id.values())

    @classmethod
    def from_payload(cls, payload: bytes) -> Keyring:
        """Inverse of ``to_payload``. Raises Invalid."""
        keys = payload[1:]
        if payload[:1] != _PAYLOAD_FORMAT or not keys or len(keys) % MASTER_KEY_BYTES:
            raise Invalid("the keyring received is malformed")
        primary, *previous = (
            MasterKey(keys[start : start + MASTER_KEY_BYTES])
            for start in range(0, len(keys), MASTER_KEY_BYTES)
        )
        return cls(primary, previous)

    def __repr__(self) -> str:
        return f"Keyring(ids={[key_id.hex() for key_id in self._by_id]})"


def check_database(keyring: Keyring, info: DatabaseInfo) -> DatabaseInfo | None:
    """Decide whether the keyring fits an existing database: it must have every key that is in use there.

    A database that knows no key at all fits none: whoever creates one records its primary key.

    Returns:
        The database with the primary key added, to be stored before anything is sealed with
        it; None when it is there already.

    Raises:
        StartupError: ``wrong_master_key``: a key that the database uses is missing, or has another check
            value; or the primary is one that was retired. Nothing may be written.
    """
    primary = keyring.primary
    if primary.key_id.hex() in info.retired_keys:
        raise _wrong(
            f"this master key was retired by a rotation, key_id={primary.key_id.hex()}; the database "
            f"uses {_listed(info.keys)}"
        )
    standings = {key_id.hex(): standing_of(keyring.get(key_id), info) for key_id in keyring.ids}
    for key_id, standing in standings.items():
        if standing == "wrong":
            raise _wrong(f"the master key does not fit its check value in the database, key_id={key_id}")
    missing = info.keys.keys() - standings.keys()
    if missing and missing != info.keys.keys():
        raise _wrong(
            f"entities are still sealed with a master key that is not given, key_id={_listed(missing)}: "
            "give it as -master-key-previous until deltadb rotate has said that it can be retired"
        )
    if missing or not info.keys:
        raise _wrong(
            "the master key is not the one that this database was sealed with: "
            f"key_id={primary.key_id.hex()}, the database knows {_listed(info.keys)}; while it is exchanged "
            "give that one as -master-key-previous"
        )
    if primary.key_id.hex() in info.keys:
        return None
    keys = {**info.keys, primary.key_id.hex(): primary.check_value(info.database_id)}
    return msgspec.structs.replace(info, keys=keys)


def _wrong(detail: str) -> StartupError:
    return StartupError(detail, code="wrong_master_key")


def _listed(key_ids: Iterable[str]) -> str:
    return ", ".join(sorted(key_ids)) or "none"


def standing_of(key: MasterKey, info: DatabaseInfo) -> Literal["fits", "unknown", "wrong"]:
    """What a database knows of a key: its check value, nothing, or another check value of that id."""
    recorded = info.keys.get(key.key_id.hex())
    if recorded is None:
        return "unknown"
    fits = hmac.compare_digest(recorded.encode(), key.check_value(info.database_id).encode())
    return "fits" if fits else "wrong"


def _derive(secret: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label).derive(secret)
