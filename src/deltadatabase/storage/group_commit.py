"""One thread that commits what waits, together, while event loops go on.

Commits that arrive during a batch wait for the next one and share its syncs.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from deltadatabase import limits
from deltadatabase.errors import DeltaError, OutcomeUnknown, Unavailable
from deltadatabase.storage.batch import Answer, Commit, SyncFailed

BATCH_COUNT_MAX: Final = 256
BATCH_BYTES_MAX: Final = 16 * limits.MIB
LOCK_POLL_S: Final = 0.002


class Batches(Protocol):
    """What commits, in one thread: ``storage.batch``, or ``storage.journal`` before it.

    Attributes:
        wait_s: after so many seconds without a commit an empty batch is wanted; None: never.
    """

    wait_s: float | None

    @property
    def busy(self) -> Sequence[Commit]:
        """Commits that wait for somebody else; the next batch takes them along."""
        ...

    def commit(self, batch: Sequence[Commit]) -> None:
        """Commit a batch, and what is busy, and answer each commit whose outcome is known.

        Raises:
            SyncFailed: the process should end; what was not answered has an unknown outcome.
        """
        ...

    def close(self) -> None:
        """Finish; nothing more will be asked. Raises SyncFailed."""
        ...


class GroupCommitter:
    """The committing thread of one directory.

    Args:
        batches: makes what commits; its argument takes the answers.
        on_fatal: called in the thread with one sentence when a sync failed. What is on the disk is
            then unknown and asking again would hide it, so it should end the process.
    """

    def __init__(self, batches: Callable[[Answer], Batches], *, on_fatal: Callable[[str], object]) -> None:
        self._on_fatal = on_fatal
        self._queue: queue.SimpleQueue[Sequence[Commit] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._gathered: list[Commit] = []
        self._answers: list[tuple[Commit, str | DeltaError]] = []
        self._batches = batches(self._note)
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def submit(self, commit: Commit) -> None:
        """Queue a commit; its future is answered in its event loop, in which this is called."""
        with self._gate:
            if self._closed:
                raise Unavailable("the store is closed")
            self._gathered.append(commit)
            first = len(self._gathered) == 1
        if first:
            # Not at once: what else the loop has ready comes along, and the thread wakes up once.
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        with self._gate:
            if self._gathered:
                self._queue.put(self._gathered)
                self._gathered = []

    def close(self) -> None:
        """Commit what waits, then end the thread. Blocks."""
        with self._gate:
            self._closed = True
            self._queue.put(self._gathered)
            self._gathered = []
            self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        open_ = True
        batch: list[Commit] = []  # That a failure leaves unanswered.
        try:
            while open_ or self._batches.busy:
                batch, open_ = self._take(open_=open_)
                taken, busy = batch, self._batches.busy
                batch = [*taken, *busy]
                self._batches.commit(taken)
                batch = []
                self._send_answers()
            self._batches.close()
        except SyncFailed as exc:
            self._on_fatal(str(exc))
            self._break(batch)
        except Exception:  # noqa: BLE001 - the thread must answer whoever waits, whatever happened
            self._break(batch)
        self._send_answers()

    def _take(self, *, open_: bool) -> tuple[list[Commit], bool]:
        """What is queued, up to one batch; and whether more may come."""
        batch: list[Commit] = []
        size = 0
        wait_s = LOCK_POLL_S if self._batches.busy else self._batches.wait_s
        if not open_:
            time.sleep(LOCK_POLL_S)
        while open_ and len(batch) < BATCH_COUNT_MAX and size < BATCH_BYTES_MAX:
            try:
                commits = self._queue.get_nowait() if batch else self._queue.get(timeout=wait_s)
            except queue.Empty:
                break
            if commits is None:
                return batch, False
            batch += commits
            size += sum(len(commit.data or b"") for commit in commits)
        return batch, open_

    def _break(self, commits: list[Commit]) -> None:
        """Take no more commits; answer these, and all that wait, that their outcome is unknown."""
        with self._gate:
            self._closed = True
            commits += self._gathered
            self._gathered = []
            with contextlib.suppress(queue.Empty):
                while True:
                    commits += self._queue.get_nowait() or ()
        answered = {id(commit) for commit, _ in self._answers}
        lost = OutcomeUnknown("the store failed while committing")
        self._answers += [(commit, lost) for commit in commits if id(commit) not in answered]

    def _note(self, commit: Commit, outcome: str | DeltaError) -> None:
        if commit.future is not None:
            self._answers.append((commit, outcome))

    def _send_answers(self) -> None:
        answers, self._answers = self._answers, []
        if answers and (future := answers[0][0].future) is not None:
            # One wake-up of the event loop for the whole batch. A loop that is closed has nobody waiting.
            with contextlib.suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(resolve, answers)


def resolve(answers: list[tuple[Commit, str | DeltaError]]) -> None:
    """Hand outcomes to those who still wait for them. In their event loop."""
    for commit, outcome in answers:
        future = commit.future
        if future is None or future.done():
            continue
        if isinstance(outcome, DeltaError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
