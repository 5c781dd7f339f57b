"""A process that changes few objects of a directory as fast as it can, until it is killed.

``python -m contract.racing_writer DIRECTORY LOG NAME [no-lock]``. The log says what was asked before it
is asked, and what came of it, a line each, so that a kill loses no more than the last outcome.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from functools import partial
from pathlib import Path

from deltadatabase.clock import SystemClock, system_random
from deltadatabase.errors import DeltaError, NotFound
from deltadatabase.storage.base import When
from deltadatabase.storage.batch import digest
from deltadatabase.storage.disk import OsDisk
from deltadatabase.storage.journaled import JournaledDirectory
from deltadatabase.storage.local import DirectoryObjects

PATHS = ("files/s/a", "files/s/b")


class NoLock(OsDisk):
    """The planted bug, with time for it to matter."""

    def lock(self, fd: int) -> None:
        pass

    def read(self, path: Path) -> tuple[bytes, int]:
        found = super().read(path)
        time.sleep(0.001)
        return found


class Log:
    """Lines that are in the file as soon as they were said."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(self, *words: object) -> None:
        os.write(self._fd, (" ".join(map(str, words)) + "\n").encode())


async def write(store: DirectoryObjects, log: Log, name: str, path: str) -> None:
    """Read and replace one object, again and again."""
    rng = random.Random(name + path)
    number = 0
    while True:
        number += 1
        try:
            named = (await store.get(path)).etag
        except NotFound:
            named = "-"
        data = f"{name} {path} {number}".encode()
        removal = named != "-" and rng.random() < 0.1
        log.say("ask", number, path, named, "-" if removal else digest(data))
        try:
            if removal:
                await store.remove(path, named)
            else:
                await store.put(path, data, When.ABSENT if named == "-" else named)
        except DeltaError as exc:
            log.say("refused" if exc.certain else "unknown", number, path)
        else:
            log.say("ok", number, path)


async def main(directory: str, log: str, name: str, kind: str) -> None:
    """Never returns. ``kind``: ``directory``, ``journaled``, or ``no-lock``, the planted bug."""
    disk = NoLock() if kind == "no-lock" else OsDisk()
    backend = JournaledDirectory if kind == "journaled" else DirectoryObjects
    store = await asyncio.to_thread(
        partial(backend, Path(directory), clock=SystemClock(), random=system_random, disk=disk)
    )
    await asyncio.gather(
        *(write(store, Log(f"{log}.{each}"), f"{name}.{each}", path) for each in range(2) for path in PATHS)
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
