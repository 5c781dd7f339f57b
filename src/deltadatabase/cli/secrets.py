"""Master keys, admin key and join tokens: given, kept in a file, or made at the first start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deltadatabase.auth.join import JoinPolicy, JoinToken
from deltadatabase.cli import keyfiles
from deltadatabase.cli.mainkeys import GivenKeys, KeptKeys, MainKeys, other_kept_keys
from deltadatabase.clock import system_random
from deltadatabase.crypto.keyring import MasterKey
from deltadatabase.errors import StartupError
from deltadatabase.settings import OperatorFlags, ProcessFlags, RouterFlags, WorkerSettings
from deltadatabase.storage.paths import DATABASE_PATH
from deltadatabase.telemetry.logging import get_logger

CLUSTER_FOLDER = "cluster"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """Which secrets this start found in a file or made; None where one was given.

    Attributes:
        master_key: file of the master key.
        admin_key: file of the admin key.
    """

    master_key: Path | None = None
    admin_key: Path | None = None


def main_secrets(settings: RouterFlags) -> tuple[MainKeys, str | None, Made]:
    """Return the source of master keys, the admin key (None in dev mode) and where they are kept.

    Raises:
        StartupError: a key or its file is unusable.
    """
    master_file: Path | None = None
    keys: MainKeys
    if settings.master_key is not None:
        keys = GivenKeys(settings.master_key, settings.master_key_previous)
    else:
        keys = kept = KeptKeys(settings.state_path, system_random, on_made=_warn_of_new_key)
        master_file = kept.file
        _refuse_new_key_for_old_data(settings, master_file)
    keys.keyring()
    if master_file is not None:
        _warn_if_open(master_file)
    admin_key: str | None = None
    admin_file: Path | None = None
    if settings.admin_key is not None:
        admin_key = settings.admin_key.reveal()
    elif not settings.dev:
        admin_file = settings.state_path / keyfiles.ADMIN_KEY
        admin_key, _ = keyfiles.load_or_create(admin_file, lambda: system_random(32).hex())
        _warn_if_open(admin_file)
    return keys, admin_key, Made(master_file, admin_file)


def _warn_of_new_key(file: Path) -> None:
    log.warning("a master key was made: back its file up, without it the data is lost", file=str(file))


def _refuse_new_key_for_old_data(settings: RouterFlags, master_file: Path) -> None:
    """A database in the directory was sealed with a key: a new one could open nothing of it."""
    database = settings.shared_fs / DATABASE_PATH
    if not master_file.exists() and not settings.s3.enabled and database.exists():
        raise StartupError(
            f"there is a database, but its master key is missing: restore {master_file} from its backup, "
            "name its directory with -state-dir, or give -master-key",
            code="wrong_master_key",
        )


def known_keys(settings: OperatorFlags) -> list[MasterKey]:
    """Return the master keys that are given or kept, the primary first; make none. May be empty.

    Raises:
        StartupError: a key or its file is unusable.
    """
    given = (settings.master_key, settings.master_key_previous)
    keys = [MasterKey.from_hex(secret.reveal()) for secret in given if secret is not None]
    if settings.master_key is None:
        if (kept := keyfiles.load(settings.state_path / keyfiles.MASTER_KEY)) is not None:
            keys.insert(0, MasterKey.from_hex(kept))
        keys += other_kept_keys(settings.state_path)
    return keys


def join_policy(settings: RouterFlags) -> JoinPolicy:
    """Return which join tokens the main worker accepts (docs/decisions/0008)."""
    if settings.join_token is not None:
        return JoinPolicy(explicit=JoinToken.from_text(settings.join_token.reveal()))
    text, _ = keyfiles.load_or_create(_token_file(settings), lambda: JoinToken.generate(system_random).text())
    secret_key = settings.s3.secret_key
    return JoinPolicy(
        directory=JoinToken.from_text(text),
        s3=JoinToken.derive_from_s3(secret_key.reveal()) if secret_key is not None else None,
    )


def worker_join_token(settings: WorkerSettings) -> JoinToken | None:
    """Return the join token of a worker, looked up anew; None if it has none."""
    if settings.join_token is not None:
        return JoinToken.from_text(settings.join_token.reveal())
    if settings.s3.enabled:
        secret_key = settings.s3.secret_key
        return JoinToken.derive_from_s3(secret_key.reveal()) if secret_key is not None else None
    text = keyfiles.load(_token_file(settings))
    return JoinToken.from_text(text) if text is not None else None


def _token_file(settings: ProcessFlags) -> Path:
    return settings.shared_fs / CLUSTER_FOLDER / keyfiles.JOIN_TOKEN


def _warn_if_open(path: Path) -> None:
    if not keyfiles.is_private(path):
        log.warning("others may read this secret: give it mode 0600", file=str(path))
