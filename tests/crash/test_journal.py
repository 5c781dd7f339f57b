"""The same for a directory with a journal: every crash state opens, and has what was acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from crash.recording import RecordingDisk
from crash.scenarios import Process, Recorded, record, replay
from crash.test_crash import FilesNotSynced, Wrapped
from deltadatabase.storage import replay as replaying
from deltadatabase.storage.applying import Applier, Outcome
from deltadatabase.storage.batch import Commit
from deltadatabase.storage.journal import Journal, Segment
from deltadatabase.storage.journal_format import Change, frame, parse, records
from deltadatabase.storage.local import DirectoryObjects

Start = Callable[..., Process]


def create(run: Recorded, start: Start) -> None:
    start().commit([("put", "a")])


def written_to_files(run: Recorded, start: Start) -> None:
    process = start()
    process.commit([("put", "a")])
    process.write_files()
    process.commit([("put", "a")])
    process.write_files()


def many_versions(run: Recorded, start: Start) -> None:
    process = start()
    process.commit([("put", "a"), ("put", "b"), ("put", "a")])
    process.commit([("put", "a"), ("remove", "b")])
    process.write_files()
    process.commit([("put", "b"), ("remove", "a")])
    process.commit([("put", "a"), ("remove", "b")])
    process.write_files()


def two_segments(run: Recorded, start: Start) -> None:
    """The next one grows while the files of the first are written."""
    process = start()
    process.commit([("put", "a")])
    process.write_files()
    process.commit([("put", "a"), ("put", "b")])
    process.turn()
    process.commit([("put", "a")])
    process.write_files()


def killed_with_two_segments(run: Recorded, start: Start) -> None:
    process = start()
    process.commit([("put", "a"), ("put", "b")])
    process.turn()
    process.commit([("put", "a"), ("remove", "b")])
    process.kill()
    start().commit([("put", "a")])


def killed(run: Recorded, start: Start) -> None:
    """The next one takes over what is in the journal, and goes on."""
    first = start()
    first.commit([("put", "a"), ("put", "b")])
    first.commit([("put", "a")])
    first.kill()
    second = start()
    second.commit([("put", "a"), ("remove", "b")])
    second.kill()
    start().commit([("put", "a")])


def killed_and_shared(run: Recorded, start: Start) -> None:
    """One without a journal takes it over."""
    first = start()
    first.commit([("put", "a")])
    first.kill()
    start(journal=None).commit([("put", "a")])


SCENARIOS = [
    create,
    written_to_files,
    many_versions,
    two_segments,
    killed,
    killed_with_two_segments,
    killed_and_shared,
]


@pytest.mark.parametrize("syncfs", [False, True], ids=["fsync", "syncfs"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_leaves_what_was_acknowledged(
    scenario: Callable[[Recorded, Start], None], syncfs: bool, tmp_path: Path
) -> None:
    run = record(scenario, tmp_path, syncfs=syncfs, journal=Journal)
    verdict = replay(run, seed=1, exhaustive_max=60)
    print(f"{scenario.__name__}: {verdict.crashes} crashes, {verdict.states} states, {verdict.exhaustive=}")
    assert verdict.wrong == []
    assert verdict.states > verdict.crashes


# Planted bugs.


class AnsweredBeforeTheSync(Journal):
    def _sync(self, fd: int) -> None:
        pass


class SegmentsNameNotSynced(Journal):
    def _sync_folder(self, fd: int) -> None:
        if self._folder_made:
            return
        super()._sync_folder(fd)


class DroppedBeforeTheFiles(Journal):
    """The files are written, and only then made durable."""

    def apply(self) -> bool:
        segment = self._full
        if segment is not None:
            replaying.drop(self._layout, self._disk, [segment.number])
            self._full = Segment(0.0)
            self._full.outcomes = segment.outcomes
        return super().apply()


class FilesNotDurable(Applier):
    """A segment goes although its files are not durable."""

    def __init__(self, layout: Any, disk: Any, **parts: Any) -> None:
        super().__init__(layout, FilesNotSynced(disk), **parts)


class RemovedWithoutSync(Wrapped):
    """Segments come back after a crash, an earlier one when a later one has gone."""

    def __init__(self, disk: RecordingDisk) -> None:
        super().__init__(disk)
        self.removed = False

    def unlink(self, path: Path) -> None:
        self.disk.unlink(path)
        self.removed = path.parent.name == ".journal"

    def fsync(self, fd: int) -> None:
        if not self.removed:
            self.disk.fsync(fd)
        self.removed = False


class Careless(Applier):
    """Writes its version over whatever is there."""

    def _commit(self, path: str, outcome: Outcome) -> Commit | None:
        return self._change(path, outcome.data)


class OpenedCarelessly(DirectoryObjects):
    def _replay(self) -> None:
        replaying.replay(self._layout, self._disk, clock=self._clock, syncfs=True, applier=Careless)


def torn(data: bytes, *, segment: int) -> Sequence[Change]:
    """Without a look at the checksum."""
    sound = bytearray(data)
    position, batch = 0, 1
    while position + 32 <= len(sound) and sound[position : position + 8] == b"DeltaJ\0\1":
        size = int.from_bytes(sound[position + 12 : position + 16], "big")
        payload = bytes(sound[position + 32 : position + 32 + size])
        right = frame(tuple(records(payload)), segment=segment, batch=batch)
        sound[position : position + len(right)] = right
        position += 32 + size
        batch += 1
    return parse(bytes(sound), segment=segment)


class TornAccepted(DirectoryObjects):
    def _replay(self) -> None:
        replaying.replay(self._layout, self._disk, clock=self._clock, syncfs=True, parsed=torn)


PLANTS: dict[str, tuple[Callable[[Recorded, Start], None], dict[str, Any]]] = {
    "answered_before_the_sync": (create, {"journal": AnsweredBeforeTheSync}),
    "segments_name_not_synced": (create, {"journal": SegmentsNameNotSynced}),
    "dropped_before_the_files": (written_to_files, {"journal": DroppedBeforeTheFiles}),
    "files_not_durable": (
        written_to_files,
        {"journal": partial(Journal, applier=FilesNotDurable)},
    ),
    "removed_without_sync": (two_segments, {"journal": Journal, "wrap": RemovedWithoutSync}),
    "replayed_over_a_newer_version": (
        two_segments,
        {"journal": Journal, "wrap": RemovedWithoutSync, "opened": OpenedCarelessly},
    ),
    "torn_frame_accepted": (create, {"journal": Journal, "opened": TornAccepted}),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_leaves_a_bad_state(plant: str, tmp_path: Path) -> None:
    scenario, parts = PLANTS[plant]
    run = record(scenario, tmp_path, syncfs=False, **parts)
    verdict = replay(run, seed=1, exhaustive_max=300, stop_at_first=True)
    assert verdict.wrong
    print(f"{plant}: {verdict.wrong[0]}")
