"""What ``deltadb doctor`` sees of directories: the database's own, and the main worker's. File system I/O."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from deltadatabase.errors import StartupError
from deltadatabase.limits import FREE_SHARE_MIN, FREE_SPACE_BYTES_MIN, MIB
from deltadatabase.maintenance.diagnosis import Check, Status
from deltadatabase.storage.mounts import filesystem_type

LOCK: Final = "lock"
#: Files of a state directory whose reader gets in, or reads everything.
SECRET_FILES: Final = ("master-key", "admin-key", "accounts.db", "join-token")
_NETWORK_TYPES: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "davfs", "virtiofs"}
)
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def directory_checks(root: Path) -> list[Check]:
    """File system, room, owner and mode of a database's directory, which exists."""
    kind = filesystem_type(root)
    network = kind in _NETWORK_TYPES or kind.startswith("fuse.")
    checks = [
        Check(
            "disk",
            "file_system",
            Status.INFO,
            f"type={kind or 'unknown'}, {'a network file system' if network else 'local'}",
        )
    ]
    room = os.statvfs(root)
    free = room.f_bavail * room.f_frsize
    total = room.f_blocks * room.f_frsize
    scarce = free < FREE_SPACE_BYTES_MIN or free < total * FREE_SHARE_MIN
    checks.append(
        Check(
            "disk",
            "space",
            Status.WARNING if scarce else Status.OK,
            f"{free // MIB} MiB of {total // MIB} MiB are free" + (": make room" if scarce else ""),
        )
    )
    # Some file systems have no fixed number of inodes and say 0.
    if room.f_files:
        few = room.f_favail < room.f_files * FREE_SHARE_MIN
        text = f"{room.f_favail} of {room.f_files} inodes are free; each document takes two"
        checks.append(Check("disk", "inodes", Status.WARNING if few else Status.OK, text))
    checks.append(_owner_and_mode(root, "disk", "access"))
    return checks


def state_checks(directory: Path) -> list[Check]:
    """Mode, lock and secret files of a state directory, which may be missing."""
    area = "state directory"
    if not directory.is_dir():
        text = "there is none here; the main worker makes one at its first start, maybe on another machine"
        return [Check(area, "present", Status.INFO, text)]
    checks = [
        _owner_and_mode(directory, area, "access"),
        Check(area, "in use", Status.INFO, _lock(directory)),
    ]
    for name in SECRET_FILES:
        try:
            mode = (directory / name).stat().st_mode
        except OSError:
            continue
        checks.append(secret_file_check(area, name, mode))
    return checks


def secret_file_check(area: str, name: str, mode: int) -> Check:
    """Judge who may read a file that holds a secret."""
    if mode & _OTHERS:
        text = f"others may read or change this file (mode {stat.S_IMODE(mode):04o}): give it mode 0600"
        return Check(area, name, Status.WARNING, text)
    return Check(area, name, Status.OK, f"only its owner may read it (mode {stat.S_IMODE(mode):04o})")


def _owner_and_mode(directory: Path, area: str, name: str) -> Check:
    try:
        about = directory.stat()
    except OSError as exc:
        return Check(area, name, Status.FAILED, f"it cannot be looked at: {exc.strerror}")
    mode = f"owner uid={about.st_uid}, mode {stat.S_IMODE(about.st_mode):04o}"
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return Check(area, name, Status.FAILED, f"this user (uid={os.geteuid()}) may not use it: {mode}")
    if about.st_uid != os.geteuid():
        return Check(area, name, Status.WARNING, f"it is not this user's (uid={os.geteuid()}): {mode}")
    if about.st_mode & stat.S_IWOTH:
        return Check(area, name, Status.WARNING, f"everybody may write into it: {mode}; chmod o-w")
    return Check(area, name, Status.OK, mode)


def _lock(directory: Path) -> str:
    """Whether a main worker holds the lock. Shared and let go at once, so that none is kept out."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return "no main worker has used it yet"
    except OSError as exc:
        return f"cannot be told: {exc.strerror}"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError as exc:
        return "a main worker runs with it" if exc.errno == errno.EWOULDBLOCK else "cannot be told"
    finally:
        os.close(descriptor)
    return "no main worker runs with it now"


def tidy_new_folders(root: Path) -> None:
    """Remove the folders that opening a directory made in it, if nothing of a database is there.

    Only for a directory that had no ``cluster`` folder before. What is not empty stays.
    """
    cluster = root / "cluster"
    try:
        for lock in (cluster / ".locks").iterdir():
            lock.unlink()
        staging = cluster / ".tmp"
        for folder in (*staging.glob("*"), staging, cluster / ".locks", cluster / "probe", cluster):
            if folder.is_dir():
                folder.rmdir()
    except OSError:
        # Somebody uses it meanwhile, which is what it is there for.
        return


def absent(root: Path) -> StartupError | None:
    """The refusal of a directory that is not there; None when it is."""
    if root.is_dir():
        return None
    return StartupError(
        "there is no such directory: name the database's with -data, or give the -s3 flags; deltadb serve "
        "makes it at its first start",
        code="store_refused",
    )
