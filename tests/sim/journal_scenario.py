"""One seeded run: servers with a journal and programs without one, which come, go and are killed.

A server has its commits and its writing of files in two greenlets, which any other may come between
at each system call. Everybody waits for the directory by the real protocol.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from deltadatabase.errors import DeltaError, StartupError
from deltadatabase.limits import STORE_TIMEOUT_S
from deltadatabase.storage.base import Condition, When
from deltadatabase.storage.batch import BatchCommitter, Commit, digest
from deltadatabase.storage.directory_hold import DirectoryHold
from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.group_commit import Batches
from deltadatabase.storage.journal import Journal
from deltadatabase.storage.replay import enter, replay
from sim.disk import ROOT, ProcessDisk, SharedDisk
from sim.disk_scenario import CALL_S, PATHS, Asked, VirtualClock, World, present, violations

ROUNDS = 6
PAUSE_S = 0.05
STEPS_MAX = 60_000


@dataclass
class Parts:
    """The code under test; a test may plant a bug."""

    journal: Callable[..., Journal] = Journal
    replay: Callable[..., object] = replay
    disk: Callable[[SharedDisk, str], ProcessDisk] = ProcessDisk


class Program:
    """A server (``alone``) or another program on the directory: reads, and changes what it read.

    Attributes:
        wakes_s: it waits until then.
    """

    def __init__(self, world: JournalWorld, name: str, *, alone: bool) -> None:
        self.world = world
        self.name = name
        self.alone = alone
        self.disk = world.parts.disk(world.shared, name)
        self.layout = DirectoryLayout(ROOT, world.rng.randbytes)
        self.wakes_s = {"main": 0.0, "apply": 0.0}
        self._asked: dict[int, Asked] = {}
        self._batches: Batches | None = None
        self._ended = False
        self.bodies = {"main": greenlet(self._run)}
        if alone:
            self.bodies["apply"] = greenlet(self._apply)

    @property
    def dead(self) -> bool:
        return self.bodies["main"].dead

    def step(self) -> bool:
        """Go on to the next system call of one of its threads; False: all of them wait."""
        now_s = self.world.clock.now_s
        ready = [name for name, body in self.bodies.items() if not body.dead and self.wakes_s[name] <= now_s]
        if not ready:
            return False
        name = self.world.rng.choice(ready)
        body = self.bodies[name]
        body.parent = getcurrent()
        if body.switch() == "wait":
            self.wakes_s[name] = now_s + PAUSE_S
        return True

    def stop(self, seconds: float) -> None:
        for name in self.wakes_s:
            self.wakes_s[name] = self.world.clock.now_s + seconds

    def kill(self) -> None:
        """As kill -9."""
        self.disk.kill()
        for body in self.bodies.values():
            if not body.dead:
                body.throw(GreenletExit)

    def _run(self) -> None:
        hold = DirectoryHold(self.layout, self.disk)
        enter(
            hold,
            self.layout,
            self.disk,
            alone=self.alone,
            replay=self._replay,
            clock=self.world.clock,
            pause=self._pause,
        )
        self._batches = batches = self._open(hold)
        rng = self.world.rng
        seen: dict[str, str | None] = {}
        for number in range(ROUNDS):
            self.world.seen["alone" if hold.alone else "shared"] += 1
            batch: list[Commit] = []
            for path in rng.sample(PATHS, rng.randint(1, len(PATHS))):
                stale = seen.get(path)
                now = seen[path] = self._look(path)
                if stale is not None and rng.random() < 0.2:
                    now = stale  # Of one that looked a while ago.
                data = b"%s %d %s" % (self.name.encode(), number, path.encode())
                batch.append(self._ask(path, now, None if now and rng.random() < 0.25 else data))
            batches.commit(batch)
            while batches.busy or (self.alone and rng.random() < 0.85):
                self._pause()
                batches.commit([])
        batches.close()
        self._ended = True
        hold.close()

    def _open(self, hold: DirectoryHold) -> Batches:
        rng = self.world.rng
        parts: dict[str, Any] = {"clock": self.world.clock, "syncfs": rng.random() < 0.5}
        if not self.alone:
            return BatchCommitter(ROOT, disk=self.disk, answer=self._answered, **parts)
        return self.world.parts.journal(
            self.layout, self.disk, hold, answer=self._answered, wait=self._pause, pause=self._pause, **parts
        )

    def _apply(self) -> None:
        while not self._ended:
            self._pause()
            if isinstance(self._batches, Journal):
                self.world.seen["applied"] += self._batches.has_work
                self._batches.apply()

    def _pause(self) -> None:
        self.disk.give_way("wait")

    def _replay(self) -> None:
        before = len(self.world.shared.changes)
        self.world.parts.replay(self.layout, self.disk, clock=self.world.clock, syncfs=True)
        self.world.seen["replayed"] += len(self.world.shared.changes) > before

    def _look(self, path: str) -> str | None:
        newest = self._batches.newest(path) if isinstance(self._batches, Journal) else None
        if newest is not None:
            return newest.etag
        try:
            return digest(self.disk.read(self.layout.file(path))[0])
        except FileNotFoundError:
            return None

    def _ask(self, path: str, now: str | None, data: bytes | None) -> Commit:
        condition: Condition = When.ABSENT if now is None else now
        deadline_s = self.world.clock.now_s + STORE_TIMEOUT_S
        commit = self.layout.commit(path, data, condition, deadline_s, None)
        change = Asked(self.name, path, now, commit.etag or None)
        self.world.asked.append(change)
        self._asked[id(commit)] = change
        return commit

    def _answered(self, commit: Commit, outcome: str | DeltaError) -> None:
        change = self._asked[id(commit)]
        if isinstance(outcome, str):
            change.outcome = "ok"
        elif outcome.certain:
            change.outcome = "refused"
        self.world.seen[outcome.code if isinstance(outcome, DeltaError) else "ok"] += 1


@dataclass
class JournalWorld(World):
    """Everything of one run."""

    parts: Parts = field(default_factory=Parts)


def simulate(seed: int, parts: Parts | None = None) -> tuple[JournalWorld, list[str]]:
    """Run one seed; return everything, and what is wrong with it."""
    rng = random.Random(seed)
    world = JournalWorld(rng, BatchCommitter, ProcessDisk, VirtualClock(), parts=parts or Parts())
    trouble = rng.choice([0.0, 0.002, 0.01])
    coming = [rng.random() < 0.5 for _ in range(rng.randint(2, 5))]
    programs: list[Program] = []
    born = 0
    try:
        for _ in range(STEPS_MAX):
            programs = [program for program in programs if not program.dead]
            if coming and (not programs or rng.random() < 0.01):
                alone = coming.pop()
                programs.append(Program(world, f"p{born}", alone=alone))
                born += 1
            if not programs:
                break
            program = rng.choice(programs)
            if rng.random() < trouble:
                event = rng.choice(["kill", "stop"])
                world.seen[event] += 1
                if event == "stop":
                    program.stop(rng.choice([0.5, 3.0, 8.0]))
                else:
                    program.kill()
                    coming.append(rng.random() < 0.5)
                    trouble *= 0.8  # Every run ends.
            elif program.step():
                world.clock.now_s += CALL_S * rng.random()
            else:
                world.clock.now_s += CALL_S
        else:
            raise AssertionError("the run does not end")
        _take_over(world)
    except StartupError as exc:
        if exc.code == "locked":
            world.seen["locked out"] += 1
            for program in programs:
                program.kill()
            _take_over(world)
        else:
            return world, [f"refused: {exc.detail}"]
    except Exception as exc:  # noqa: BLE001 - whatever a planted bug makes of it
        return world, [f"broken: {exc!r}"]
    return world, violations(world.asked, present(world))


def _take_over(world: JournalWorld) -> None:
    """One more program comes when all others are gone."""
    disk = world.parts.disk(world.shared, "last")
    layout = DirectoryLayout(ROOT, world.rng.randbytes)
    body = greenlet(
        lambda: world.parts.replay(layout, disk, clock=world.clock, syncfs=True), parent=getcurrent()
    )
    while not body.dead:
        body.switch()
