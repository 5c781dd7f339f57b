"""Secrets that a server made and kept: admin key, master key, join token, one small file each."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deltadatabase.errors import StartupError
from deltadatabase.statefolder import replace_durably, sync_directory

ADMIN_KEY: Final = "admin-key"
MASTER_KEY: Final = "master-key"
JOIN_TOKEN: Final = "join-token"  # noqa: S105 - a file name

_FILE_BYTES_MAX: Final = 4096


def load(path: Path) -> str | None:
    """Read the secret that a file holds; None when there is no file.

    A file that others may read is not refused: a volume's mount may dictate the mode
    (Kubernetes ``fsGroup``). ``is_private`` lets the caller warn.

    Raises:
        StartupError: ``state_unusable``: it cannot be read, or holds no secret.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _unusable(path, f"cannot be read: {exc.strerror}") from None
    text = data.decode("ascii", errors="replace").strip()
    # An empty file is never replaced by a new secret: it may be all that is left of a lost
    # master key, and a new one would hide the loss.
    if not text or not text.isascii() or not text.isprintable() or len(data) > _FILE_BYTES_MAX:
        raise _unusable(
            path, "holds no secret: restore it from a backup, or remove it to have a new one made"
        )
    return text


def load_or_create(path: Path, make: Callable[[], str]) -> tuple[str, bool]:
    """Return the secret of a file and whether it was made by this call.

    The file appears complete or not at all, mode 0600, durable before the return; of
    several processes that create it at once, one wins and all return its secret. A missing
    directory is made with mode 0700.

    Args:
        path: the file.
        make: makes a new secret, printable ASCII.

    Raises:
        StartupError: ``state_unusable``: the directory or the file cannot be used.
    """
    existing = load(path)
    if existing is not None:
        return existing, False
    try:
        make_private_directory(path.parent)
        created = _create(path, make())
    except OSError as exc:
        raise _unusable(path, f"cannot be written: {exc.strerror}") from None
    secret = load(path)
    if secret is None:
        raise _unusable(path, "was removed while it was being made")
    return secret, created


def replace(path: Path, secret: str) -> None:
    """Put a secret in the place of the one that a file holds, or make the file; durable on return.

    Raises:
        StartupError: ``state_unusable``: it cannot be written.
    """
    try:
        replace_durably(path, f"{secret}\n".encode("ascii"))
    except OSError as exc:
        raise _unusable(path, f"cannot be written: {exc.strerror}") from None


def make_private_directory(path: Path) -> None:
    """Make a directory (and its parents) if it is missing; the new directory has mode 0700."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    sync_directory(path.parent)


def is_private(path: Path) -> bool:
    """Whether nobody but the owner may read or change the file."""
    return not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def _create(path: Path, secret: str) -> bool:
    # mkstemp gives mode 0600 whatever the umask; link, unlike rename, never replaces a file
    # that another process has put there meanwhile.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
            created = True
        except FileExistsError:
            created = False
    finally:
        Path(temporary).unlink()
    sync_directory(path.parent)
    return created


def _unusable(path: Path, reason: str) -> StartupError:
    return StartupError(f"the {path.name} file {reason}", code="state_unusable")
