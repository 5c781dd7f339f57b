"""Lets files go that were replaced, in a thread of its own.

Linux frees a replaced file's blocks within the rename, which holds a lock of the whole file system: all
who rename there wait for each other (``lock_rename`` in fs/namei.c). A descriptor of the file puts that
off until it is closed, and closing it takes no such lock.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from pathlib import Path
from typing import Final

GATHER_S: Final = 0.005
"""So long the thread lets descriptors gather: it wakes up once for many."""
WAITING_MAX: Final = 256
"""Past so many that wait none more are kept: a process has only so many."""
_PIN: Final = getattr(os, "O_PATH", 0) | os.O_CLOEXEC


class LateClose:
    """Closes descriptors a moment later. Of any thread; never raises."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def pin(self, path: Path) -> int | None:
        """A descriptor that keeps a file's blocks for now; None where that is not to be had."""
        if _PIN == os.O_CLOEXEC or self._waiting.qsize() >= WAITING_MAX:
            return None
        try:
            return os.open(path, _PIN)
        except OSError:
            return None

    def close(self, fd: int) -> None:
        """Close a descriptor soon."""
        self._waiting.put(fd)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="late-close", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            fds = [self._waiting.get()]
            time.sleep(GATHER_S)
            with contextlib.suppress(queue.Empty):
                while True:
                    fds.append(self._waiting.get_nowait())
            for fd in fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
