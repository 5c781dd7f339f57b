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
        known = _Known(operations)
        judged = [_unmade_versions(operations), _come_back(operations, known), _vanished(operations, known)]
        found += [f"{key}: {sentence}" for sentence in itertools.chain(*judged)]
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


class _Known:
    """What was known of one key at any time: the operation that showed the highest version."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._ends: list[float] = []
        self._highest: list[Operation] = []
        for operation in sorted(operations, key=lambda op: op.end or 0.0):
            if operation.outcome != "ok" or not operation.version or operation.end is None:
                continue
            best = self._highest[-1] if self._highest else operation
            self._ends.append(operation.end)
            self._highest.append(operation if operation.version > best.version else best)

    def before(self, time: float) -> Operation | None:
        """Of all that had ended before a time."""
        place = bisect.bisect_left(self._ends, time)
        return self._highest[place - 1] if place else None


def _come_back(operations: Sequence[Operation], known: _Known) -> list[str]:
    """After an acknowledged delete, no version up to that of its tombstone is seen or made again."""
    found: list[str] = []
    ends: list[float] = []
    floors: list[tuple[int, Operation]] = []
    for delete in sorted(operations, key=lambda op: op.end or 0.0):
        if delete.kind != "delete" or delete.outcome != "ok" or delete.end is None:
            continue
        if (seen := known.before(delete.begin)) is None:
            continue
        # It met that version or a later one, so its tombstone has at least the next.
        floor = (seen.version + 1, delete)
        ends.append(delete.end)
        floors.append(max(floor, floors[-1], key=lambda each: each[0]) if floors else floor)
    for later in operations:
        place = bisect.bisect_left(ends, later.begin)
        if later.outcome != "ok" or not later.version or not place:
            continue
        version, delete = floors[place - 1]
        if later.version <= version:
            found.append(f"what was deleted is there again, or was never deleted\n  {delete}\n  {later}")
    return found


def _vanished(operations: Sequence[Operation], known: _Known) -> list[str]:
    """An entity is absent only if a delete can have come after the last version that was known."""
    found: list[str] = []
    begins = {op.value: op.begin for op in operations if op.kind == "put"}
    deletes = sorted(
        (op.begin, _NEVER if op.end is None else op.end)
        for op in operations
        if op.kind == "delete" and op.outcome != "refused"
    )
    starts = [begin for begin, _ in deletes]
    latest = list(itertools.accumulate((end for _, end in deletes), max))
    for read in operations:
        if read.kind != "get" or read.outcome != "ok" or read.version or read.end is None:
            continue
        if (seen := known.before(read.begin)) is None:
            continue
        place = bisect.bisect_right(starts, read.end)
        if not place or latest[place - 1] < begins.get(seen.value, seen.begin):
            found.append(f"an entity is absent, and no delete came after it\n  {seen}\n  {read}")
    return found
