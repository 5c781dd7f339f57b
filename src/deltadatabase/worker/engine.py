"""What writes do to an entity, decided from its present header. Pure.

The caller holds the entity's lock and performs what is decided (``commit.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from deltadatabase.errors import NotOwner, VersionMismatch
from deltadatabase.limits import RECENT_WRITES_MAX
from deltadatabase.model import Command, Header, Op, RecentWrite


class Write(msgspec.Struct, frozen=True):
    """Seal and put this header; ``created`` says that no live entity was there."""

    header: Header
    created: bool


class Unchanged(msgspec.Struct, frozen=True):
    """Nothing is to be stored: a repeat of an applied write, or a delete of nothing."""

    version: int
    etag: str
    updated_ms: int
    found: bool


Decision = Write | Unchanged


class Plan(msgspec.Struct, frozen=True):
    """What several writes of one entity come to, each made on what the one before it left.

    Attributes:
        outcomes: for each command what it does, or why it is refused. None of them may be
            answered before ``header`` is committed, refusals included: they follow from it.
        header: to be sealed and put; None when nothing changes.
        document: what ``header`` describes, b"" for a tombstone.
    """

    outcomes: tuple[Decision | VersionMismatch, ...]
    header: Header | None
    document: bytes


def etag_of(version: int, write_id: bytes) -> str:
    """Return the strong ETag of one version: ``"<version>-<start of its write id>"``.

    It never repeats for an entity, also when versions begin again after a tombstone was removed.
    """
    return f'"{version}-{write_id[:4].hex()}"'


def live_etag(header: Header | None) -> str:
    """Return the entity's ETag, or "" while it is absent or deleted."""
    if header is None or header.tombstone:
        return ""
    return etag_of(header.version, header.write_id)


def check_owner(header: Header | None, term: int) -> None:
    """Refuse to touch an entity that was written under a newer term.

    Raises:
        NotOwner: with the term that was met.
    """
    if header is not None and header.term > term:
        raise NotOwner("entity was written under a newer term", term=header.term)


def applied_version(header: Header | None, write_id: bytes) -> int:
    """Return the version that a write made, as far as the header still remembers; else 0."""
    if header is None or not write_id:
        return 0
    if header.write_id == write_id:
        return header.version
    return next((write.version for write in header.recent if write.write_id == write_id), 0)


def check_conditions(header: Header | None, command: Command) -> None:
    """Check a write's ``If-Match`` and ``If-None-Match`` against the present entity.

    Raises:
        VersionMismatch: with the entity's current ETag.
    """
    current = live_etag(header)
    wanted = command.if_match
    if wanted is not None and not (current and ("*" in wanted or current in wanted)):
        raise VersionMismatch("entity is not in a version that If-Match names", etag=current or None)
    unwanted = command.if_none_match
    if unwanted is not None and current and ("*" in unwanted or current in unwanted):
        raise VersionMismatch("entity is in a version that If-None-Match excludes", etag=current)


def plan(
    header: Header | None,
    document: bytes,
    commands: Sequence[Command],
    now_ms: int,
    recent_max: int = RECENT_WRITES_MAX,
) -> Plan:
    """Decide what writes of one term do to one entity, in turn, as one object to be put.

    The header remembers all of them: who finds the last one's write id in the store knows that
    the whole plan was committed.

    Args:
        header: as for ``decide``.
        document: what ``header`` describes, b"" for a tombstone and for none.
        commands: PUTs, DELETEs and RESEALs, in the order in which they came.
        now_ms: as for ``decide``.
        recent_max: how many writes before the last one the header remembers, or all of the plan's.

    Raises:
        NotOwner: a newer term was met.
    """
    outcomes: list[Decision | VersionMismatch] = []
    recent_max = max(recent_max, len(commands) - 1)
    made = None
    for command in commands:
        try:
            outcome: Decision | VersionMismatch = decide(header, command, now_ms, recent_max)
        except VersionMismatch as exc:
            outcome = exc
        if isinstance(outcome, Write):
            header = made = outcome.header
            if command.op is not Op.RESEAL:
                document = b"" if made.tombstone else command.document
        outcomes.append(outcome)
    return Plan(tuple(outcomes), made, b"" if made is None else document)


def decide(
    header: Header | None, command: Command, now_ms: int, recent_max: int = RECENT_WRITES_MAX
) -> Decision:
    """Decide what a PUT, DELETE or RESEAL does to the entity whose newest stored header is ``header``.

    Args:
        header: None when no object was ever stored, or its tombstone was removed.
        command: the write.
        now_ms: wall clock; the entity's time never goes back even if the clock does.
        recent_max: how many of the writes before it the new header remembers.

    Raises:
        NotOwner: a newer term was met.
        VersionMismatch: the client's condition fails.
    """
    check_owner(header, command.term)
    if command.op is Op.RESEAL:
        return _decide_reseal(header, command)
    if version := applied_version(header, command.write_id):
        assert header is not None
        return Unchanged(version, etag_of(version, command.write_id), header.updated_ms, found=True)
    check_conditions(header, command)
    delete = command.op is Op.DELETE
    absent = header is None or header.tombstone
    if delete and absent:
        version = 0 if header is None else header.version
        return Unchanged(version, "", 0 if header is None else header.updated_ms, found=False)
    recent: tuple[RecentWrite, ...] = ()
    if header is not None:
        recent = (RecentWrite(header.version, header.write_id), *header.recent)[:recent_max]
    return Write(
        Header(
            schema_id=command.schema_id,
            key=command.key,
            version=1 if header is None else header.version + 1,
            term=command.term,
            updated_ms=now_ms if header is None else max(now_ms, header.updated_ms),
            write_id=command.write_id,
            recent=recent,
            tombstone=delete,
        ),
        created=absent and not delete,
    )


def _decide_reseal(header: Header | None, command: Command) -> Decision:
    """Decide whether the entity, deleted or not, needs the primary key, which ``command`` names.

    All that clients see stays: version, write ids, time. The term is the command's, as with every put.
    """
    if header is None:
        return Unchanged(0, "", 0, found=False)
    # A header without a key is what an earlier write of the same plan leaves: it will be sealed with it.
    if header.key_id in (b"", command.document):
        return Unchanged(header.version, live_etag(header), header.updated_ms, found=True)
    return Write(msgspec.structs.replace(header, term=command.term, key_id=b""), created=False)
