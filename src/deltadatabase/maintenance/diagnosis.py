"""What ``deltadb doctor`` says of one thing that it looked at: values only, and their words. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

from deltadatabase.model import DatabaseInfo, ProbeCheck


class Status(enum.StrEnum):
    """How it stands with one thing."""

    OK = "ok"
    INFO = "info"
    """Neither good nor bad."""
    WARNING = "warning"
    """Works, and somebody should look at it."""
    FAILED = "failed"


class Check(msgspec.Struct, frozen=True):
    """One line of the diagnosis: what was looked at, how it stands, and what that means."""

    area: str
    name: str
    status: Status
    text: str


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """The database's description, without the check values of its keys."""

    database_id: str
    format: int
    shards: int
    highest_epoch: int
    key_ids: tuple[str, ...]
    maintenance: bool


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What ``-json`` prints. ``healthy``: nothing needs attention."""

    healthy: bool
    backend: str
    database: Database | None
    checks: tuple[Check, ...]


#: Probe check to what it means when it passes, and when it fails.
MEANING: Final = {
    "file_system": ("locks and renames of the file system can be relied on", "writes could be lost"),
    "create": ("the store takes writes", "nothing can be stored"),
    "create_twice": (
        "of two creations of one document only one wins",
        "two workers could both create a document, and one write would be lost",
    ),
    "read_after_write": ("what is written is read at once", "a reader could get an old document"),
    "conditional_read": ("unchanged objects are recognised", "changed schemas could be missed"),
    "update": ("a write on the newest version is taken", "no document could be changed"),
    "update_stale": (
        "a write on an outdated version is refused: no write is overwritten unseen",
        "a late write could overwrite a newer one",
    ),
    "update_missing": (
        "an update never makes a document that is gone",
        "a deleted document could come back",
    ),
    "racing_creates": ("of many concurrent creations one wins", "concurrent writes could be lost"),
    "racing_updates": ("of many concurrent updates one wins", "concurrent writes could be lost"),
    "case_sensitive": (
        "names that differ only in case are different documents",
        "one document could overwrite another whose key differs only in case",
    ),
    "list_after_write": ("listings are complete and in order", "lists could miss documents"),
    "delete": ("objects can be removed", "tombstones and meta files cannot be removed"),
}


def probe_checks(checks: Sequence[ProbeCheck]) -> list[Check]:
    """Say what each check of the start-up probe means for the user."""
    said = []
    for check in checks:
        good, bad = MEANING.get(check.name, ("", ""))
        remark = f" ({check.detail})" if check.detail else ""
        if check.passed:
            said.append(Check("guarantees", check.name, Status.OK, f"{good}{remark}"))
        else:
            said.append(Check("guarantees", check.name, Status.FAILED, f"{bad}{remark}"))
    return said


def database_of(info: DatabaseInfo) -> Database:
    """What may be shown of a description."""
    return Database(
        database_id=info.database_id,
        format=info.format,
        shards=info.shards,
        highest_epoch=info.highest_epoch,
        key_ids=tuple(sorted(info.keys)),
        maintenance=bool(info.maintenance),
    )


def skew_check(skew_ms: int, uncertainty_ms: int, bound_ms: int) -> Check:
    """Judge the difference between this machine's clock and the store's object times."""
    if abs(skew_ms) <= uncertainty_ms:
        return Check("clock", "skew", Status.OK, "this machine's clock agrees with the store's")
    way = "behind" if skew_ms > 0 else "ahead of"
    text = f"this machine's clock is {abs(skew_ms) / 1000:.1f} s {way} the store's"
    if abs(skew_ms) <= bound_ms:
        return Check("clock", "skew", Status.OK, text)
    return Check(
        "clock",
        "skew",
        Status.WARNING,
        f"{text}: set it right; times of documents and expiry of keys are wrong",
    )


def percentile_ms(samples_s: Sequence[float], share: float) -> float:
    """The value that ``share`` of the samples do not exceed (nearest rank), in milliseconds."""
    ordered = sorted(samples_s)
    rank = max(1, -(-len(ordered) * round(share * 100) // 100))
    return ordered[rank - 1] * 1000
