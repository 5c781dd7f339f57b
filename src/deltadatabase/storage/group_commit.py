"""One thread that commits what waits, together (``storage.batch``), while event loops go on.

Commits that arrive during a batch wait for the next one and share its syncs.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deltadatabase import limits
from deltadatabase.clock import Clock
from deltadatabase.errors import DeltaError, OutcomeUnknown, Unavailable
from deltadatabase.storage.batch import BatchCommitter, Commit, SyncFailed
from deltadatabase.storage.disk import Disk

BATCH_COUNT_MAX: Final = 128
BATCH_BYTES_MAX: Final = 16 * limits.MIB
LOCK_POLL_S: Final = 0.002


class GroupCommitter:
    """The committing thread of one directory.

    Args:
        root: directory of the store; it and its parents exist.
        disk: where it is.
        clock: for the deadlines of commits.
        syncfs: the file system's sync makes every file of it durable.
        on_fatal: called in the thread with one sentence when a sync failed. What is on the disk is
            then unknown and asking again would hide it, so it should end the process.
    """

    def __init__(
        self, root: Path, *, disk: Disk, clock: Clock, syncfs: bool, on_fatal: Callable[[str], object]
    ) -> None:
        self._on_fatal = on_fatal
        self._queue: queue.SimpleQueue[Commit | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._answers: list[tuple[Commit, str | DeltaError]] = []
        self._batches = BatchCommitter(root, disk=disk, clock=clock, syncfs=syncfs, answer=self._note)
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def submit(self, commit: Commit) -> None:
        """Queue a commit; its future is answered in its event loop."""
        with self._gate:
            if self._closed:
                raise Unavailable("the store is closed")
            self._queue.put(commit)

    def close(self) -> None:
        """Commit what waits, then end the thread. Blocks."""
        with self._gate:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        while open_ or self._batches.busy:
            busy = self._batches.busy
            batch, open_ = self._take(wait=not busy, open_=open_)
            try:
                self._batches.commit(batch)
            except SyncFailed as exc:
                self._on_fatal(str(exc))
                self._break([*batch, *busy])
                open_ = False
            except Exception:  # noqa: BLE001 - the thread must answer whoever waits, whatever happened
                self._break([*batch, *busy])
                open_ = False
            self._send_answers()

    def _take(self, *, wait: bool, open_: bool) -> tuple[list[Commit], bool]:
        """What is queued, up to one batch; and whether more may come."""
        batch: list[Commit] = []
        size = 0
        if not open_:
            time.sleep(LOCK_POLL_S)
        while open_ and len(batch) < BATCH_COUNT_MAX and size < BATCH_BYTES_MAX:
            try:
                if batch:
                    commit = self._queue.get_nowait()
                else:
                    commit = self._queue.get(timeout=None if wait else LOCK_POLL_S)
            except queue.Empty:
                break
            if commit is None:
                return batch, False
            batch.append(commit)
            size += len(commit.data or b"")
        return batch, open_

    def _break(self, commits: list[Commit]) -> None:
        """Take no more commits; answer these, and all that wait, that their outcome is unknown."""
        with self._gate:
            self._closed = True
            with contextlib.suppress(queue.Empty):
                while True:
                    if commit := self._queue.get_nowait():
                        commits.append(commit)
        self._batches.busy = ()
        answered = {id(commit) for commit, _ in self._answers}
        lost = OutcomeUnknown("the store failed while committing")
        self._answers += [(commit, lost) for commit in commits if id(commit) not in answered]

    def _note(self, commit: Commit, outcome: str | DeltaError) -> None:
        self._answers.append((commit, outcome))

    def _send_answers(self) -> None:
        answers, self._answers = self._answers, []
        if answers:
            # One wake-up of the event loop for the whole batch. A loop that is closed has nobody waiting.
            with contextlib.suppress(RuntimeError):
                answers[0][0].future.get_loop().call_soon_threadsafe(resolve, answers)


def resolve(answers: list[tuple[Commit, str | DeltaError]]) -> None:
    """Hand outcomes to those who still wait for them. In their event loop."""
    for commit, outcome in answers:
        if commit.future.done():
            continue
        if isinstance(outcome, DeltaError):
            commit.future.set_exception(outcome)
        else:
            commit.future.set_result(outcome)
