"""What writes do to an entity, decided from its present header. Pure.

The caller holds the entity's lock and performs what is decided (``commit.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from deltadatabase.errors import DeltaError, NotFound, NotOwner, Unprocessable, VersionMismatch
from deltadatabase.limits import RECENT_WRITES_MAX, WRITE_GROUP_BYTES
from deltadatabase.model import Command, Header, Op, RecentWrites

Change = Callable[[bytes], bytes]
"""Makes a PATCH's new document of the present one, checked. Pure; raises what the patch is refused for."""


class Write(msgspec.Struct, frozen=True):
    """Seal and put this header and document; ``created`` says that no live entity was there."""

    header: Header
    created: bool
    document: bytes


class Unchanged(msgspec.Struct, frozen=True):
    """Nothing is to be stored: a repeat of an applied write, or a delete of nothing.

    ``document`` is the present one if it is what a repeated PATCH has made.
    """

    version: int
    etag: str
    updated_ms: int
    found: bool
    repeated: bool = False
    created: bool = False
    document: bytes = b""


Decision = Write | Unchanged


class Plan:
    """What several writes of one term do to one entity, each made on what the one before it left.

    They go as one object. Its header remembers all of them, so that whoever meets one of them
    again recognises it.

    Args:
        header: as for ``decide``.
        document: what ``header`` describes, b"" for a tombstone and for none.
        count: how many writes there will be.
        now_ms: as for ``decide``.
        recent_max: how many writes before the last one the header remembers, or all of the plan's.

    Attributes:
        outcomes: for each command so far what it does, or why it is refused. None of them may be
            answered before ``header`` is committed, refusals included: they follow from it.
        header: to be sealed and put; None when nothing changes.
        document: what ``header`` describes, b"" for a tombstone.
    """

    def __init__(
        self,
        header: Header | None,
        document: bytes,
        *,
        count: int,
        now_ms: int,
        recent_max: int = RECENT_WRITES_MAX,
    ) -> None:
        self.outcomes: list[Decision | DeltaError] = []
        self.header: Header | None = None
        self.document = document
        self._present = header
        self._now_ms = now_ms
        self._recent_max = max(recent_max, count - 1)

    def add(self, command: Command, change: Change | None = None) -> None:
        """Decide on the next write: a PUT, PATCH, DELETE or RESEAL, in the order in which they came.

        Raises:
            NotOwner: a newer term was met.
        """
        try:
            outcome: Decision | DeltaError = decide(
                self._present, command, self._now_ms, self._recent_max, document=self.document, change=change
            )
        except NotOwner:
            raise
        except DeltaError as exc:
            outcome = exc
        if isinstance(outcome, Write):
            self._present = self.header = outcome.header
            self.document = outcome.document
        self.outcomes.append(outcome)

    def committed(self, header: Header | None) -> bool:
        """Tell whether the plan, once put, is part of what ``header`` says.

        One write of it is not enough: a client may have sent that again, and another put may have
        brought it. It has to be there in the plan's version, with all that was merged with it.
        """
        return header is not None and all(
            applied_version(header, outcome.header.write_id) == outcome.header.version
            for outcome in self.outcomes
            if isinstance(outcome, Write)
        )


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
    return header.recent.version_of(write_id)


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


def check_repeat(header: Header | None, write_id: bytes) -> int:
    """Return the version that a write made when it came before, or 0.

    Raises:
        Unprocessable: another write came under the same Idempotency-Key: the ids of all writes
            under one begin alike, and no others do.
    """
    if header is None:
        return 0
    if header.write_id == write_id:
        return header.version
    group = write_id[:WRITE_GROUP_BYTES]
    if header.recent.has_like(group) and (version := header.recent.version_of(write_id)):
        return version
    if header.write_id.startswith(group) or header.recent.has_like(group):
        raise Unprocessable(
            "this Idempotency-Key was used for another request", code="idempotency_key_reused"
        )
    return 0


def oldest_known(header: Header | None) -> int:
    """Return the oldest version whose write id is still remembered, 0 when there is none."""
    if header is None:
        return 0
    return header.recent.oldest or header.version


def decide(
    header: Header | None,
    command: Command,
    now_ms: int,
    recent_max: int = RECENT_WRITES_MAX,
    *,
    document: bytes = b"",
    change: Change | None = None,
) -> Decision:
    """Decide what a write does to the entity whose newest stored header is ``header``.

    Args:
        header: None when no object was ever stored, or its tombstone was removed.
        command: a PUT, PATCH, DELETE or RESEAL.
        now_ms: wall clock; the entity's time never goes back even if the clock does.
        recent_max: how many of the writes before it the new header remembers.
        document: the present one.
        change: what a PATCH does to it.

    Raises:
        NotOwner: a newer term was met.
        Unprocessable: ``idempotency_key_reused``.
        VersionMismatch: the client's condition fails.
        NotFound: ``entity_not_found``: there is nothing to patch.
        DeltaError: as ``change`` refuses the patch.
    """
    check_owner(header, command.term)
    if command.op is Op.RESEAL:
        return _decide_reseal(header, command, document)
    # Before the conditions: a write that was applied has usually made its own ones false.
    if version := check_repeat(header, command.write_id):
        assert header is not None
        return _repeated(header, command, version, document)
    check_conditions(header, command)
    delete = command.op is Op.DELETE
    absent = header is None or header.tombstone
    if delete and absent:
        version = 0 if header is None else header.version
        return Unchanged(version, "", 0 if header is None else header.updated_ms, found=False)
    made = command.document
    if command.op is Op.PATCH:
        if absent:
            raise NotFound("there is no such entity", code="entity_not_found")
        assert change is not None
        made = change(document)
    recent = RecentWrites()
    if header is not None:
        recent = header.recent.after(header.version, header.write_id, recent_max)
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
        document=b"" if delete else made,
    )


def _repeated(header: Header, command: Command, version: int, document: bytes) -> Unchanged:
    """Say of a write what it did when it was applied, as far as that is still known."""
    return Unchanged(
        version,
        "" if command.op is Op.DELETE else etag_of(version, command.write_id),
        header.updated_ms,
        found=True,
        repeated=True,
        # Later ones may have created the entity anew; nothing remembers that.
        created=version == 1,
        document=document if command.op is Op.PATCH and version == header.version else b"",
    )


def _decide_reseal(header: Header | None, command: Command, document: bytes) -> Decision:
    """Decide whether the entity, deleted or not, needs the primary key, which ``command`` names.

    All that clients see stays: version, write ids, time. The term is the command's, as with every put.
    """
    if header is None:
        return Unchanged(0, "", 0, found=False)
    # A header without a key is what an earlier write of the same plan leaves: it will be sealed with it.
    if header.key_id in (b"", command.document):
        return Unchanged(header.version, live_etag(header), header.updated_ms, found=True)
    resealed = msgspec.structs.replace(header, term=command.term, key_id=b"")
    return Write(resealed, created=False, document=document)
