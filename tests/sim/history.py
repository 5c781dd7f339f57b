"""What clients saw, and whether one copy of each entity could have shown it to them.

Every successful write has a version, and reads tell theirs. So linearizability of a key needs no
search: versions are the order, and real time must agree with it. Judging n operations costs
n log n, so the histories of long runs on real processes are judged here, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter

INFINITY = float("inf")


@dataclass
class Operation:
    """One call of a client.

    Attributes:
        kind: ``put``, ``delete``, ``get``, or ``seen``: a refusal that told the current version.
        value: what was put, or what was read; None for an absent entity. Each put has its own.
        begin, end: seconds; ``end`` None while it runs or if its outcome is unknown.
        version: of the write or of what was read; 0 for an absent entity, for a delete that met
            nothing, and where the interface does not tell the version of a delete.
        outcome: ``ok``, ``refused`` (certainly not applied) or ``unknown``.
        chain: what a document shows of the writes that made it: the put's value and those of the
            patches after it, in turn; empty where nothing was shown.
        after: the version that a conditional put demanded to be current, 0 for an absent entity;
            None for any other operation.
    """

    client: int
    key: str
    kind: str
    value: bytes | None
    begin: float
    end: float | None = None
    version: int = 0
    outcome: str = "unknown"
    after: int | None = None
    chain: tuple[bytes, ...] = ()

    def __str__(self) -> str:
        end = "…" if self.end is None else f"{self.end:.3f}"
        value = "" if self.value is None else self.value.decode()
        return (
            f"{self.begin:9.3f} {end:>9} client {self.client} {self.kind:6} {self.key} "
            f"{value:8} -> {self.outcome} v{self.version}"
        )

    @property
    def done(self) -> bool:
        """Whether its client got the answer that it is bound by."""
        return self.outcome == "ok" and self.end is not None


def violations(history: list[Operation]) -> list[str]:
    """Return every contradiction, as a sentence with the operations that make it."""
    found: list[str] = []
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    for key, operations in by_key.items():
        writes = [op for op in operations if op.kind in ("put", "delete")]
        looks = [op for op in operations if op.kind in ("get", "seen") and op.done]
        wrong = [*_versions(writes, looks), *_chains(writes, looks), *_real_time(writes, looks)]
        found += [f"{key}: {sentence}" for sentence in wrong]
    return found


def _versions(writes: list[Operation], looks: list[Operation]) -> list[str]:
    """One winner and one value for each version, one version for each write, and no gaps."""
    found: list[str] = []
    by_version: dict[int, Operation] = {}
    for write in writes:
        if write.outcome != "ok" or not write.version:
            continue
        if (other := by_version.setdefault(write.version, write)) is not write:
            found.append(f"two writes got version {write.version}\n  {other}\n  {write}")
    values = {write.value: write for write in writes if write.kind == "put"}
    seen: dict[bytes | None, Operation] = {}
    shown: dict[int, Operation] = {}
    for read in looks:
        if not read.version or read.kind == "seen":
            continue
        write = values.get(read.value)
        if write is None or write.outcome == "refused":
            found.append(f"a read shows what was never written\n  {read}")
            continue
        namesakes = (by_version.get(read.version), shown.setdefault(read.version, read))
        found += [
            f"two values have version {read.version}\n  {other}\n  {read}"
            for other in namesakes
            if other is not None and other.value != read.value
        ]
        if write.outcome == "ok" and write.version != read.version:
            found.append(f"a value is read under another version than its write got\n  {write}\n  {read}")
        if (other := seen.setdefault(read.value, read)).version != read.version:
            found.append(f"one write is read under two versions\n  {other}\n  {read}")
        if read.end is not None and write.begin > read.end:
            found.append(f"a read shows a later write\n  {write}\n  {read}")
    for write in writes:
        if write.after is None or write.outcome != "ok":
            continue
        before = by_version.get(write.version - 1)
        if write.after and write.after != write.version - 1:
            found.append(f"a conditional write replaced another version than it named\n  {write}")
        elif not write.after and before is not None and before.kind == "put":
            found.append(f"a conditional write met an entity that it did not want\n  {before}\n  {write}")
    found += _gaps(writes, by_version, shown)
    return found


def _chains(writes: list[Operation], looks: list[Operation]) -> list[str]:
    """Each patch was made of the version before its own, and is in every document after it once."""
    found: list[str] = []
    made = {write.version: write.value for write in writes if write.done and write.version}
    versions = {value: version for version, value in made.items()}
    for operation in [*writes, *looks]:
        if not operation.done:
            continue
        for back, value in enumerate(reversed(operation.chain)):
            version = operation.version - back
            if made.setdefault(version, value) != value or versions.setdefault(value, version) != version:
                found.append(
                    f"a document is not what the writes up to it make, at version {version}\n  {operation}"
                )
                break
    return found


def _gaps(
    writes: list[Operation], by_version: dict[int, Operation], shown: dict[int, Operation]
) -> list[str]:
    """Versions that no known write has must be those of writes whose version nobody was told."""
    highest = max([*by_version, *shown], default=0)
    missing = highest - len(by_version)
    nameless = sum(
        1 for write in writes if write.outcome == "unknown" or (write.kind == "delete" and not write.version)
    )
    if missing > nameless:
        return [f"{missing} versions up to {highest} are missing, and only {nameless} writes could have them"]
    return []


def _real_time(writes: list[Operation], looks: list[Operation]) -> list[str]:
    """Nobody may see less than was known to be there before it asked."""
    found: list[str] = []
    deletes = _Deletes(writes)
    begun = {write.version: write.begin for write in writes if write.version}
    values = {write.value: write.begin for write in writes if write.kind == "put"}
    ended = sorted((op for op in [*writes, *looks] if op.done), key=attrgetter("end"))
    floor: Operation | None = None  # The newest version that was known before ``later`` began.
    dead: tuple[int, Operation] | None = None  # Versions up to this one were deleted before it began.
    position = 0
    floors: dict[int, int] = {}  # What was known when each delete began.
    for later in sorted((op for op in [*writes, *looks] if op.outcome == "ok"), key=attrgetter("begin")):
        while position < len(ended) and (ended[position].end or 0.0) < later.begin:
            op = ended[position]
            position += 1
            if op.version and (floor is None or op.version > floor.version):
                floor = op
            if op.kind == "delete" and (known := floors.get(id(op), 0)) and (dead is None or known > dead[0]):
                dead = (known, op)
        if later.kind == "delete":
            floors[id(later)] = floor.version if floor is not None else 0
        if floor is None:
            continue
        if later.kind in ("get", "seen") and not later.version:
            origin = min(begun.get(floor.version, floor.begin), values.get(floor.value, floor.begin))
            if floor.kind != "delete" and not deletes.may_hide(floor.version, origin, later.end):
                found.append(f"an entity is missing that nobody deleted\n  {floor}\n  {later}")
        elif later.kind in ("get", "seen"):
            if later.version < floor.version:
                found.append(f"a read is older than what was known before\n  {floor}\n  {later}")
            elif later.kind == "get" and dead is not None and later.version <= dead[0]:
                found.append(f"a deleted entity came back\n  {dead[1]}\n  {later}")
        elif later.version and later.version <= floor.version:
            found.append(f"a write got a version that was taken before it began\n  {floor}\n  {later}")
    return found


class _Deletes:
    """Whether an absent entity can be explained by a delete."""

    def __init__(self, writes: list[Operation]) -> None:
        deletes = [op for op in writes if op.kind == "delete" and op.outcome != "refused"]
        self._unknown = min((op.begin for op in deletes if op.outcome == "unknown"), default=INFINITY)
        told = sorted((op for op in deletes if op.outcome == "ok" and op.version), key=attrgetter("version"))
        self._told = [op.version for op in told]
        self._told_begin = _least_from_here(told)
        # A delete that tells no version may have come at any moment between its begin and its end.
        untold = sorted((op for op in deletes if op.outcome == "ok" and not op.version), key=_end_of)
        self._untold = [_end_of(op) for op in untold]
        self._untold_begin = _least_from_here(untold)

    def may_hide(self, version: int, written: float, end: float | None) -> bool:
        """Whether ``version``, written after ``written``, can have been deleted by ``end``."""
        before = INFINITY if end is None else end
        told = self._told_begin[bisect_right(self._told, version)]
        untold = self._untold_begin[bisect_right(self._untold, written)]
        return min(self._unknown, told, untold) <= before


def _end_of(operation: Operation) -> float:
    return INFINITY if operation.end is None else operation.end


def _least_from_here(operations: list[Operation]) -> list[float]:
    """For each place, the earliest beginning there or behind; one place more than operations."""
    return list(accumulate([INFINITY, *(op.begin for op in reversed(operations))], min))[::-1]
