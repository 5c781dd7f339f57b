"""One directory that several simulated processes share: their real commit code, call by call.

Each process runs in a greenlet that gives way before every system call. So the code is the
synchronous one of ``storage.batch``, and a seeded scheduler decides what comes in between.
What a process has done stays when it is killed, as it does with kill -9: this disk knows no power
loss (``tests/crash`` does). A lock belongs to what was opened, so it goes when its process is killed
and stays while it is stopped (Linux man page flock(2)).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from deltadatabase import limits
from deltadatabase.clock import Clock
from deltadatabase.errors import DeltaError, NotFound, OutcomeUnknown, Unavailable
from deltadatabase.storage.base import Condition, ObjectInfo, Stored
from deltadatabase.storage.batch import BatchCommitter, Commit, digest
from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.group_commit import BATCH_COUNT_MAX, LOCK_POLL_S, resolve
from deltadatabase.storage.local import HUNG_DISK_S

ROOT = Path("/data")


@dataclass(eq=False)
class _File:
    data: bytes = b""
    written_ms: int = 0
    locked_by: int | None = None
    shared_by: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Change:
    """An object was replaced or removed: by which process, and what was and is there."""

    process: str
    path: Path
    before: bytes | None
    after: bytes | None


class SharedDisk:
    """The files.

    Attributes:
        changes: what happened to files outside ``cluster``, in order.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.files: dict[Path, _File] = {}
        self.folders = {
            *ROOT.parents, ROOT, ROOT / "cluster", ROOT / "cluster" / ".tmp", ROOT / "cluster" / ".locks"
        }  # fmt: skip
        self.changes: list[Change] = []
        self.numbers = itertools.count(3)

    def put(self, process: str, path: Path, file: _File | None) -> None:
        """A name means another file now, or none."""
        before = self.files.pop(path, None)
        if file is not None:
            self.files[path] = file
        if "cluster" not in path.parts:
            self.changes.append(
                Change(process, path, before.data if before else None, file.data if file else None)
            )


class ProcessDisk:
    """The disk as one process has it. Fulfils ``Disk``; to be called in a greenlet.

    Attributes:
        dead: the process was killed: nothing that still runs in it has an effect.
    """

    def __init__(self, shared: SharedDisk, process: str) -> None:
        self.shared = shared
        self.process = process
        self.dead = False
        self._open: dict[int, _File | None] = {}

    def give_way(self, call: str) -> None:
        """Let others come in between; the greenlet's parent gets the name of the call."""
        if self.dead:
            raise GreenletExit
        parent = getcurrent().parent
        assert parent is not None
        parent.switch(call)

    def kill(self) -> None:
        """As kill -9: locks are released, nothing else is done."""
        self.dead = True
        for fd in list(self._open):
            self._release(fd)

    def open_new(self, path: Path) -> int:
        self.give_way("open")
        if path in self.shared.files:
            raise FileExistsError
        return self._opened(path)

    def open_lock(self, path: Path) -> int:
        self.give_way("open")
        return self._opened(path)

    def open_hold(self, path: Path) -> int:
        return self.open_lock(path)

    def open_folder(self, path: Path) -> int:
        self.give_way("open")
        if path not in self.shared.folders:
            raise FileNotFoundError
        fd = next(self.shared.numbers)
        self._open[fd] = None
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        self.give_way("write")
        file = self._open[fd]
        assert file is not None
        # In two parts, as a signal may have it.
        part = data[: max(1, len(data) // 2)]
        file.data += bytes(part)
        file.written_ms = self.shared.clock.wall_ms()
        return len(part)

    def read(self, path: Path) -> tuple[bytes, int]:
        self.give_way("open")
        file = self.shared.files.get(path)
        if file is None:
            raise FileNotFoundError
        self.give_way("read")
        return file.data, file.written_ms

    def read_own(self, path: Path) -> bytes:
        return self.read(path)[0]

    def names(self, folder: Path) -> list[str]:
        self.give_way("getdents")
        if folder not in self.shared.folders:
            raise FileNotFoundError
        return [path.name for path in self.shared.files if path.parent == folder]

    def exists(self, path: Path) -> bool:
        self.give_way("stat")
        return path in self.shared.files

    def is_at(self, fd: int, path: Path) -> bool:
        self.give_way("stat")
        return self._open[fd] is self.shared.files.get(path)

    def make_folder(self, path: Path) -> None:
        self.give_way("mkdir")
        self.shared.folders.add(path)

    def rename(self, source: Path, target: Path) -> None:
        self.give_way("rename")
        if source not in self.shared.files or target.parent not in self.shared.folders:
            raise FileNotFoundError
        file = self.shared.files.pop(source)
        self.shared.put(self.process, target, file)

    def unlink(self, path: Path) -> None:
        self.give_way("unlink")
        if path not in self.shared.files:
            raise FileNotFoundError
        self.shared.put(self.process, path, None)

    def lock(self, fd: int) -> None:
        self.give_way("flock")
        file = self._open[fd]
        assert file is not None
        file.shared_by.discard(fd)
        if file.locked_by not in (None, fd) or file.shared_by:
            raise BlockingIOError
        file.locked_by = fd

    def lock_shared(self, fd: int) -> None:
        self.give_way("flock")
        file = self._open[fd]
        assert file is not None
        if file.locked_by not in (None, fd):
            raise BlockingIOError
        file.locked_by = None
        file.shared_by.add(fd)

    def fsync(self, fd: int) -> None:
        self.give_way("fsync")

    def sync_data(self, fd: int) -> None:
        self.give_way("fdatasync")

    def syncfs(self, fd: int) -> None:
        self.give_way("syncfs")

    def close(self, fd: int) -> None:
        if self.dead:
            return  # The code that is being left behind closes what it has open.
        self.give_way("close")
        self._release(fd)

    def _opened(self, path: Path) -> int:
        fd = next(self.shared.numbers)
        self._open[fd] = self.shared.files.setdefault(path, _File())
        return fd

    def _release(self, fd: int) -> None:
        file = self._open.pop(fd)
        if file is not None:
            file.shared_by.discard(fd)
            if file.locked_by == fd:
                file.locked_by = None


class SimDirectory:
    """A directory store in virtual time: one process's, on a disk that others use too.

    It offers of ``Store`` what workers need for entities: ``put``, ``get``, ``get_if_changed``,
    ``head``, ``settle`` and ``remove``.

    Args:
        shared: the disk.
        process: name of the process.
        rng: of the time that each system call takes.
        running: not set while the process is stopped.
        committer: the commit code; a test may plant a bug.
        disk: the process's way to the disk; the same.
    """

    backend = "directory"
    removes = True

    def __init__(
        self,
        shared: SharedDisk,
        process: str,
        rng: random.Random,
        *,
        running: asyncio.Event | None = None,
        committer: Callable[..., BatchCommitter] = BatchCommitter,
        disk: Callable[[SharedDisk, str], ProcessDisk] = ProcessDisk,
    ) -> None:
        self.disk = disk(shared, process)
        self._rng = rng
        self._clock = shared.clock
        self._running = running
        self._layout = DirectoryLayout(ROOT, rng.randbytes)
        self._waiting: list[Commit] = []
        self._answers: list[tuple[Commit, str | DeltaError]] = []
        self._batches = committer(
            ROOT, disk=self.disk, clock=shared.clock, syncfs=True, answer=self._answered
        )
        self._thread: asyncio.Task[None] | None = None

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        return await self._commit(path, data, condition)

    async def remove(self, path: str, etag: str) -> None:
        await self._commit(path, None, etag)

    async def get(self, path: str) -> Stored:
        try:
            async with asyncio.timeout(limits.STORE_TIMEOUT_S):
                data, written_ms = await self._calls(self.disk.read, self._layout.file(path))
        except FileNotFoundError:
            raise NotFound("there is no such object") from None
        except TimeoutError:
            raise Unavailable("the disk does not answer in time") from None
        return Stored(data, digest(data), written_ms)

    async def settle(self, path: str) -> None:
        """No power is lost here, so there is nothing to do; it takes its time."""
        await self._calls(self.disk.give_way, "fsync")

    async def get_if_changed(self, path: str, etag: str) -> Stored | None:
        stored = await self.get(path)
        return None if stored.etag == etag else stored

    async def head(self, path: str) -> ObjectInfo:
        stored = await self.get(path)
        return ObjectInfo(path, len(stored.data), stored.etag, stored.updated_ms)

    def kill(self) -> None:
        """As kill -9. Whoever waits learns nothing."""
        self.disk.kill()
        if self._thread is not None:
            self._thread.cancel()

    async def _commit(self, path: str, data: bytes | None, condition: Condition) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        deadline_s = self._clock.monotonic_s() + limits.STORE_TIMEOUT_S
        self._waiting.append(self._layout.commit(path, data, condition, deadline_s, future))
        if self._thread is None or self._thread.done():
            self._thread = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(limits.STORE_TIMEOUT_S + HUNG_DISK_S):
                return await future
        except TimeoutError:
            raise OutcomeUnknown("the disk does not answer in time") from None

    async def _run(self) -> None:
        """Stands in for the committing thread of ``GroupCommitter``."""
        while self._waiting or self._batches.busy:
            if not self._waiting:
                await asyncio.sleep(LOCK_POLL_S)
            batch, self._waiting = self._waiting[:BATCH_COUNT_MAX], self._waiting[BATCH_COUNT_MAX:]
            await self._calls(self._batches.commit, batch)
            answers, self._answers = self._answers, []
            resolve(answers)

    def _answered(self, commit: Commit, outcome: str | DeltaError) -> None:
        self._answers.append((commit, outcome))

    async def _calls(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run synchronous code; wait at each of its system calls."""
        await self._alive()
        body = greenlet(function)
        try:
            result = body.switch(*arguments)
            while not body.dead:
                await asyncio.sleep(self._rng.expovariate(1 / 0.0005))
                if self._running is not None:
                    await self._running.wait()
                await self._alive()
                # The greenlet's parent is whoever drives it now.
                body.parent = getcurrent()
                result = body.switch()
            return result
        finally:
            if not body.dead:
                self._abandon(body)

    async def _alive(self) -> None:
        """In a killed process nothing comes after this."""
        if self.disk.dead:
            await asyncio.get_running_loop().create_future()

    def _abandon(self, body: greenlet) -> None:
        """Leave the code where it is; a read that nobody waits for has nothing to undo."""
        was, self.disk.dead = self.disk.dead, True
        with contextlib.suppress(GreenletExit):
            body.throw(GreenletExit)
        self.disk.dead = was
