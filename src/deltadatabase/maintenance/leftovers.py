"""Temporary files that interrupted commits left in a directory's ``cluster/.tmp``.

They were never objects and nobody reads them. Every opening of the directory removes those that
are older than an hour (``storage.local``), so they are looked for before it is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

STAGING: Final = Path("cluster", ".tmp")
AGE_MS: Final = 3_600_000
SHOWN_MAX: Final = 1000


def find(root: Path, *, now_ms: int) -> list[str]:
    """Names of the leftovers older than an hour, at most ``SHOWN_MAX``, ascending. Does I/O."""
    try:
        names = [
            str(entry.relative_to(root))
            for entry in (root / STAGING).glob("*/*")
            if now_ms - entry.stat().st_mtime_ns // 1_000_000 > AGE_MS
        ]
    except OSError:
        # Not there, or going away under our hands: then there is nothing to tell.
        return []
    return sorted(names)[:SHOWN_MAX]
