"""Sealing and opening entities.

Every write has keys of its own: HKDF-SHA256 (RFC 5869) of the master key, with a random
salt and the label ``deltadatabase/v1/entity`` followed by the suite byte, gives an
AES-256-GCM key and a header key of 32 bytes each. So no key comes near the 2^32 messages to
which NIST SP 800-38D (section 8.3) limits random nonces. The header MAC, HMAC-SHA256 under
the header key, both authenticates the header and commits to the key, which GCM alone does
not. The whole header, MAC included, is the associated data.
"""

from __future__ import annotations

import base64
import hmac
from typing import Final, final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from deltadatabase.clock import Random, rfc3339
from deltadatabase.crypto import format as layout
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.model import Header

_SHA256: Final = SHA256()
_INFO: Final = b"deltadatabase/v1/entity" + bytes((layout.SUITE_AES_256_GCM,))
_SUITE_NAMES: Final = {layout.SUITE_AES_256_GCM: "HKDF-SHA256/HMAC-SHA256/AES-256-GCM"}


@final
class Sealer:
    """Seals and opens entities with the keys of a keyring. No I/O; holds no derived key.

    Opening raises the same ``Corrupt`` (code ``integrity``) whatever is wrong with the bytes:
    layout, header MAC, tag, or the name of another entity. A master key that the keyring
    does not hold is ``Unavailable`` (code ``key_unavailable``) instead.
    """

    __slots__ = ("_keyring", "_random")

    def __init__(self, keyring: Keyring, random: Random) -> None:
        self._keyring = keyring
        self._random = random

    @property
    def keyring(self) -> Keyring:
        """The keys in use."""
        return self._keyring

    @property
    def key_id(self) -> bytes:
        """Id of the master key that it seals with."""
        return self._keyring.primary.key_id

    def seal(self, header: Header, document: bytes) -> bytes:
        """Seal a document under the primary key with fresh keys and nonce.

        Args:
            header: what the entity says of itself; its ``key_id`` is replaced.
            document: the plaintext, empty for a tombstone.
        """
        master = self._keyring.primary
        drawn = self._random(layout.SALT_BYTES + layout.NONCE_BYTES)
        salt, nonce = drawn[: layout.SALT_BYTES], drawn[layout.SALT_BYTES :]
        data_key, header_key = _derive(master, salt)
        signed = layout.pack(
            header, key_id=master.key_id, salt=salt, nonce=nonce, document_bytes=len(document)
        )
        associated = signed + _mac(header_key, signed)
        return associated + AESGCM(data_key).encrypt(nonce, document, associated)

    def open(self, data: bytes, schema_id: str, key: str) -> tuple[Header, bytes]:
        """Check and decrypt the entity that ``data`` must be; the document is b"" for a tombstone.

        Raises:
            Corrupt: it is damaged, or another entity's.
            Unavailable: its master key is not in the keyring.
        """
        parsed, data_key = self._checked(data)
        header = parsed.header
        if header.schema_id != schema_id or header.key != key:
            raise layout.corrupt()
        try:
            document = AESGCM(data_key).decrypt(
                parsed.nonce, memoryview(data)[parsed.body_offset :], data[: parsed.body_offset]
            )
        except InvalidTag:
            raise layout.corrupt() from None
        return header, document

    def open_header(self, data: bytes, schema_id: str, key: str) -> Header:
        """Check the header of the entity that ``data`` must be, without decrypting the document.

        A damaged document is not noticed. Raises like ``open``.
        """
        header = self._checked(data)[0].header
        if header.schema_id != schema_id or header.key != key:
            raise layout.corrupt()
        return header

    def surviving_header(self, data: bytes) -> Header:
        """Check and return the header alone, whatever entity it names and however its body is damaged.

        For an operator's tools only: a request must ask for an entity by its name.

        Raises:
            Corrupt: the header itself is damaged or cut off, or this is no sealed entity.
            Unavailable: its master key is not in the keyring.
        """
        return self._checked(data, header_only=True)[0].header

    def meta_json(self, data: bytes) -> bytes:
        """The checked header of a sealed entity as readable JSON, for ``files/….meta.json``.

        Key id and write ids are lower-case hex; ``iv`` (the nonce), ``tag`` and ``salt`` are
        base64 (RFC 4648, section 4); ``time`` is RFC 3339 in UTC.

        Raises:
            Corrupt, Unavailable: like ``open``; the document itself is not checked.
        """
        parsed, _ = self._checked(data)
        header = parsed.header
        meta = {
            "format": layout.FORMAT_VERSION,
            "suite": _SUITE_NAMES[parsed.suite],
            "schema_id": header.schema_id,
            "key": header.key,
            "key_id": header.key_id.hex(),
            "iv": _base64(parsed.nonce),
            "tag": _base64(data[-layout.TAG_BYTES :]),
            "salt": _base64(parsed.salt),
            "version": header.version,
            "term": header.term,
            "time": rfc3339(header.updated_ms),
            "time_ms": header.updated_ms,
            "write_id": header.write_id.hex(),
            "recent": [
                {"version": write.version, "write_id": write.write_id.hex()} for write in header.recent
            ],
            "tombstone": header.tombstone,
        }
        return msgspec.json.format(msgspec.json.encode(meta), indent=2) + b"\n"

    def _checked(self, data: bytes, *, header_only: bool = False) -> tuple[layout.Parsed, bytes]:
        """Parse, check the header MAC, and return the data key with the now trusted header."""
        parsed = layout.parse(data, header_only=header_only)
        data_key, header_key = _derive(self._keyring.get(parsed.header.key_id), parsed.salt)
        mac = _mac(header_key, data[: parsed.mac_offset])
        if not hmac.compare_digest(mac, data[parsed.mac_offset : parsed.body_offset]):
            raise layout.corrupt()
        return parsed, data_key


def _derive(master: MasterKey, salt: bytes) -> tuple[bytes, bytes]:
    """Derive data key and header key of one write."""
    keys = HKDF(algorithm=_SHA256, length=64, salt=salt, info=_INFO).derive(master.reveal())
    return keys[:32], keys[32:]


def _mac(header_key: bytes, signed: bytes) -> bytes:
    # Not hmac.digest: that lets go of the interpreter's lock for this one microsecond.
    return hmac.new(header_key, signed, "sha256").digest()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
