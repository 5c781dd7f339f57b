"""The keyring in force, which every member of the cluster works with."""

from __future__ import annotations

from dataclasses import dataclass

from deltadatabase.crypto.keyring import Keyring


@dataclass(slots=True)
class Keys:
    """What the main worker hands out. Members take another keyring over as soon as they hear of it.

    Attributes:
        keyring: in force; replaced by a rotation.
        name: what people call the primary key; "": its id.
    """

    keyring: Keyring
    name: str = ""

    def fingerprint(self) -> bytes:
        """Names the keyring in force."""
        return self.keyring.fingerprint

    def label(self) -> str:
        """The primary key, as shown to people."""
        return self.name or self.keyring.primary.key_id.hex()
