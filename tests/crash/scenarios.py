"""Recorded commits, and the judge of what a crash leaves of them."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from support.clocks import FakeClock, SeededRandom

from crash.model import Crash, Tree, materialize
from crash.recording import Answered, Begun, RecordingDisk, Step
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import DeltaError, NotFound, StartupError
from deltadatabase.model import Header
from deltadatabase.storage.base import Condition, Stored, When
from deltadatabase.storage.batch import BatchCommitter, Commit, digest
from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.disk import Disk, OsDisk
from deltadatabase.storage.group_commit import Batches
from deltadatabase.storage.journal import Journal
from deltadatabase.storage.journaled import JournaledDirectory
from deltadatabase.storage.local import DirectoryObjects
from deltadatabase.storage.paths import entity_path

SEALER = Sealer(Keyring(MasterKey(bytes(range(32)))), SeededRandom(1))
EXHAUSTIVE_MAX = 1_000
"""So many combinations after one step are tried in full."""
DRAWN = 12
"""Of more, so many are drawn."""

Batch = Sequence[tuple[str, str]]
"""Pairs of ``put`` or ``remove``, and a key. Each is a change of what is there."""


def document(key: str, version: int) -> bytes:
    """A document of some hundred bytes that no other version has."""
    return b'{"%s":%d}' % (key.encode() * 100, version)


@dataclass
class Recorded:
    """A run: its steps, and what each version of an object holds; version 0 is its absence."""

    disk: RecordingDisk
    versions: dict[str, list[bytes | None]] = field(default_factory=dict)
    opened: Callable[..., DirectoryObjects] = DirectoryObjects
    """With what a state is opened after the crash."""

    @property
    def steps(self) -> list[Step]:
        return self.disk.steps


class Process:
    """One process that commits: the real code on a recorded disk."""

    def __init__(
        self,
        run: Recorded,
        root: Path,
        *,
        syncfs: bool,
        committer: Callable[..., BatchCommitter] = BatchCommitter,
        wrap: Callable[[RecordingDisk], Disk] = lambda disk: disk,
        journal: Callable[..., Journal] | None = None,
        opened: Callable[..., DirectoryObjects] = DirectoryObjects,
    ) -> None:
        self._run = run
        run.opened = opened
        disk = wrap(run.disk)
        name = SeededRandom(len(run.steps))
        kind = DirectoryObjects if journal is None else JournaledDirectory
        self._store = kind(root, clock=FakeClock(), random=name, disk=disk)
        self._store._committer.close()
        self._layout = DirectoryLayout(root, name)
        # Its files have names of their own in a folder that is there.
        self._layout.staging = self._store._layout.staging
        self._issued: dict[int, tuple[str, int]] = {}
        parts = {"clock": FakeClock(), "syncfs": syncfs, "answer": self._answered}
        self._committer: Batches = (
            committer(root, disk=disk, **parts)
            if journal is None
            else journal(self._layout, disk, self._store._hold, **parts)
        )

    def write_files(self) -> None:
        """Empty the journal."""
        assert isinstance(self._committer, Journal)
        assert self._committer.drain()

    def turn(self) -> None:
        """Begin another segment."""
        assert isinstance(self._committer, Journal)
        self._committer._turn()

    def kill(self) -> None:
        """Leave everything as it is; the lock is free."""
        self._store._hold.close()

    def commit(self, batch: Batch) -> None:
        """Commit changes of what is there, together."""
        commits: list[Commit] = []
        for kind, key in batch:
            path = entity_path("s", key)
            history = self._run.versions.setdefault(path, [None])
            present, version = history[-1], len(history)
            condition: Condition = When.ABSENT if present is None else digest(present)
            data = None
            if kind == "put":
                header = Header(
                    schema_id="s", key=key, version=version, term=1, updated_ms=1, write_id=bytes(16)
                )
                data = SEALER.seal(header, document(key, version))
            history.append(data)
            commit = self._layout.commit(path, data, condition, 1e9, None)  # type: ignore[arg-type]
            self._issued[id(commit)] = (path, version)
            self._run.steps.append(Begun(path, version))
            commits.append(commit)
        self._committer.commit(commits)
        assert not self._committer.busy

    def acknowledge_on_sight(self, key: str, *, settle: bool) -> None:
        """Read, and acknowledge whatever version is there, as for a write of unknown outcome."""
        path = entity_path("s", key)

        async def look() -> bytes:
            stored = await self._store.get(path)
            if settle:
                await self._store.settle(path)
            return stored.data

        version = self._run.versions[path].index(asyncio.run(look()))
        self._run.steps.append(Answered(path, version))

    def _answered(self, commit: Commit, outcome: str | DeltaError) -> None:
        assert isinstance(outcome, str), outcome
        self._run.steps.append(Answered(*self._issued[id(commit)]))


Scenario = Callable[[Recorded, Callable[..., Process]], None]


def record(scenario: Scenario, base: Path, *, syncfs: bool, **plant: Any) -> Recorded:
    """Run a scenario in an empty folder, with the real code or a planted bug."""
    run = Recorded(RecordingDisk(base))
    scenario(run, partial(Process, run, base / "data", syncfs=syncfs, **plant))
    return run


@dataclass
class Verdict:
    """What a replay found.

    Attributes:
        crashes: steps after which a crash was tried.
        states: different states that were opened.
        exhaustive: whether those were all that the model allows.
        wrong: what must not be, in words; empty if all is well.
    """

    crashes: int = 0
    states: int = 0
    exhaustive: bool = True
    wrong: list[str] = field(default_factory=list)


def replay(
    run: Recorded, *, seed: int, exhaustive_max: int = EXHAUSTIVE_MAX, stop_at_first: bool = False
) -> Verdict:
    """Open every state that a crash may have left of a run, and judge it."""
    return asyncio.run(_replay(run, random.Random(seed), exhaustive_max, stop_at_first))


async def _replay(run: Recorded, rng: random.Random, exhaustive_max: int, stop_at_first: bool) -> Verdict:
    verdict = Verdict()
    crash = Crash()
    judged: set[tuple[Tree, tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]]] = set()
    for number, step in enumerate(run.steps, 1):
        crash.add(step)
        verdict.crashes += 1
        exhaustive = crash.count() <= exhaustive_max
        verdict.exhaustive &= exhaustive
        for tree in crash.trees(exhaustive_max if exhaustive else DRAWN, rng):
            known = (tree, tuple(crash.begun.items()), tuple(crash.answered.items()))
            if known in judged:
                continue
            judged.add(known)
            if wrong := await _judge(tree, run, crash):
                verdict.wrong.append(f"after step {number} ({step}): {wrong}")
                if stop_at_first:
                    break
        if verdict.wrong and stop_at_first:
            break
    verdict.states = len(judged)
    return verdict


# Thousands of small folders come and go; a disk would be slow.
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


class _Unsynced(OsDisk):
    """The states themselves need not survive a crash."""

    def fsync(self, fd: int) -> None:
        pass


async def _judge(tree: Tree, run: Recorded, crash: Crash) -> str:
    """What is wrong with a state; "" if each object is the last answered version or a later one."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as base:
        materialize(tree, Path(base))
        try:
            store = run.opened(
                Path(base) / "data", clock=FakeClock(), random=SeededRandom(), disk=_Unsynced()
            )
        except StartupError as exc:
            return f"refused: {exc.detail}"
        try:
            for path, begun in crash.begun.items():
                allowed = run.versions[path][crash.answered.get(path, 0) : begun + 1]
                wrong, stored = await _judge_one(store, path, allowed)
                if wrong:
                    return f"{path}: {wrong}"
            # And it goes on from there.
            if crash.begun and stored is None:
                await store.put(path, b"new", When.ABSENT)
            elif crash.begun and stored is not None:
                await store.remove(path, stored.etag)
            listed = {info.path for info in await store.list("files/")}
            if strange := listed - set(run.versions):
                return f"strange objects: {strange}"
        finally:
            await store.close()
    return ""


async def _judge_one(
    store: DirectoryObjects, path: str, allowed: Sequence[bytes | None]
) -> tuple[str, Stored | None]:
    key = path.removeprefix("files/s/").removesuffix(".json.enc")
    try:
        stored = await store.get(path)
    except NotFound:
        return ("" if None in allowed else "missing"), None
    try:
        header, content = SEALER.open(stored.data, "s", key)
    except DeltaError as exc:
        return f"damaged, {len(stored.data)} bytes: {exc}", stored
    if content != document(key, header.version):
        return "a mixture", stored
    return ("" if stored.data in allowed else f"version {header.version} is not what must be there"), stored
