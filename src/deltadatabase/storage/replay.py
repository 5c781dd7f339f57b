"""Takes over what a process that was killed has left in a directory's journal."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from deltadatabase import limits
from deltadatabase.clock import Clock
from deltadatabase.errors import Corrupt, StartupError
from deltadatabase.storage.applying import Applier, Outcome, Overtaken
from deltadatabase.storage.batch import SyncFailed, sync_failure
from deltadatabase.storage.directory_hold import DirectoryHold
from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.disk import Disk
from deltadatabase.storage.journal_format import Change, parse

POLL_S: Final = 0.05
_NAME: Final = re.compile("[0-9a-f]{16}")
_HINT: Final = (
    "; if the directory was restored from a copy of a running database, move cluster/.journal away: the "
    "files are then what they were when they were copied"
)


def segments(layout: DirectoryLayout, disk: Disk) -> Sequence[int]:
    """Numbers of the segments that are there, ascending. Raises OSError."""
    try:
        return sorted(int(name, 16) for name in disk.names(layout.journal) if _NAME.fullmatch(name))
    except FileNotFoundError:
        return []


def pause() -> None:
    """Wait a moment for others on the directory."""
    time.sleep(POLL_S)


def enter(
    hold: DirectoryHold,
    layout: DirectoryLayout,
    disk: Disk,
    *,
    alone: bool,
    replay: Callable[[], object],
    clock: Clock,
    pause: Callable[[], object] = pause,
) -> None:
    """Wait until this opening may work on the directory, with an empty journal. Blocks.

    Args:
        hold: of this opening.
        layout: of the directory.
        disk: of the directory.
        alone: have it alone, if nobody else works on it.
        replay: empties the journal; called while the directory is held alone.
        clock: for the time-out.
        pause: waits a moment.

    Raises:
        StartupError: ``locked``: a server has it alone and does not let go; or as ``replay``.
        OSError: the directory cannot be used.
    """
    deadline_s = clock.monotonic_s() + limits.DIRECTORY_WAIT_S
    while True:
        # Not taken without need: a network file system may not let it be.
        if not alone and hold.share() and not segments(layout, disk):
            return
        if hold.take():
            replay()
            if alone:
                return
            continue
        if alone and hold.share() and not segments(layout, disk):
            return
        if clock.monotonic_s() >= deadline_s:
            raise StartupError(
                "another server has this directory for itself and does not let go: stop it", code="locked"
            )
        hold.ask()
        pause()


def replay(
    layout: DirectoryLayout,
    disk: Disk,
    *,
    clock: Clock,
    syncfs: bool,
    applier: Callable[..., Applier] = Applier,
    parsed: Callable[..., Sequence[Change]] = parse,
) -> int:
    """Write what the journal holds to the objects' files, and remove it; return how many there were.

    The caller has the directory alone.

    Args:
        layout: as ``Applier``.
        disk: as ``Applier``.
        clock: as ``Applier``.
        syncfs: as ``Applier``.
        applier: writes the files; a test may plant a bug.
        parsed: reads a segment; the same.

    Raises:
        StartupError: ``store_refused``: it is damaged, does not fit the files, or cannot be written.
        SyncFailed: as ``Applier``.
        OSError: it cannot be read or removed.
    """
    numbers = segments(layout, disk)
    if not numbers:
        return 0
    outcomes: dict[str, Outcome] = {}
    for number in numbers:
        seen: set[str] = set()
        for path, before, after, data in _changes(layout, disk, number, parsed):
            outcome = outcomes.get(path)
            if outcome is None:
                outcome = outcomes[path] = Outcome(before)
            elif before != outcome.etag:
                raise _refusal("the journal's changes do not follow each other")
            elif path not in seen:
                # What the segment before ended with may be in the file.
                outcome.known.add(before)
            seen.add(path)
            outcome.set(data, after, 0)
    try:
        failure = applier(layout, disk, clock=clock, syncfs=syncfs, strict=True).apply(outcomes, {})
    except Overtaken:
        raise _refusal(
            f"the journal does not fit the files, which something else has changed{_HINT}"
        ) from None
    if failure is not None:
        raise _refusal(f"the journal cannot be written back: {failure.detail}")
    drop(layout, disk, numbers)
    return len(outcomes)


def drop(layout: DirectoryLayout, disk: Disk, numbers: Sequence[int]) -> None:
    """Remove segments that are in the files, durably, oldest first. Raises SyncFailed, OSError.

    One that came back after a crash, when a later one is gone, would not fit the files.
    """
    folder = disk.open_folder(layout.journal)
    try:
        for number in numbers:
            disk.unlink(layout.segment(number))
            try:
                disk.fsync(folder)
            except OSError as exc:
                raise SyncFailed(sync_failure(exc)) from exc
    finally:
        disk.close(folder)


def _changes(
    layout: DirectoryLayout, disk: Disk, number: int, parsed: Callable[..., Sequence[Change]]
) -> Sequence[Change]:
    try:
        return parsed(disk.read_own(layout.segment(number)), segment=number)
    except Corrupt:
        raise _refusal(f"the journal is damaged{_HINT}") from None


def _refusal(text: str) -> StartupError:
    return StartupError(text, code="store_refused")
