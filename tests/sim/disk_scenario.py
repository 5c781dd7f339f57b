"""One seeded run: processes that commit to one directory, stopped and killed at any system call."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from greenlet import GreenletExit, getcurrent, greenlet

from deltadatabase.errors import DeltaError
from deltadatabase.limits import STORE_TIMEOUT_S
from deltadatabase.storage.base import Condition, When
from deltadatabase.storage.batch import BatchCommitter, Commit, digest
from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.group_commit import LOCK_POLL_S
from sim.disk import ROOT, Change, ProcessDisk, SharedDisk

PATHS = ("files/s/a", "files/s/b")
PROCESSES_MAX = 4
ROUNDS = 5
CALL_S = 0.0005
STEPS_MAX = 20_000


@dataclass
class Asked:
    """A change that a process asked for.

    Attributes:
        named: ETag of the object that it was to replace; None: there was to be none.
        made: ETag of the new object; None: a removal.
        outcome: ``ok``, ``refused`` (certainly not made) or ``unknown``.
    """

    process: str
    path: str
    named: str | None
    made: str | None
    outcome: str = "unknown"


@dataclass
class VirtualClock:
    """Goes on with each system call. Files have its milliseconds."""

    now_s: float = 1_000.0

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


@dataclass
class World:
    """Everything of one run."""

    rng: random.Random
    committer: Callable[..., BatchCommitter]
    disk: Callable[..., ProcessDisk]
    clock: VirtualClock = field(default_factory=VirtualClock)
    asked: list[Asked] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.shared = SharedDisk(self.clock)


class Process:
    """A process: reads, and commits changes of what it read, some of them together."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.disk = world.disk(world.shared, name)
        self.layout = DirectoryLayout(ROOT, world.rng.randbytes)
        self.committer = world.committer(
            ROOT,
            disk=self.disk,
            clock=world.clock,
            syncfs=world.rng.random() < 0.5,
            answer=self._answered,
        )
        self.wakes_s = 0.0
        self._asked: dict[int, Asked] = {}
        self.body = greenlet(self._run)

    def step(self) -> None:
        """Go on to the next system call."""
        self.body.parent = getcurrent()
        if self.body.switch() == "wait":
            # Longer than the real pause, so that a run does not consist of it.
            self.wakes_s = self.world.clock.now_s + 20 * LOCK_POLL_S

    def kill(self) -> None:
        """As kill -9."""
        self.disk.kill()
        if not self.body.dead:
            self.body.throw(GreenletExit)

    def _run(self) -> None:
        rng = self.world.rng
        for number in range(ROUNDS):
            batch: list[Commit] = []
            for path in rng.sample(PATHS, rng.randint(1, len(PATHS))):
                present = self._look(path)
                data = b"%s %d %s" % (self.name.encode(), number, path.encode())
                if present is not None and rng.random() < 0.25:
                    data = None
                batch.append(self._ask(path, present, data))
            self.committer.commit(batch)
            while self.committer.busy:
                self.disk.give_way("wait")
                self.committer.commit([])

    def _look(self, path: str) -> str | None:
        try:
            data, _ = self.disk.read(self.layout.file(path))
        except FileNotFoundError:
            return None
        return digest(data)

    def _ask(self, path: str, present: str | None, data: bytes | None) -> Commit:
        condition: Condition = When.ABSENT if present is None else present
        deadline_s = self.world.clock.now_s + STORE_TIMEOUT_S
        commit = self.layout.commit(path, data, condition, deadline_s, None)  # type: ignore[arg-type]
        change = Asked(self.name, path, present, commit.etag or None)
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


def simulate(
    seed: int,
    committer: Callable[..., BatchCommitter] = BatchCommitter,
    disk: Callable[..., ProcessDisk] = ProcessDisk,
) -> tuple[World, list[str]]:
    """Run one seed; return everything, and what is wrong with it."""
    rng = random.Random(seed)
    world = World(rng, committer, disk)
    trouble = rng.choice([0.0, 0.005, 0.03])
    processes = [Process(world, f"p{number}") for number in range(rng.randint(2, PROCESSES_MAX))]
    born = len(processes)
    for _ in range(STEPS_MAX):
        processes = [process for process in processes if not process.body.dead]
        if not processes:
            break
        awake = [process for process in processes if process.wakes_s <= world.clock.now_s]
        if not awake:
            world.clock.now_s = min(process.wakes_s for process in processes)
            continue
        process = rng.choice(awake)
        world.clock.now_s += CALL_S * rng.random()
        if rng.random() < trouble:
            event = rng.choice(["kill", "stop", "slow"])
            world.seen[event] += 1
            if event == "kill":
                process.kill()
                processes.append(Process(world, f"p{born}"))
                born += 1
                trouble *= 0.9  # Every run ends.
            else:
                process.wakes_s = world.clock.now_s + rng.choice(
                    [0.5, 3.0, 8.0] if event == "stop" else [0.01]
                )
            continue
        process.step()
    else:
        raise AssertionError("the run does not end")
    return world, violations(world.asked, present(world)) + steps_violated(world)


def present(world: World) -> dict[str, str | None]:
    """ETag of what each object is in the end."""
    layout = DirectoryLayout(ROOT, random.Random(0).randbytes)
    files = {path: world.shared.files.get(layout.file(path)) for path in PATHS}
    return {path: digest(file.data) if file else None for path, file in files.items()}


def violations(asked: Sequence[Asked], final: dict[str, str | None]) -> list[str]:
    """What those who asked can know to be wrong. Every put has bytes of its own."""
    found: list[str] = []
    for path in final:
        changes = [change for change in asked if change.path == path]
        done = [change for change in changes if change.outcome == "ok"]
        possible = [change for change in changes if change.outcome != "refused"]
        made = {change.made for change in possible}
        for change in done:
            if change.named is not None and change.named not in made:
                found.append(f"replaced what nobody can have made: {change}")
            rivals = [other for other in done if other.named == change.named and other is not change]
            if change.named is not None and rivals:
                found.append(f"two replaced the same object: {change} {rivals[0]}")
            gone = any(other.named == change.made for other in possible)
            if change.made is not None and final[path] != change.made and not gone:
                found.append(f"acknowledged, and nobody replaced it, but it is missing: {change}")
        if final[path] is not None and final[path] not in made:
            found.append(f"what is there in the end was refused or never written: {path}")
        # Creates and removals alternate, but for those of unknown outcome.
        here = sum(change.named is None for change in done) - sum(change.made is None for change in done)
        unknown = [change for change in possible if change.outcome == "unknown"]
        low = here - sum(change.made is None for change in unknown)
        high = here + sum(change.named is None for change in unknown)
        if not low <= (final[path] is not None) <= high:
            found.append(f"creates and removals do not add up: {path}")
    return found


def steps_violated(world: World) -> list[str]:
    """What one who watches the disk sees besides: each change met exactly what it named."""
    found: list[str] = []
    by_made = {change.made: change for change in world.asked if change.made}
    removals = [change for change in world.asked if change.made is None]
    layout = DirectoryLayout(ROOT, random.Random(0).randbytes)
    took_place: list[Asked] = []
    for step in world.shared.changes:
        before = digest(step.before) if step.before is not None else None
        change = _who(step, before, by_made, removals, layout)
        if change is None:
            found.append(f"an object was removed that nobody named: {step}")
        elif change.named != before:
            found.append(f"met something else than it named: {change} {step}")
        else:
            took_place.append(change)
            if change.outcome == "refused":
                found.append(f"refused, but it took place: {change}")
    for change in world.asked:
        times = sum(change is other for other in took_place)
        if change.outcome == "ok" and times != 1 and not found:
            found.append(f"acknowledged, but it took place {times} times: {change}")
    return found


def _who(
    step: Change,
    before: str | None,
    by_made: dict[str | None, Asked],
    removals: Sequence[Asked],
    layout: DirectoryLayout,
) -> Asked | None:
    if step.after is not None:
        return by_made[digest(step.after)]
    candidates = [
        change
        for change in removals
        if (change.process, change.named) == (step.process, before) and layout.file(change.path) == step.path
    ]
    # One that was refused may have been asked for again.
    return min(candidates, key=lambda change: change.outcome == "refused", default=None)
