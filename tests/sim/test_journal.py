"""Servers with a journal and programs without one keep each other's changes; planted bugs are found."""

from __future__ import annotations

from collections import Counter

import pytest

from deltadatabase.storage.batch import Commit, present_etag
from deltadatabase.storage.journal import Journal
from sim.disk import ProcessDisk
from sim.journal_scenario import Parts, simulate

SEEDS = range(250)
PLANTED_SEEDS = range(1_000)


def test_no_violation_in_many_seeds() -> None:
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        world, wrong = simulate(seed)
        assert not wrong, "\n".join([f"seed {seed}", *wrong, *map(str, world.asked)])
        seen += world.seen
    print(dict(seen))
    # Nothing is proved by what did not happen.
    for event in ("ok", "kill", "stop", "alone", "shared", "applied", "replayed", "version_mismatch"):
        assert seen[event] > 50, event


def test_one_seed_is_one_history() -> None:
    for seed in range(20):
        assert simulate(seed)[0].asked == simulate(seed)[0].asked


class SharedWithoutEmptying(Journal):
    def drain(self, deadline_s: float = 0.0) -> bool:
        return True


class ConditionsOfTheFiles(Journal):
    def _present(self, commit: Commit) -> str | None:
        return present_etag(self._disk, commit.target)


class ForgottenBeforeTheFiles(Journal):
    """What is in memory goes, and then the files are written."""

    def apply(self) -> bool:
        segment = self._full
        if segment is None:
            return False
        self._full = None
        for _ in range(9):
            self._disk.give_way("switch")  # type: ignore[attr-defined]
        self._full = segment
        return super().apply()


class AnsweredBeforeTheWrite(Journal):
    def _commit_small(self, commits: list[Commit]) -> None:  # type: ignore[override]
        for commit in commits:
            self._answer(commit, commit.etag)
        super()._commit_small(commits)


class NoHold(ProcessDisk):
    def lock(self, fd: int) -> None:
        file = self._open[fd]
        if file is self.shared.files.get(self._hold()):
            self.give_way("flock")
            return
        super().lock(fd)

    def _hold(self):  # type: ignore[no-untyped-def]
        return next((path for path in self.shared.files if path.name == "directory"), None)


PLANTS = {
    "shared_without_emptying": Parts(journal=SharedWithoutEmptying),
    "conditions_of_the_files": Parts(journal=ConditionsOfTheFiles),
    "forgotten_before_the_files": Parts(journal=ForgottenBeforeTheFiles),
    "answered_before_the_write": Parts(journal=AnsweredBeforeTheWrite),
    "no_hold": Parts(disk=NoHold),
    "not_replayed": Parts(replay=lambda *given, **named: None),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_is_found(plant: str) -> None:
    for seed in PLANTED_SEEDS:
        _, wrong = simulate(seed, PLANTS[plant])
        if wrong:
            print(f"{plant}: seed {seed}: {wrong[0]}")
            return
    pytest.fail("not found")
