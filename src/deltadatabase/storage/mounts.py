"""What kind of file system a directory lies on, as Linux tells it. Elsewhere: unknown."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


def filesystem_type(directory: Path) -> str:
    """Type of the file system that ``directory`` lies on (``ext4``, ``nfs4``, …); "" when unknown.

    Does file system I/O.
    """
    try:
        text = _MOUNTINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return type_in_mountinfo(text, directory.resolve())


def type_in_mountinfo(text: str, directory: Path) -> str:
    """Find the type in the text of ``/proc/self/mountinfo`` (format: Linux man page proc(5))."""
    best, kind = -1, ""
    for line in text.splitlines():
        fields, separator, rest = line.partition(" - ")
        columns = fields.split(" ")
        if not separator or len(columns) < 5:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), columns[4]))
        # Later lines hide earlier ones at the same place.
        if directory.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), rest.split(" ", 1)[0]
    return kind
