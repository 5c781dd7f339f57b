"""When the files of a directory are what a server with a journal has acknowledged."""

from __future__ import annotations

from pathlib import Path

from support.programs import wait_for


def wait_until_written(root: Path) -> None:
    """Return once everything that was acknowledged before is in its file."""
    wait_for(lambda: not list((root / "cluster" / ".journal").glob("*")), "the journal is empty")
