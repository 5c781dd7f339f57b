"""Every crash state of recorded commits is good, and each planted bug leaves a bad one."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from crash.model import Crash, materialize
from crash.recording import BASE, Entry, RecordingDisk, Sync, Write
from crash.scenarios import EXHAUSTIVE_MAX, Process, Recorded, record, replay
from deltadatabase.storage.batch import BatchCommitter, Commit

Start = Callable[..., Process]


def create(run: Recorded, start: Start) -> None:
    start().commit([("put", "a")])


def overwrite(run: Recorded, start: Start) -> None:
    process = start()
    process.commit([("put", "a")])
    process.commit([("put", "a")])


def remove(run: Recorded, start: Start) -> None:
    process = start()
    for kind in ("put", "remove", "put"):
        process.commit([(kind, "a")])


def shared_batch(run: Recorded, start: Start) -> None:
    process = start()
    process.commit([("put", "a"), ("put", "b")])
    process.commit([("put", "a"), ("put", "c"), ("remove", "b")])


def large_batches(run: Recorded, start: Start) -> None:
    process = start()
    keys = "abcdefghij"
    process.commit([("put", key) for key in keys])
    process.commit([("put", key) for key in keys[:9]] + [("remove", "j")])
    process.commit([("put", key) for key in keys])


def two_processes(run: Recorded, start: Start) -> None:
    """The second one finds folders that the first one made."""
    first, second = start(), start()
    first.commit([("put", "a")])
    second.commit([("put", "b"), ("put", "a")])
    first.commit([("put", "b")])


def killed_while_making_folders(run: Recorded, start: Start) -> None:
    """Somebody made a folder and was killed before it synced the name; another goes on in it."""
    root = run.disk.base / "data"
    run.disk.make_folder(root)
    process = start()
    for folder in (root / "files", root / "files" / "s"):
        run.disk.make_folder(folder)
    process.commit([("put", "a")])


class Killed(BaseException):
    """The process ends here."""


class KilledAfterTheRename:
    """A disk on which a process is killed before it syncs the folder of an object."""

    def __init__(self, disk: RecordingDisk) -> None:
        self.disk = disk
        self.renamed = False

    def __getattr__(self, name: str) -> object:
        return getattr(self.disk, name)

    def rename(self, source: Path, target: Path) -> None:
        self.disk.rename(source, target)
        self.renamed = True

    def fsync(self, fd: int) -> None:
        if self.renamed:
            raise Killed
        self.disk.fsync(fd)


def seen_by_the_next_owner(run: Recorded, start: Start, *, settle: bool = True) -> None:
    """A process is killed before it makes a write durable; another one finds the write and says so."""
    start().commit([("put", "a")])
    with pytest.raises(Killed):
        start(wrap=KilledAfterTheRename).commit([("put", "a")])
    start().acknowledge_on_sight("a", settle=settle)


def seen_and_not_settled(run: Recorded, start: Start) -> None:
    seen_by_the_next_owner(run, start, settle=False)


SCENARIOS = [
    seen_by_the_next_owner,
    create,
    overwrite,
    remove,
    shared_batch,
    large_batches,
    two_processes,
    killed_while_making_folders,
]


@pytest.mark.parametrize("syncfs", [False, True], ids=["fsync", "syncfs"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_crash_leaves_the_old_or_the_new_version(
    scenario: Callable[[Recorded, Start], None], syncfs: bool, tmp_path: Path
) -> None:
    run = record(scenario, tmp_path, syncfs=syncfs)
    most = {large_batches: 10, killed_while_making_folders: 4 * EXHAUSTIVE_MAX}
    verdict = replay(run, seed=1, exhaustive_max=most.get(scenario, EXHAUSTIVE_MAX))
    print(f"{scenario.__name__}: {verdict.crashes} crashes, {verdict.states} states, {verdict.exhaustive=}")
    assert verdict.wrong == []
    assert verdict.states > verdict.crashes
    if scenario in (create, killed_while_making_folders):
        assert verdict.exhaustive


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_model_ends_where_the_real_disk_does(
    scenario: Callable[[Recorded, Start], None], tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "model").mkdir()
    run = record(scenario, tmp_path / "real", syncfs=True)
    crash = Crash()
    for step in run.steps:
        crash.add(step)
    materialize(crash.final(), tmp_path / "model")

    def content(base: Path) -> dict[str, bytes | None]:
        return {
            str(path.relative_to(base)): None if path.is_dir() else path.read_bytes()
            for path in base.rglob("*")
        }

    assert content(tmp_path / "model") == content(tmp_path / "real")
    assert len(content(tmp_path / "real")) > 5


def test_the_recording_notes_what_the_system_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def spy(module: object, name: str, call: str) -> None:
        real = getattr(module, name)

        def noting(*arguments: object, **named: object) -> object:
            # A read and a pin change nothing and are not recorded; they alone open like this.
            if call != "open" or not arguments[1] & (os.O_NONBLOCK | os.O_PATH):  # type: ignore[operator]
                seen.append(call)
            return real(*arguments, **named)

        monkeypatch.setattr(module, name, noting)

    for name in ("open", "write", "mkdir", "rename", "unlink", "fsync"):
        spy(os, name, name)
    spy(fcntl, "flock", "lock")
    run = record(shared_batch, tmp_path, syncfs=False)
    monkeypatch.undo()
    assert seen == run.disk.calls
    assert {"open", "write", "mkdir", "rename", "unlink", "fsync", "lock"} == set(seen)


# Planted bugs: wrong disks and wrong committers.


class Wrapped:
    """A disk that does what the recorded one does, but for what a subclass changes."""

    def __init__(self, disk: RecordingDisk) -> None:
        self.disk = disk

    def __getattr__(self, name: str) -> object:
        return getattr(self.disk, name)


class FilesNotSynced(Wrapped):
    def fsync(self, fd: int) -> None:
        if self.disk.is_folder(fd):
            self.disk.fsync(fd)

    def syncfs(self, fd: int) -> None:
        pass


class SyncedAfterTheRename(Wrapped):
    """The file's sync comes too late, though before the answer."""

    def __init__(self, disk: RecordingDisk) -> None:
        super().__init__(disk)
        self.owed: list[int] = []

    def fsync(self, fd: int) -> None:
        if not self.disk.is_folder(fd):
            self.owed.append(fd)
            return
        self._pay()
        self.disk.fsync(fd)

    def syncfs(self, fd: int) -> None:
        self.owed.append(fd)

    def close(self, fd: int) -> None:
        if fd not in self.owed:
            self.disk.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        self.disk.rename(source, target)
        self._pay()

    def _pay(self) -> None:
        for fd in self.owed:
            self.disk.fsync(fd)
            self.disk.close(fd)
        self.owed.clear()


class OverwritesInPlace(Wrapped):
    def rename(self, source: Path, target: Path) -> None:
        if not target.exists():
            self.disk.rename(source, target)
            return
        self.disk.overwrite(target, source.read_bytes())
        self.disk.unlink(source)


class FoldersNotSynced(BatchCommitter):
    def _sync_folders(self, folders: dict[Path, int]) -> None:
        pass


class AnsweredTooEarly(BatchCommitter):
    def _install_one(self, commit: Commit, folders: dict[Path, int]) -> bool:
        held = super()._install_one(commit, folders)
        self._answer(commit, commit.etag)
        return held

    def _install(self, staged: Sequence[Commit]) -> Sequence[Commit]:
        answer, once = self._answer, set[int]()

        def answer_once(commit: Commit, outcome: object) -> None:
            if id(commit) not in once:
                once.add(id(commit))
                answer(commit, outcome)  # type: ignore[arg-type]

        self._answer = answer_once
        try:
            return super()._install(staged)
        finally:
            self._answer = answer


class ParentNotSynced(BatchCommitter):
    def _make_durable(self, folder: Path) -> None:
        self._disk.make_folder(folder)


class FoundFoldersBelieved(BatchCommitter):
    """A folder that is there is taken for durable, whoever made it."""

    def _make_durable(self, folder: Path) -> None:
        if not folder.exists():
            super()._make_durable(folder)


PLANTS = {
    "files_not_synced": {"wrap": FilesNotSynced},
    "synced_after_the_rename": {"wrap": SyncedAfterTheRename},
    "overwrites_in_place": {"wrap": OverwritesInPlace},
    "folders_not_synced": {"committer": FoldersNotSynced},
    "answered_too_early": {"committer": AnsweredTooEarly},
    "parent_not_synced": {"committer": ParentNotSynced},
    "found_folders_believed": {"committer": FoundFoldersBelieved},
}
NEEDS = {
    "overwrites_in_place": overwrite,
    "synced_after_the_rename": overwrite,
    "found_folders_believed": killed_while_making_folders,
}


@pytest.mark.parametrize("syncfs", [False, True], ids=["fsync", "syncfs"])
@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_leaves_a_bad_state(plant: str, syncfs: bool, tmp_path: Path) -> None:
    run = record(NEEDS.get(plant, create), tmp_path, syncfs=syncfs, **PLANTS[plant])
    verdict = replay(run, seed=1, stop_at_first=True)
    assert verdict.wrong
    print(f"{plant}: {verdict.wrong[0]}")


def test_a_write_that_was_seen_but_not_settled_may_be_lost_again(tmp_path: Path) -> None:
    run = record(seen_and_not_settled, tmp_path, syncfs=False)
    assert "version 1 is not what must be there" in replay(run, seed=1, stop_at_first=True).wrong[0]


@pytest.mark.parametrize("plant", ["files_not_synced", "synced_after_the_rename"])
def test_a_batch_whose_common_sync_is_missing_leaves_a_bad_state(plant: str, tmp_path: Path) -> None:
    run = record(large_batches, tmp_path, syncfs=True, **PLANTS[plant])
    verdict = replay(run, seed=1, stop_at_first=True)
    assert verdict.wrong


def test_a_write_that_is_not_synced_may_be_lost_torn_or_zero() -> None:
    crash = Crash()
    for step in (Entry(BASE, "f", 1), Sync(BASE), Write(1, b"abcd")):
        crash.add(step)
    found = {dict(tree)["f"] for tree in crash.trees(100, random.Random(0))}
    assert found == {b"", b"ab", b"\0\0\0\0", b"ab\0\0", b"\0\0cd", b"abcd"}
    crash.add(Sync(1))
    assert list(crash.trees(100, random.Random(0))) == [frozenset({("f", b"abcd")})]
