"""What a scrub finds: kinds, counts, the report, and the words of its summary. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

from deltadatabase.limits import SCRUB_FINDINGS_MAX


class Kind(enum.StrEnum):
    """What is wrong with an object."""

    INTEGRITY = "integrity"
    """The sealed entity fails its check."""
    TRUNCATED = "truncated"
    """It ends before its own header says that it can."""
    FOREIGN = "foreign"
    """It has an entity's name and is no sealed entity."""
    MISPLACED = "misplaced"
    """It is sealed soundly, for another name."""
    KEY_UNAVAILABLE = "key_unavailable"
    """No master key here opens it. Not damage."""
    UNREADABLE = "unreadable"
    """The store does not give it out, though it answers otherwise: a failing disk, a missing right."""
    META_MISSING = "meta_missing"
    META_WRONG = "meta_wrong"
    """The meta file does not describe the entity that is stored."""
    META_ORPHAN = "meta_orphan"
    """A meta file without an entity."""
    UNKNOWN_FILE = "unknown_file"
    """An object below ``files/`` with neither an entity's nor a meta file's name."""
    TEMPLATE_INVALID = "template_invalid"
    LEFTOVER = "leftover"
    """A temporary file of a commit that was interrupted more than an hour ago."""
    QUARANTINED = "quarantined"
    """A damaged entity that was copied aside."""
    TOMBSTONE = "tombstone"
    """A removed tombstone; others are counted only."""


class Action(enum.StrEnum):
    """What was done about it."""

    NONE = "none"
    REBUILT = "rebuilt"
    REMOVED = "removed"
    QUARANTINED = "quarantined"
    LEFT_TO_WORKER = "left_to_worker"
    """The entity changed meanwhile: its worker writes the meta file itself."""


DAMAGE: Final = frozenset({Kind.INTEGRITY, Kind.TRUNCATED, Kind.FOREIGN, Kind.MISPLACED})
#: Told, and no reason for an exit code other than 0.
_REMARKS: Final = frozenset({Kind.QUARANTINED, Kind.LEFTOVER, Kind.TOMBSTONE})


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was found.

    Attributes:
        kind, action: what it is, what was done.
        schema_id, key: the entity, or "" where the name is not an entity's.
        object: the object's name, where it is not an entity's; else "".
        detail: more in words; never content or keys.
    """

    kind: Kind
    action: Action = Action.NONE
    schema_id: str = ""
    key: str = ""
    object: str = ""
    detail: str = ""

    @property
    def remains(self) -> bool:
        """Whether somebody still has to do something about it."""
        return self.action is Action.NONE and self.kind not in _REMARKS


class Counts(msgspec.Struct, kw_only=True):
    """How much was looked at, and how often what was found. Mutable: it grows with the scrub.

    Attributes:
        objects: objects below ``files/``.
        entities: live entities that are sound.
        tombstones: sound tombstones, the removed ones among them.
        meta_files: meta files that have an entity.
        templates: valid schemas.
        bytes: size of the entities that were read.
        found: ``kind/action`` to number.
        remaining: findings that somebody still has to do something about.
    """

    objects: int = 0
    entities: int = 0
    tombstones: int = 0
    meta_files: int = 0
    templates: int = 0
    bytes: int = 0
    found: dict[str, int] = {}
    remaining: int = 0

    def number(self, *kinds: Kind, action: Action | None = None) -> int:
        """How many findings of these kinds there are, of any action or of one."""
        return sum(
            count
            for name, count in self.found.items()
            if (parts := name.split("/"))[0] in kinds and (action is None or parts[1] == action)
        )


class Ledger(msgspec.Struct, kw_only=True):
    """All that a scrub has found so far. Single tombstones are counted, not listed.

    Attributes:
        counts: numbers.
        findings: the first ``limits.SCRUB_FINDINGS_MAX`` of them, at most a tenth of that for what
            was repaired: many rebuilt meta files must not hide a damaged entity.
        left_out: how many more there are, which are only counted.
        repaired: how many of ``findings`` are repaired.
    """

    counts: Counts = msgspec.field(default_factory=Counts)
    findings: list[Finding] = []
    left_out: int = 0
    repaired: int = 0

    def note(self, finding: Finding) -> None:
        """Add one finding."""
        counts = self.counts
        name = f"{finding.kind}/{finding.action}"
        counts.found[name] = counts.found.get(name, 0) + 1
        counts.remaining += finding.remains
        if finding.kind is Kind.TOMBSTONE:
            return
        repaired = finding.action in {Action.REBUILT, Action.LEFT_TO_WORKER}
        if len(self.findings) < SCRUB_FINDINGS_MAX and not (
            repaired and self.repaired >= SCRUB_FINDINGS_MAX // 10
        ):
            self.findings.append(finding)
            self.repaired += repaired
        else:
            self.left_out += 1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What ``-json`` prints.

    Attributes:
        complete: the whole store was looked at; False when interrupted.
        clean: nothing remains to be done, as far as was looked.
        dry_run: nothing was changed.
        backend, database_id: what was looked at.
        counts, findings, findings_left_out: see ``Ledger``.
        summary: the same in sentences.
    """

    complete: bool
    clean: bool
    dry_run: bool
    backend: str
    database_id: str
    counts: Counts
    findings: tuple[Finding, ...]
    findings_left_out: int
    summary: tuple[str, ...]


def report_of(ledger: Ledger, *, complete: bool, dry_run: bool, backend: str, database_id: str) -> Report:
    """Put a report together."""
    return Report(
        complete=complete,
        clean=complete and not ledger.counts.remaining,
        dry_run=dry_run,
        backend=backend,
        database_id=database_id,
        counts=ledger.counts,
        # What somebody must see to comes first, in the order of the names.
        findings=tuple(
            sorted(
                ledger.findings,
                key=lambda finding: (not finding.remains, finding.schema_id, finding.key, finding.object),
            )
        ),
        findings_left_out=ledger.left_out,
        summary=tuple(summary(ledger.counts, complete=complete)),
    )


def told_one_by_one(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out what a person need not read a line each for.

    That is a meta file that was rebuilt or is about to be written, and the copy of an entity that
    this very scrub has set aside.
    """
    set_aside = {(f.schema_id, f.key) for f in findings if f.action is Action.QUARANTINED}
    return [
        finding
        for finding in findings
        if finding.action not in {Action.REBUILT, Action.LEFT_TO_WORKER}
        and not (finding.kind is Kind.QUARANTINED and (finding.schema_id, finding.key) in set_aside)
    ]


_META: Final = frozenset({Kind.META_MISSING, Kind.META_WRONG})
_ORPHAN: Final = frozenset({Kind.META_ORPHAN})
_RESTORE: Final = (
    "damaged, answering 500 but where a worker still has it in its cache: get such a one and write it again. "
    "Restore others from a backup, or set them aside with deltadb scrub -quarantine, which frees their names."
)
#: Kinds, action (None: any), one of them, many of them, the rest of the sentence.
_SENTENCES: Final[tuple[tuple[frozenset[Kind], Action | None, str, str, str], ...]] = (
    (_META, Action.REBUILT, "meta file", "meta files", "missing or wrong and rebuilt."),
    (_META, Action.LEFT_TO_WORKER, "meta file", "meta files", "late: their worker is writing them."),
    (_META, Action.NONE, "meta file", "meta files", "missing or wrong: run it without -dry-run to rebuild."),
    (DAMAGE, Action.NONE, "entity", "entities", _RESTORE),
    (
        DAMAGE,
        Action.QUARANTINED,
        "damaged entity",
        "damaged entities",
        "copied below quarantine/; the name can be written again, and answers 404 unless still in a cache.",
    ),
    (
        frozenset({Kind.KEY_UNAVAILABLE}),
        None,
        "entity",
        "entities",
        "sealed with a master key that was not given: try -master-key-previous; nothing was done about it.",
    ),
    (
        _ORPHAN,
        Action.NONE,
        "meta file",
        "meta files",
        "without an entity: -remove-orphans removes such files.",
    ),
    (_ORPHAN, Action.REMOVED, "meta file", "meta files", "without an entity removed."),
    (
        frozenset({Kind.UNREADABLE}),
        None,
        "object",
        "objects",
        "that the store does not give out, though it answers otherwise: look at its disks and rights.",
    ),
    (frozenset({Kind.TOMBSTONE}), Action.REMOVED, "tombstone", "tombstones", "removed."),
    (
        frozenset({Kind.UNKNOWN_FILE}),
        None,
        "object",
        "objects",
        "below files/ that no database put there: look at it and remove it.",
    ),
    (
        frozenset({Kind.TEMPLATE_INVALID}),
        None,
        "template",
        "templates",
        "no valid schema, refusing every write of the schema id: put a valid one with PUT /schema/{id}.",
    ),
    (
        frozenset({Kind.LEFTOVER}),
        None,
        "temporary file",
        "temporary files",
        "of interrupted commits; opening the directory removed what was there.",
    ),
    (
        frozenset({Kind.QUARANTINED}),
        None,
        "damaged entity",
        "damaged entities",
        "kept below quarantine/: remove what nobody needs.",
    ),
)


def summary(counts: Counts, *, complete: bool) -> list[str]:
    """Say in sentences what was found and what to do next."""
    objects = _number(counts.objects, "object", "objects")
    entities = _number(counts.entities, "entity", "entities")
    tombstones = _number(counts.tombstones, "tombstone", "tombstones")
    lines = [f"{objects} looked at: {entities} and {tombstones} sound, {counts.bytes} bytes."]
    for kinds, action, one, many, rest in _SENTENCES:
        if number := counts.number(*kinds, action=action):
            lines.append(f"{_number(number, one, many)} {rest}")
    if not complete:
        lines.append("It was interrupted: not everything has been looked at.")
    elif not counts.remaining:
        lines.append("Nothing remains to be done.")
    return lines


def _number(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
