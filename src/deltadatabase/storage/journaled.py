"""The directory backend with a journal in front of its files (``journal``), for one program alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from deltadatabase import limits
from deltadatabase.errors import NotFound
from deltadatabase.storage.applying import Outcome
from deltadatabase.storage.base import Condition, ObjectInfo, Stored, When, too_large
from deltadatabase.storage.batch import Answer, SyncFailed, digest
from deltadatabase.storage.group_commit import Batches
from deltadatabase.storage.journal import Journal
from deltadatabase.storage.local import DirectoryObjects
from deltadatabase.storage.paths import is_meta

WAIT_S: Final = 0.05


class JournaledDirectory(DirectoryObjects):
    """Objects as files of a directory, their newest state in a journal. Fulfils ``Store``.

    As ``DirectoryObjects``, and while it has the directory alone a put is one synced append, shared
    by all that are in flight. A file has its object's newest state about
    ``limits.JOURNAL_PERIOD_S`` seconds later. Whoever else opens the directory waits until the
    journal is empty, and it stays empty as long as they work beside each other.

    A meta file is not durable when its put is answered: it may be late or missing after a crash.
    """

    _alone = True

    def _batches(self, answer: Answer) -> Batches:
        self._work = threading.Condition()
        self._ending = False
        self._journal = Journal(
            self._layout,
            self._disk,
            self._hold,
            clock=self._clock,
            syncfs=self._syncfs,
            answer=answer,
            wait=self._wait,
        )
        self._applying = threading.Thread(target=self._apply, name="apply", daemon=True)
        self._applying.start()
        return self._journal

    def _wait(self) -> None:
        with self._work:
            self._work.notify_all()
            self._work.wait(WAIT_S)

    def _apply(self) -> None:
        while not self._ending:
            try:
                failed = self._journal.apply()
            except SyncFailed as exc:
                self._on_fatal(str(exc))
                return
            with self._work:
                self._work.notify_all()
                if failed or not self._journal.has_work:
                    self._work.wait(limits.JOURNAL_RETRY_S if failed else limits.DIRECTORY_WANTED_POLL_S)

    def _finish(self) -> None:
        self._committer.close()
        self._ending = True
        self._wait()
        self._applying.join(limits.JOURNAL_CLOSE_S)
        # While it still writes files, nobody else may; the end of the process lets the directory go.
        if not self._applying.is_alive():
            self._hold.close()

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        if condition is When.ALWAYS and is_meta(path) and self._journal.note_derived(path, data):
            return digest(data)
        return await self._commit(path, data, condition)

    async def delete(self, path: str) -> None:
        if not (is_meta(path) and self._journal.note_derived(path, None)):
            await self._commit(path, None, When.ALWAYS)

    async def get(self, path: str) -> Stored:
        newest = self._journal.newest(path)
        if newest is None:
            return await super().get(path)
        data, etag = _present(newest)
        if len(data) > self._object_bytes_max:
            raise too_large()
        return Stored(data, etag, newest.updated_ms)

    async def settle(self, path: str) -> None:
        if self._journal.newest(path) is None:
            await super().settle(path)

    async def head(self, path: str) -> ObjectInfo:
        newest = self._journal.newest(path)
        if newest is None:
            return await super().head(path)
        data, etag = _present(newest)
        return ObjectInfo(path, len(data), etag, newest.updated_ms)

    async def list(
        self, prefix: str, *, after: str = "", limit: int = limits.LIST_PAGE_MAX
    ) -> Sequence[ObjectInfo]:
        # First what is newer than the files: meanwhile it may get into them, but not out of them.
        newest = {path: each for path, each in self._journal.below(prefix).items() if path > after}
        gone = sum(each.data is None for each in newest.values())
        found = {info.path: info for info in await super().list(prefix, after=after, limit=limit + gone)}
        for path, each in newest.items():
            if each.data is None:
                found.pop(path, None)
            else:
                found[path] = ObjectInfo(path, len(each.data), "", each.updated_ms)
        return [found[path] for path in sorted(found)[:limit]]

    async def scan(self, prefix: str) -> AsyncGenerator[Sequence[str]]:
        # First those that may get into files meanwhile, as in ``list``. A file that is gone may come.
        newest = self._journal.below(prefix)
        names = {path[len(prefix) :] for path, each in newest.items() if each.data is not None}
        names = {name for name in names if "/" not in name}
        if names:
            yield sorted(names)
        async with contextlib.aclosing(super().scan(prefix)) as parts:
            async for part in parts:
                if rest := [name for name in part if name not in names]:
                    yield rest

    async def describe(self, prefix: str, names: Sequence[str]) -> Sequence[ObjectInfo | None]:
        newest = {name: self._journal.newest(prefix + name) for name in names}
        found = await super().describe(prefix, [name for name in names if newest[name] is None])
        files = iter(found)
        return [
            next(files) if each is None else _described(prefix + name, each) for name, each in newest.items()
        ]

    async def folders(self, prefix: str) -> Sequence[str]:
        newest = self._journal.below(prefix)
        names = set(await super().folders(prefix))
        for path, each in newest.items():
            name, slash, _ = path[len(prefix) :].partition("/")
            if slash and each.data is not None:
                names.add(name)
        return sorted(names)


def _described(path: str, newest: Outcome) -> ObjectInfo | None:
    return None if newest.data is None else ObjectInfo(path, len(newest.data), "", newest.updated_ms)


def _present(newest: Outcome) -> tuple[bytes, str]:
    if newest.data is None or newest.etag is None:
        raise NotFound("there is no such object")
    return newest.data, newest.etag
