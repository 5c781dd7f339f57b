"""Who works on a directory: several programs beside each other, or one alone, with a journal.

A lock on one file says it, shared or not (flock(2)). Who wants to work beside the one that has the
directory alone leaves a file that asks for it; the other empties its journal and shares from then on.
"""

from __future__ import annotations

import contextlib

from deltadatabase.storage.directory_layout import DirectoryLayout
from deltadatabase.storage.disk import Disk


class DirectoryHold:
    """One opening's part in the directory. Nothing here waits.

    Args:
        layout: where the files are; the folder of locks exists.
        disk: their disk.

    Attributes:
        alone: nobody else works on the directory.

    Raises:
        OSError: the lock file cannot be opened.
    """

    def __init__(self, layout: DirectoryLayout, disk: Disk) -> None:
        self.alone = False
        self._layout = layout
        self._disk = disk
        self._fd = disk.open_hold(layout.hold)

    def take(self) -> bool:
        """Have the directory alone; False: others work on it, and this opening holds nothing now."""
        try:
            self._disk.lock(self._fd)
        except BlockingIOError:
            self.alone = False
            return False
        self.alone = True
        return True

    def share(self) -> bool:
        """Work beside others; False: one has it alone, and this opening holds nothing now.

        The caller, if it was alone, has emptied its journal.
        """
        self.alone = False
        try:
            self._disk.lock_shared(self._fd)
        except BlockingIOError:
            return False
        return True

    def ask(self) -> None:
        """Ask the one that has the directory alone to share it. Raises OSError."""
        self._disk.close(self._disk.open_lock(self._layout.wanted))

    def asked(self) -> bool:
        """Whether somebody asked."""
        return self._disk.exists(self._layout.wanted)

    def heard(self) -> None:
        """Take note of having been asked: who asks from now on asks anew."""
        with contextlib.suppress(OSError):
            self._disk.unlink(self._layout.wanted)

    def close(self) -> None:
        """Let the directory go; may be repeated."""
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1
