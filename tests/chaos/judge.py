"""Judges what clients saw over REST.

``sim.history`` judges everything that has a version. REST answers a DELETE without one, so what
can be said of deletes is said here; and versions are counted, because a write that was applied
twice, or applied though it was refused, may leave no other trace than a version too many.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sim.history import Operation, violations

_NEVER: Final = float("inf")


def judge(history: Sequence[Operation]) -> list[str]:
    """Return every contradiction, as a sentence with the operations that make it."""
    found = violations([_as_known(operation) for operation in history])
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    for key, operations in by_key.items():
        judged = [*_unmade_versions(operations), *_deletes(operations)]
        found += [f"{key}: {sentence}" for sentence in judged]
    return found


def lost(history: Sequence[Operation], final: Sequence[Operation]) -> list[str]:
    """Return the keys whose last read shows less than was acknowledged.

    Args:
        history: everything, the last reads included.
        final: one read of each key, after all else has ended.
    """
    acknowledged: dict[str, int] = defaultdict(int)
    deleted: set[str] = set()
    for operation in history:
        if operation.kind == "put" and operation.outcome == "ok":
            acknowledged[operation.key] = max(acknowledged[operation.key], operation.version)
        if operation.kind == "delete" and operation.outcome != "refused":
            deleted.add(operation.key)
    return [
        read.key
        for read in final
        if read.outcome == "ok"
        and read.version < acknowledged[read.key]
        # An absent entity may have been deleted; the judge knows whether it can have been.
        and (read.version or read.key not in deleted)
    ]


def _as_known(operation: Operation) -> Operation:
    """Without a version, a delete may have come at any place from its begin on."""
    if operation.kind == "delete" and operation.outcome == "ok" and not operation.version:
        return replace(operation, outcome="unknown", end=None)
    return operation


def _unmade_versions(operations: list[Operation]) -> list[str]:
    """Every version is made by exactly one write that was not refused."""
    known = {op.version for op in operations if op.outcome == "ok" and op.version}
    if not known:
        return []
    missing = max(known) - len(known)
    read = {op.value for op in operations if op.kind == "get" and op.outcome == "ok"}
    perhaps = sum(
        1
        for op in operations
        if (op.kind == "put" and op.outcome == "unknown" and op.value not in read)
        or (op.kind == "delete" and op.outcome != "refused")
    )
    if missing <= perhaps:
        return []
    gaps = [str(version) for version in range(1, max(known)) if version not in known]
    sentence = (
        f"{missing} versions were made by nobody: {perhaps} writes of unknown outcome or version "
        f"can have made them; not seen: {', '.join(gaps[:20])}"
    )
    return [sentence]


def _deletes(operations: list[Operation]) -> list[str]:
    known = sorted(
        (op for op in operations if op.outcome == "ok" and op.version and op.end is not None),
        key=lambda op: op.end or 0.0,
    )
    ends = [op.end or 0.0 for op in known]
    highest = list(itertools.accumulate(known, lambda one, other: max(one, other, key=lambda op: op.version)))

    def before(time: float) -> Operation | None:
        """What has the highest version of all that was known before a time."""
        place = bisect.bisect_left(ends, time)
        return highest[place - 1] if place else None

    return [*_come_back(operations, before), *_vanished(operations, before)]


def _come_back(operations, before) -> list[str]:
    """After an acknowledged delete, no version up to that of its tombstone is seen or made again."""
    found = []
    floors: list[tuple[float, int, Operation]] = []
    for delete in operations:
        if delete.kind != "delete" or delete.outcome != "ok" or delete.end is None:
            continue
        if (seen := before(delete.begin)) is not None:
            # It met that version or a later one, so the tombstone is at least the next.
            floors.append((delete.end, seen.version + 1, delete))
    floors.sort(key=lambda floor: floor[0])
    ends = [end for end, _, _ in floors]
    highest = list(itertools.accumulate(floors, lambda one, other: max(one, other, key=lambda f: f[1])))
    for later in operations:
        place = bisect.bisect_left(ends, later.begin)
        if later.outcome != "ok" or not later.version or not place:
            continue
        _, floor, delete = highest[place - 1]
        if later.version <= floor:
            found.append(f"what was deleted is there again, or was never deleted\n  {delete}\n  {later}")
    return found


def _vanished(operations, before) -> list[str]:
    """An entity is absent only if a delete can have come after the last version that was known."""
    found = []
    begins = {op.value: op.begin for op in operations if op.kind == "put"}
    deletes = sorted(
        (
            (op.begin, _NEVER if op.outcome == "unknown" else op.end or _NEVER)
            for op in operations
            if op.kind == "delete" and op.outcome != "refused"
        ),
    )
    starts = [begin for begin, _ in deletes]
    latest = list(itertools.accumulate((end for _, end in deletes), max))
    for read in operations:
        if read.kind != "get" or read.outcome != "ok" or read.version:
            continue
        seen = before(read.begin)
        if seen is None:
            continue
        place = bisect.bisect_right(starts, read.end or _NEVER)
        written = begins.get(seen.value, seen.begin)
        if not place or latest[place - 1] < written:
            found.append(f"an entity is absent, and no delete came after it\n  {seen}\n  {read}")
    return found
