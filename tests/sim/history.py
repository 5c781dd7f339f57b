"""What clients saw, and whether one copy of each entity could have shown it to them.

Every successful write has a version, and reads tell theirs. So linearizability of a key needs no
search: versions are the order, and real time must agree with it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass


@dataclass
class Operation:
    """One call of a client.

    Attributes:
        kind: ``put``, ``delete`` or ``get``.
        value: what was put, or what was read; None for an absent entity.
        begin, end: virtual seconds; ``end`` None while it runs or if its outcome is unknown.
        version: of the write or of what was read; 0 for an absent entity.
        outcome: ``ok``, ``refused`` (certainly not applied) or ``unknown``.
    """

    client: int
    key: str
    kind: str
    value: bytes | None
    begin: float
    end: float | None = None
    version: int = 0
    outcome: str = "unknown"

    def __str__(self) -> str:
        end = "…" if self.end is None else f"{self.end:.3f}"
        value = "" if self.value is None else self.value.decode()
        return (
            f"{self.begin:9.3f} {end:>9} client {self.client} {self.kind:6} {self.key} "
            f"{value:8} -> {self.outcome} v{self.version}"
        )


def violations(history: list[Operation]) -> list[str]:
    """Return every contradiction, as a sentence with the operations that make it."""
    found: list[str] = []
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    for key, operations in by_key.items():
        found += [f"{key}: {sentence}" for sentence in _violations_of(operations)]
    return found


def _violations_of(operations: list[Operation]) -> list[str]:
    found: list[str] = []
    writes = [op for op in operations if op.kind != "get"]
    reads = [op for op in operations if op.kind == "get" and op.outcome == "ok"]
    by_version: dict[int, Operation] = {}
    for write in writes:
        if write.outcome != "ok" or not write.version:
            continue
        if (other := by_version.setdefault(write.version, write)) is not write:
            found.append(f"two writes got version {write.version}\n  {other}\n  {write}")
    values = {write.value: write for write in writes if write.kind == "put"}
    for read in reads:
        if not read.version:
            continue
        write = values.get(read.value)
        if write is None or write.outcome == "refused":
            found.append(f"a read shows what was never written\n  {read}")
            continue
        owner = by_version.get(read.version)
        if owner is not None and owner.value != read.value:
            found.append(f"two values have version {read.version}\n  {owner}\n  {read}")
        if write.outcome == "ok" and write.version != read.version:
            found.append(f"a value is read under another version than its write got\n  {write}\n  {read}")
        if read.end is not None and write.begin > read.end:
            found.append(f"a read shows a later write\n  {write}\n  {read}")
    found += _against_real_time(writes, reads)
    return found


def _against_real_time(writes: list[Operation], reads: list[Operation]) -> list[str]:
    """Nobody may see less than was known to be there before it asked."""
    found: list[str] = []
    known = sorted(
        (op for op in [*writes, *reads] if op.outcome == "ok" and op.version and op.end is not None),
        key=lambda op: op.end or 0.0,
    )
    for later in [*writes, *reads]:
        if later.outcome != "ok":
            continue
        floor = max(
            (op for op in known if op is not later and (op.end or 0.0) < later.begin),
            key=lambda op: op.version,
            default=None,
        )
        if floor is None:
            continue
        if later.kind == "get" and not later.version:
            if not _may_be_absent(writes, floor, later):
                found.append(f"an entity is missing that nobody deleted\n  {floor}\n  {later}")
        elif later.kind == "get":
            if later.version < floor.version:
                found.append(f"a read is older than what was known before\n  {floor}\n  {later}")
        elif later.version and later.version <= floor.version:
            found.append(f"a write got a version that was taken before it began\n  {floor}\n  {later}")
    return found


def _may_be_absent(writes: list[Operation], floor: Operation, read: Operation) -> bool:
    """Whether a delete of ``floor`` or of something after it can have come before the read ended."""
    if floor.kind == "delete":
        return True
    return any(
        write.kind == "delete"
        and write.begin <= (read.end or 0.0)
        and (write.outcome == "unknown" or write.version > floor.version)
        for write in writes
    )
