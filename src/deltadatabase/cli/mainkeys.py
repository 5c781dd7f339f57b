"""Where a main worker's master keys come from: given by the operator, or made and kept by ourselves.

Kept keys are files of the state directory, mode 0600:

- ``master-key``: the primary one.
- ``master-key-next``: the one that a rotation goes to, until it is the primary one.
- ``master-key-old-<key id>``: former ones, which still open what they sealed.
- ``master-key-retired-<key id>``: former ones that seal nothing any more. They are kept for backups
  from before, and no program reads them.

At each moment of a rotation every key that seals anything is in one of the first three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from deltadatabase.cli import keyfiles
from deltadatabase.clock import Random
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import Conflict, DeltaError, StartupError, Unavailable
from deltadatabase.settings import Secret, reread
from deltadatabase.statefolder import sync_directory

NEXT: Final = "master-key-next"
OLD: Final = "master-key-old-"
RETIRED: Final = "master-key-retired-"


class MainKeys(Protocol):
    """Gives the keyring at the start, and is the source of a rotation (``gateway.rotation.KeySource``)."""

    @property
    def kept(self) -> bool: ...

    def keyring(self) -> Keyring:
        """The keyring at the start. Raises StartupError."""
        ...

    def target(self, present: Keyring) -> Keyring: ...

    def adopt(self, keyring: Keyring) -> None: ...

    def retire(self, key_ids: Sequence[str]) -> None: ...


class GivenKeys:
    """Keys that the operator gives, in the environment or in files.

    Args:
        primary: the key that is to seal.
        previous: the one before it.
    """

    kept = False

    def __init__(self, primary: Secret, previous: Secret | None) -> None:
        self._primary = primary
        self._previous = previous

    def keyring(self) -> Keyring:
        """Read the keys, anew where they are in files. Raises StartupError."""
        previous = [] if self._previous is None else [_key(reread(self._previous))]
        return Keyring(_key(reread(self._primary)), previous)

    def target(self, present: Keyring) -> Keyring:
        """See ``KeySource``."""
        try:
            given = self.keyring()
        except StartupError as exc:
            raise Conflict(exc.detail, code="nothing_to_rotate") from None
        if present.primary.key_id not in given.ids:
            raise Conflict(
                "the master key in use must stay readable: give it as -master-key-previous, and the new one "
                "as -master-key",
                code="nothing_to_rotate",
            )
        if len({*given.ids, *present.ids}) == 1:
            raise Conflict(
                "there is one master key only: give the new one as -master-key (MASTER_KEY) and the one in "
                "use as -master-key-previous (MASTER_KEY_PREVIOUS), in their files or with a restart of the "
                "main worker",
                code="nothing_to_rotate",
            )
        return Keyring(given.primary, [given.get(key_id) for key_id in given.ids] + _all(present))

    def adopt(self, keyring: Keyring) -> None:
        """Nothing to do: the operator has given the keys."""

    def retire(self, key_ids: Sequence[str]) -> None:
        """Nothing to do: the operator leaves them out, and workers do not open anything with them."""


class KeptKeys:
    """Keys that are made and kept in a state directory.

    Args:
        directory: the state directory.
        random: makes keys.
        on_made: told of the file when the very first key was made.
    """

    kept = True

    def __init__(self, directory: Path, random: Random, *, on_made: Callable[[Path], None]) -> None:
        self._directory = directory
        self._random = random
        self._on_made = on_made

    @property
    def file(self) -> Path:
        """The file of the primary key."""
        return self._directory / keyfiles.MASTER_KEY

    def keyring(self) -> Keyring:
        """Read the keys; make the first one. Raises StartupError."""
        text, created = keyfiles.load_or_create(self.file, self._new)
        if created:
            self._on_made(self.file)
        return Keyring(MasterKey.from_hex(text), other_kept_keys(self._directory))

    def target(self, present: Keyring) -> Keyring:
        """See ``KeySource``: the key that is to be next, made by the first call. Raises Unavailable."""
        path = self._directory / NEXT
        try:
            key = MasterKey.from_hex(keyfiles.load_or_create(path, self._new)[0])
            if key.key_id == present.primary.key_id:
                # Adopted; only this copy of it was not removed any more.
                path.unlink()
                key = MasterKey.from_hex(keyfiles.load_or_create(path, self._new)[0])
        except (StartupError, OSError) as exc:
            raise _unavailable() from exc
        return Keyring(key, _all(present))

    def adopt(self, keyring: Keyring) -> None:
        """Make the key that was next the primary one on disk. Raises Unavailable."""
        try:
            former = MasterKey.from_hex(keyfiles.load(self.file) or "")
            keyfiles.replace(self._directory / f"{OLD}{former.key_id.hex()}", former.reveal().hex())
            keyfiles.replace(self.file, keyring.primary.reveal().hex())
            (self._directory / NEXT).unlink(missing_ok=True)
        except (DeltaError, OSError) as exc:
            raise _unavailable() from exc

    def retire(self, key_ids: Sequence[str]) -> None:
        """Put keys aside. Raises Unavailable."""
        try:
            for key_id in key_ids:
                path = self._directory / f"{OLD}{key_id}"
                if path.exists():
                    path.rename(self._directory / f"{RETIRED}{key_id}")
            sync_directory(self._directory)
        except OSError as exc:
            raise _unavailable() from exc

    def _new(self) -> str:
        return MasterKey.generate(self._random).reveal().hex()


def other_kept_keys(directory: Path) -> list[MasterKey]:
    """Read the keys beside the primary one that a state directory keeps. Raises StartupError."""
    paths = [directory / NEXT, *sorted(directory.glob(f"{OLD}*"))]
    return [MasterKey.from_hex(text) for path in paths if (text := keyfiles.load(path)) is not None]


def _key(secret: Secret) -> MasterKey:
    return MasterKey.from_hex(secret.reveal())


def _all(keyring: Keyring) -> list[MasterKey]:
    return [keyring.get(key_id) for key_id in keyring.ids]


def _unavailable() -> Unavailable:
    return Unavailable("the state directory cannot keep the new master key", code="state_unavailable")
