"""Writes what a journal holds into the objects' files."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from deltadatabase.clock import Clock
from deltadatabase.errors import DeltaError
from deltadatabase.storage.base import When
from deltadatabase.storage.batch import BatchCommitter, Commit, present_etag, write_failure
from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.disk import Disk
from deltadatabase.telemetry.logging import get_logger

T = TypeVar("T")
log = get_logger(__name__)

#: So many files share their syncs; each is open until then.
CHUNK: Final = 384
_NEVER_S: Final = float("inf")


class Overtaken(Exception):
    """An object's file holds something that the journal's changes do not begin with."""


class Outcome:
    """What an object is after some changes, and what its file may hold until it is written.

    Attributes:
        data: its bytes; None: it is gone.
        etag: theirs.
        updated_ms: time of the last change.
        known: ETags of what the file may hold; None: no file.
    """

    __slots__ = ("data", "etag", "known", "updated_ms")

    def __init__(self, before: str | None) -> None:
        self.data: bytes | None = None
        self.etag: str | None = None
        self.updated_ms = 0
        self.known = {before}

    def set(self, data: bytes | None, etag: str | None, updated_ms: int) -> None:
        """It is this now."""
        self.data, self.etag, self.updated_ms = data, etag, updated_ms


class Applier:
    """Commits outcomes to files, durably, in one thread, on a directory that is held alone.

    Args:
        layout: where the files are.
        disk: their disk.
        clock: for ``BatchCommitter``.
        syncfs: the same.
        strict: a file that is none of an object's known states is not replaced.
    """

    def __init__(
        self, layout: DirectoryLayout, disk: Disk, *, clock: Clock, syncfs: bool, strict: bool
    ) -> None:
        self._strict = strict
        self._layout = layout
        self._disk = disk
        self._failures: list[DeltaError] = []
        self._files = BatchCommitter(
            layout.root, disk=disk, clock=clock, syncfs=syncfs, answer=self._answered
        )
        self._files.locking = False

    def apply(self, outcomes: Mapping[str, Outcome], derived: Mapping[str, Outcome]) -> DeltaError | None:
        """Write all files; each is durable afterwards. Repeatable.

        Args:
            outcomes: by path.
            derived: the same, of what may as well be missing.

        Returns:
            Why some were not written, or None.

        Raises:
            Overtaken: a file is newer than the journal, or older; it is left alone. Only if ``strict``.
            SyncFailed: what is on the disk is unknown.
        """
        self._failures = []
        for chunk in _chunks(outcomes.items()):
            self._files.commit([each for path, outcome in chunk if (each := self._commit(path, outcome))])
        needed = self._failures
        for pairs in _chunks(derived.items()):
            self._files.commit([self._change(path, outcome.data) for path, outcome in pairs])
        return needed[0] if needed else None

    def _commit(self, path: str, outcome: Outcome) -> Commit | None:
        try:
            present = present_etag(self._disk, self._layout.file(path))
        except OSError as exc:
            self._failures.append(write_failure(exc))
            return None
        if present != outcome.etag and present not in outcome.known:
            if self._strict:
                raise Overtaken
            log.warning("an object's file was changed by somebody else; what was acknowledged replaces it")
        if outcome.etag is None and outcome.known == {None}:
            return None  # It came and went.
        # One that holds it already may not be durable: it is written again.
        return self._change(path, outcome.data)

    def _change(self, path: str, data: bytes | None) -> Commit:
        return self._layout.commit(path, data, When.ALWAYS, _NEVER_S, None)

    def _answered(self, commit: Commit, outcome: str | DeltaError) -> None:
        if isinstance(outcome, DeltaError):
            self._failures.append(outcome)


def _chunks(items: Iterable[T]) -> Iterable[Sequence[T]]:
    rest = iter(items)
    while chunk := list(itertools.islice(rest, CHUNK)):
        yield chunk
