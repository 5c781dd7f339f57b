"""The files of a directory that somebody else may be writing to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def directory_listing(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below ``root`` with its time in ns and its bytes; names are ``a/b``.

    A store's temporary file goes to its own name at any time: one that went meanwhile is left out.
    """
    return dict(_files(root))


def _files(root: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    for path in root.rglob("*"):
        try:
            if path.is_file():
                yield str(path.relative_to(root)), (path.stat().st_mtime_ns, path.read_bytes())
        except FileNotFoundError:
            continue
