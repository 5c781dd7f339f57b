"""A journal in front of the files of a directory that one process has for itself.

A batch of changes is appended to a segment and synced once; then it is committed. The objects'
files are written later, the last version of each only, and the segment goes when they are durable
(``applying``). Until then the newest state is in memory, where reads and conditions find it. There
are two segments at most, one that grows and one whose files are being written, so memory and disk
are bounded: when both are full, commits wait.

While others work on the directory, too, the journal is empty and changes go to the files at once
(``batch``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from deltadatabase import limits
from deltadatabase.clock import Clock
from deltadatabase.errors import DeltaError, StartupError, StoreFull, Unavailable
from deltadatabase.storage.applying import Applier, Outcome
from deltadatabase.storage.batch import (
    NOT_READ,
    Answer,
    BatchCommitter,
    Commit,
    SyncFailed,
    check_condition,
    digest,
    present_etag,
    sync_failure,
    write_failure,
)
from deltadatabase.storage.directory_hold import DirectoryHold
from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.disk import Disk, make_durable_folder
from deltadatabase.storage.journal_format import Change, frame
from deltadatabase.storage.paths import FILES, is_meta
from deltadatabase.storage.replay import drop, enter, pause, replay
from deltadatabase.telemetry.logging import get_logger

TRY_AGAIN_S: Final = 0.1

log = get_logger(__name__)


class Segment:
    """A segment, and what its changes come to.

    Attributes:
        number: its own; 0: it has no file, because there are only derived objects in it.
        outcomes: by path.
        derived: the same of derived objects, which are not in the file.
        opened_s, changed_s: when it began, and when the last change came; monotonic.
        held_bytes: of the outcomes' data.
        size: of its file, in bytes.
        batches: frames in it.
    """

    __slots__ = (
        *("batches", "changed_s", "derived", "derived_bytes", "fd", "held_bytes"),
        *("number", "opened_s", "outcomes", "size"),
    )

    def __init__(self, opened_s: float) -> None:
        self.number = 0
        self.fd = -1
        self.size = 0
        self.batches = 0
        self.opened_s = self.changed_s = opened_s
        self.outcomes: dict[str, Outcome] = {}
        self.derived: dict[str, Outcome] = {}
        self.derived_bytes = 0
        self.held_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it is to take nothing more."""
        return self.size >= limits.JOURNAL_SEGMENT_BYTES or self.held_bytes >= limits.JOURNAL_HELD_BYTES


class Journal:
    """Commits batch after batch in one thread, and writes files in one other. Fulfils ``Batches``.

    Args:
        layout: where the files are; what was in the journal has been replayed.
        disk: their disk.
        hold: this opening's part in the directory: alone or shared.
        clock: for deadlines and periods.
        syncfs: the file system's sync makes every file of it durable.
        answer: called once for each commit, when its outcome is known and durable.
        wait: called while ``apply`` has work; returns after some time. None: calls it.
        applier: writes the files; a test may plant a bug.
        pause: waits a moment for others on the directory.

    Attributes:
        wait_s: see ``Batches``.
    """

    def __init__(
        self,
        layout: DirectoryLayout,
        disk: Disk,
        hold: DirectoryHold,
        *,
        clock: Clock,
        syncfs: bool,
        answer: Answer,
        wait: Callable[[], object] | None = None,
        applier: Callable[..., Applier] = Applier,
        pause: Callable[[], object] = pause,
    ) -> None:
        self._layout = layout
        self._disk = disk
        self._hold = hold
        self._clock = clock
        self._answer = answer
        self._wait = wait or self.apply
        self._files = BatchCommitter(layout.root, disk=disk, clock=clock, syncfs=syncfs, answer=answer)
        self._applier = applier(layout, disk, clock=clock, syncfs=syncfs, strict=False)
        self._lock = threading.Lock()
        self._growing: Segment | None = None
        self._full: Segment | None = None
        self._number = 0
        self._trouble: DeltaError | None = None
        self._next_look_s = 0.0
        self._files.locking = not hold.alone
        self._syncfs = syncfs
        self._pause = pause
        self._attempts = 0
        self._tried_s = 0.0
        self._folder_made = False
        self.wait_s: float | None = limits.DIRECTORY_WANTED_POLL_S

    # -- what is newer than the files; from any thread -----------------------------------

    def newest(self, path: str) -> Outcome | None:
        """What the journal has of an object; None: its file is right, or there is none."""
        # In this order: a change moves from the one to the other, and then to its file.
        for segment in (self._growing, self._full):
            if segment is not None:
                found = segment.outcomes.get(path) or segment.derived.get(path)
                if found is not None:
                    return found
        return None

    def below(self, prefix: str) -> Mapping[str, Outcome]:
        """Everything that is not in its file yet, by path."""
        with self._lock:
            return {
                path: outcome
                for segment in (self._full, self._growing)
                if segment is not None
                for outcomes in (segment.derived, segment.outcomes)
                for path, outcome in outcomes.items()
                if path.startswith(prefix)
            }

    def note_derived(self, path: str, data: bytes | None) -> bool:
        """Take a derived object without making it durable; False: it has to be written at once."""
        outcome = Outcome(None)
        outcome.set(data, None if data is None else digest(data), self._clock.wall_ms())
        with self._lock:
            if not self._hold.alone or self._trouble is not None:
                return False
            if self._growing is None:
                self._growing = Segment(self._clock.monotonic_s())
            segment = self._growing
            if segment.derived_bytes >= limits.JOURNAL_HELD_BYTES:
                return False
            segment.derived[path] = outcome
            segment.changed_s = self._clock.monotonic_s()
            segment.derived_bytes += len(data or b"") + len(path)
            return True

    # -- commits; in one thread ----------------------------------------------------------

    @property
    def busy(self) -> Sequence[Commit]:
        """See ``Batches``."""
        return self._files.busy

    def commit(self, batch: Sequence[Commit]) -> None:
        """Commit a batch, and what is busy; take, share and turn over as it is due.

        Raises:
            SyncFailed: the process should end; what was not answered has an unknown outcome.
        """
        self._look_around()
        if not self._hold.alone:
            self._files.commit(batch)
            return
        small = [commit for commit in batch if self._takes(commit)]
        if len(small) < len(batch):
            self._commit_at_once([commit for commit in batch if not self._takes(commit)])
        if small:
            self._commit_small(small)
        self._turn_over()

    def close(self) -> None:
        """Empty the journal. What takes too long, or cannot be written, stays for the next start."""
        if not self.drain(self._clock.monotonic_s() + limits.JOURNAL_CLOSE_S):
            log.warning("not everything in the journal is in its file; the next start goes on with it")

    def drain(self, deadline_s: float = float("inf")) -> bool:
        """Write all files and remove all segments; False: they cannot be written now, or in time."""
        while self._growing is not None or self._full is not None:
            if self._clock.monotonic_s() >= deadline_s:
                return False
            if self._full is None:
                self._turn()
            attempts = self._attempts
            self._wait()
            if self._trouble is not None and self._attempts != attempts:
                return False
        return True

    def _takes(self, commit: Commit) -> bool:
        small = len(commit.data or b"") <= limits.JOURNAL_RECORD_BYTES_MAX
        return small and commit.path.startswith(FILES) and not is_meta(commit.path)

    def _commit_at_once(self, commits: Sequence[Commit]) -> None:
        if any(self.newest(commit.path) is not None for commit in commits) and not self.drain():
            self._refuse(commits, self._trouble or Unavailable("the journal cannot be emptied"))
            return
        self._files.commit(commits)

    def _commit_small(self, commits: Sequence[Commit]) -> None:
        while self._growing is not None and self._growing.is_full:
            if self._full is None:
                self._turn()
            elif self._trouble is None:
                self._wait()
            else:
                break
        if (trouble := self._still_in_trouble()) is not None:
            self._refuse(commits, trouble)
            return
        decided = list(self._decided(commits))
        if not decided:
            return
        try:
            segment = self._append([change for _, change in decided])
        except OSError as exc:
            self._refuse([commit for commit, _ in decided], write_failure(exc))
            return
        except DeltaError as exc:
            self._refuse([commit for commit, _ in decided], exc)
            return
        self._publish(segment, [change for _, change in decided])
        for commit, _ in decided:
            self._answer(commit, commit.etag)

    def _still_in_trouble(self) -> DeltaError | None:
        """Why files cannot be written; found out anew, but not for each commit."""
        if self._trouble is not None and self._clock.monotonic_s() >= self._tried_s + TRY_AGAIN_S:
            attempts = self._attempts
            while self._attempts == attempts and self._full is not None:
                self._wait()
            self._tried_s = self._clock.monotonic_s()
        return self._trouble

    def _decided(self, commits: Sequence[Commit]) -> Iterator[tuple[Commit, Change]]:
        """The changes that the commits come to, in order; the others are refused."""
        now_s = self._clock.monotonic_s()
        ahead: dict[str, str | None] = {}
        for commit in commits:
            try:
                before = ahead[commit.path] if commit.path in ahead else self._present(commit)
                check_condition(commit.condition, before)
                if now_s >= commit.deadline_s:
                    raise Unavailable("the commit came too late and was not made")
            except OSError as exc:
                self._answer(commit, write_failure(exc))
                continue
            except DeltaError as exc:
                self._answer(commit, exc)
                continue
            if before == NOT_READ:
                # It is replaced whatever it is.
                self._files.commit([commit])
                continue
            after = None if commit.data is None else commit.etag
            ahead[commit.path] = after
            yield commit, Change(commit.path, before, after, commit.data)

    def _present(self, commit: Commit) -> str | None:
        newest = self.newest(commit.path)
        return newest.etag if newest is not None else present_etag(self._disk, commit.target)

    def _append(self, changes: Sequence[Change]) -> Segment:
        """Write and sync one frame. Raises OSError, DeltaError: nothing is committed."""
        segment = self._open()
        data = frame(changes, segment=segment.number, batch=segment.batches + 1)
        if not self._disk.is_at(segment.fd, self._layout.segment(segment.number)):
            raise _gone()
        try:
            view = memoryview(data)
            while view:
                view = view[self._disk.write(segment.fd, view) :]
        except OSError as exc:
            failure = write_failure(exc)
            if not isinstance(failure, StoreFull):
                raise SyncFailed(sync_failure(exc)) from exc
            # What was written of it is no frame, and nothing may come behind it.
            segment.size = limits.JOURNAL_SEGMENT_BYTES
            raise failure from None
        self._sync(segment.fd)
        segment.batches += 1
        segment.size += len(data)
        return segment

    def _sync(self, fd: int) -> None:
        try:
            self._disk.sync_data(fd)
        except OSError as exc:
            raise SyncFailed(sync_failure(exc)) from exc

    def _open(self) -> Segment:
        """The segment that grows, with its file."""
        with self._lock:
            if self._growing is None:
                self._growing = Segment(self._clock.monotonic_s())
            segment = self._growing
        if segment.number == 0:
            number = self._number + 1
            if not self._folder_made:
                # What is there may not be durable yet.
                for part in (self._layout.journal.parent, self._layout.journal):
                    make_durable_folder(self._disk, part, self._sync_folder)
                self._folder_made = True
            try:
                fd = self._disk.open_new(self._layout.segment(number))
            except FileNotFoundError:
                self._folder_made = False
                raise _gone() from None
            folder = self._disk.open_folder(self._layout.journal)
            try:
                self._sync_folder(folder)
            finally:
                self._disk.close(folder)
            self._number = segment.number = number
            segment.fd = fd
        return segment

    def _sync_folder(self, fd: int) -> None:
        try:
            self._disk.fsync(fd)
        except OSError as exc:
            raise SyncFailed(sync_failure(exc)) from exc

    def _publish(self, segment: Segment, changes: Sequence[Change]) -> None:
        now_ms = self._clock.wall_ms()
        segment.changed_s = self._clock.monotonic_s()
        with self._lock:
            for path, before, after, data in changes:
                was = segment.outcomes.get(path)
                outcome = Outcome(before)
                if was is not None:
                    outcome.known = was.known
                    segment.held_bytes -= len(was.data or b"") + len(path)
                outcome.set(data, after, now_ms)
                segment.held_bytes += len(data or b"") + len(path)
                # Another object, not another state of the one that a reader may have in hand.
                segment.outcomes[path] = outcome

    def _refuse(self, commits: Sequence[Commit], error: DeltaError) -> None:
        for commit in commits:
            self._answer(commit, error)

    # -- turning over, and sharing -------------------------------------------------------

    def _turn_over(self) -> None:
        segment = self._growing
        if segment is None or self._full is not None:
            return
        now_s = self._clock.monotonic_s()
        due_s = min(segment.opened_s + limits.JOURNAL_PERIOD_S, segment.changed_s + limits.JOURNAL_IDLE_S)
        if segment.is_full or now_s >= due_s:
            self._turn()

    def _turn(self) -> None:
        with self._lock:
            segment = self._growing
            self._full, self._growing = segment, None
        if segment is not None and segment.number:
            self._disk.close(segment.fd)

    def _look_around(self) -> None:
        """Share the directory when that is asked for; have it alone when nobody else is there."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_look_s or self._files.busy:
            return
        self._next_look_s = now_s + limits.DIRECTORY_WANTED_POLL_S
        if self._hold.alone:
            if not self._hold.asked() or not self.drain():
                return
            self._enter(alone=False)
            self._hold.heard()
        else:
            self._enter(alone=True)
        if not self._hold.alone:
            self._next_look_s = now_s + limits.DIRECTORY_SHARED_S

    def _enter(self, *, alone: bool) -> None:
        try:
            enter(
                self._hold,
                self._layout,
                self._disk,
                alone=alone,
                replay=self._replay,
                clock=self._clock,
                pause=self._pause,
            )
        except StartupError as exc:
            raise SyncFailed(f"the directory cannot be had again: {exc.detail}") from exc
        except OSError as exc:
            raise SyncFailed("the directory's lock cannot be had") from exc
        self._files.locking = not self._hold.alone

    def _replay(self) -> None:
        replay(self._layout, self._disk, clock=self._clock, syncfs=self._syncfs)

    # -- writing files; in one other thread ----------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether ``apply`` would do anything."""
        return self._full is not None

    def apply(self) -> bool:
        """Write the files of the full segment and remove it; True: it failed, and is to be tried again.

        Raises:
            SyncFailed: what is on the disk is unknown.
        """
        segment = self._full
        if segment is None:
            return False
        try:
            failure = self._applier.apply(segment.outcomes, segment.derived)
            if failure is None and segment.number:
                drop(self._layout, self._disk, [segment.number])
        except OSError as exc:
            failure = write_failure(exc)
        if failure is not None and not self._disk.exists(self._layout.hold):
            failure = _gone()
        self._trouble = failure
        if failure is None:
            with self._lock:
                self._full = None
        self._attempts += 1
        return failure is not None


def _gone() -> Unavailable:
    return Unavailable("the store's directory is gone", code="store_gone")
