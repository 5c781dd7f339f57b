"""Does a store keep the promises that correctness rests on? Tried at start and by ``deltadb doctor``.

Everything happens to objects with a random name in ``cluster/probe/``, which are removed again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from deltadatabase.clock import Random
from deltadatabase.errors import (
    AlreadyExists,
    DeltaError,
    NotFound,
    OutcomeUnknown,
    StartupError,
    StoreFull,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.model import ProbeCheck
from deltadatabase.storage.base import Condition, Store, When
from deltadatabase.storage.local import DirectoryObjects
from deltadatabase.storage.metered import MeteredStore
from deltadatabase.storage.mounts import filesystem_type
from deltadatabase.storage.paths import PROBE

RACERS: Final = 16
RACE_S: Final = 1.0

# Their locks or renames are not what commits need, or nobody can know.
_UNSAFE_TYPES: Final = frozenset(
    {"nfs", "cifs", "smb3", "smbfs", "9p", "afs", "davfs", "msdos", "vfat", "exfat"}
)
_SAFE_FUSE_TYPES: Final = frozenset({"fuse.juicefs", "fuse.glusterfs", "fuse.ceph", "fuse.fuse-overlayfs"})
_SHARED_TYPES: Final = frozenset(
    {"nfs4", "ceph", "lustre", "gpfs", "gfs2", "ocfs2", "virtiofs", *_SAFE_FUSE_TYPES}
)
# Any ETag that no store has given.
_STRANGE_ETAG: Final = '"00000000000000000000000000000000"'


async def probe(store: Store, random: Random) -> tuple[ProbeCheck, ...]:
    """Try the store; return each check, in a fixed order.

    Raises:
        Unavailable: the store does not answer, so nothing can be said.
    """
    run = _Probe(store, f"{PROBE}{random(12).hex()}")
    try:
        return tuple([await _check(name, step) for name, step in run.steps()])
    finally:
        await run.clean_up()


def refuse(checks: Sequence[ProbeCheck]) -> None:
    """Raise StartupError (``store_refused``) unless every check passed, saying what to do."""
    failed = [check for check in checks if not check.passed]
    if not failed:
        return
    reasons = "; ".join(f"{check.name}: {check.detail}" for check in failed)
    raise StartupError(
        f"this store cannot be used, writes could be lost: {reasons}. "
        "Conditional writes need SeaweedFS 4.18, MinIO of 2025-10 or later, RustFS or AWS S3; Garage has "
        "none. A directory needs a case-sensitive local file system, or NFS 4",
        code="store_refused",
    )


async def _check(name: str, step: Callable[[], Awaitable[str]]) -> ProbeCheck:
    try:
        return ProbeCheck(name, True, await step())
    except _Broken as exc:
        return ProbeCheck(name, False, str(exc))
    except (AlreadyExists, NotFound, StoreFull, VersionMismatch) as exc:
        return ProbeCheck(name, False, exc.detail)
    except Unavailable as exc:
        if exc.code == Unavailable.default_code:
            raise
        return ProbeCheck(name, False, exc.detail)
    except OutcomeUnknown:
        raise Unavailable("the store did not confirm a write of the start-up probe") from None


class _Broken(Exception):
    """A promise that the store does not keep."""


class _Probe:
    """One run. Each step returns a remark ("" mostly) or raises."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._etag = ""

    def steps(self) -> Sequence[tuple[str, Callable[[], Awaitable[str]]]]:
        return (
            ("file_system", self._file_system),
            ("create", self._create),
            ("create_twice", self._create_twice),
            ("read_after_write", self._read_after_write),
            ("conditional_read", self._conditional_read),
            ("update", self._update),
            ("update_stale", self._update_stale),
            ("update_missing", self._update_missing),
            ("racing_creates", self._racing_creates),
            ("racing_updates", self._racing_updates),
            ("case_sensitive", self._case_sensitive),
            ("list_after_write", self._list_after_write),
            ("delete", self._delete),
        )

    async def clean_up(self) -> None:
        with contextlib.suppress(DeltaError):
            for path in await self._paths():
                await self._store.delete(path)

    async def _file_system(self) -> str:
        store = self._store.inner if isinstance(self._store, MeteredStore) else self._store
        if not isinstance(store, DirectoryObjects):
            return ""
        kind = await asyncio.to_thread(filesystem_type, store.root)
        return judge_file_system(kind)

    async def _create(self) -> str:
        self._etag = await self._put("a", b"first", When.ABSENT)
        return ""

    async def _create_twice(self) -> str:
        with contextlib.suppress(AlreadyExists):
            await self._store.put(self._path("a"), b"second", When.ABSENT)
            raise _Broken("a create overwrote an existing object")
        return await self._expect(b"first")

    async def _read_after_write(self) -> str:
        stored = await self._store.get(self._path("a"))
        if stored.etag != self._etag:
            raise _Broken("a read gives another etag than the write did")
        return await self._expect(b"first")

    async def _conditional_read(self) -> str:
        if await self._store.get_if_changed(self._path("a"), self._etag) is not None:
            raise _Broken("a conditional read does not recognise an unchanged object")
        if await self._store.get_if_changed(self._path("a"), _STRANGE_ETAG) is None:
            raise _Broken("a conditional read takes a changed object for an unchanged one")
        return ""

    async def _update(self) -> str:
        stale = self._etag
        self._etag = await self._put("a", b"third", stale)
        if self._etag == stale:
            raise _Broken("the etag did not change with the object")
        return await self._expect(b"third")

    async def _update_stale(self) -> str:
        with contextlib.suppress(VersionMismatch):
            await self._store.put(self._path("a"), b"fourth", _STRANGE_ETAG)
            raise _Broken("an update with a stale etag overwrote the object")
        return await self._expect(b"third")

    async def _update_missing(self) -> str:
        with contextlib.suppress(VersionMismatch):
            await self._store.put(self._path("none"), b"", _STRANGE_ETAG)
            raise _Broken("an update made an object that did not exist")
        return ""

    async def _racing_creates(self) -> str:
        return await self._race(self._path("race"), When.ABSENT)

    async def _racing_updates(self) -> str:
        etag = (await self._store.get(self._path("race"))).etag
        return await self._race(self._path("race"), etag)

    async def _case_sensitive(self) -> str:
        await self._put("case", b"lower", When.ABSENT)
        with contextlib.suppress(AlreadyExists):
            await self._put("CASE", b"upper", When.ABSENT)
            return ""
        raise _Broken("names that differ only in case are one object")

    async def _list_after_write(self) -> str:
        names = ("l", "l-", "l.a", "l=2F", "l_", "lA", "la")
        for name in names:
            await self._put(name, name.encode(), When.ABSENT)
        listed = await self._paths()
        missing = {self._path(name) for name in names} - set(listed)
        if missing:
            raise _Broken("a new object is missing in a listing")
        if listed != sorted(listed):
            raise _Broken("a listing is not in byte order")
        if await self._paths(after=listed[3]) != listed[4:]:
            raise _Broken("a listing does not go on behind a given name")
        return ""

    async def _delete(self) -> str:
        await self._store.delete(self._path("a"))
        with contextlib.suppress(NotFound):
            await self._store.get(self._path("a"))
            raise _Broken("a deleted object can still be read")
        if self._path("a") in await self._paths():
            raise _Broken("a deleted object is still listed")
        return ""

    async def _race(self, path: str, condition: Condition) -> str:
        """Let many put at once under one condition: one wins, and its bytes stay."""
        # New bytes each time: most stores derive the etag from them.
        offers = [f"racer {number} for {condition}".encode() for number in range(RACERS)]
        puts = [asyncio.create_task(self._store.put(path, offer, condition)) for offer in offers]
        # SeaweedFS lets losers wait for seconds. A store that ignores conditions does not: its
        # second winner is there at once.
        done, late = await asyncio.wait(puts, timeout=RACE_S)
        if late and all(put.exception() for put in done):
            await asyncio.wait(puts)
        for put in puts:
            put.cancel()
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        pairs = list(zip(offers, outcomes, strict=True))
        winners = [offer for offer, outcome in pairs if isinstance(outcome, str)]
        unknown = [
            offer for offer, outcome in pairs if isinstance(outcome, OutcomeUnknown | asyncio.CancelledError)
        ]
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(
                outcome, AlreadyExists | VersionMismatch | OutcomeUnknown | asyncio.CancelledError
            ):
                raise outcome
        if len(winners) > 1:
            raise _Broken(f"{len(winners)} of {RACERS} concurrent writes won")
        stored = await self._store.get(path)
        if not winners and not unknown and stored.data not in offers:
            raise _Broken(f"none of {RACERS} concurrent writes won")
        # Where nobody was told that he won, the winner may have been told that he lost: see ``_put``.
        if stored.data not in (winners or offers):
            raise _Broken("the object does not hold what the winner wrote")
        return ""

    async def _put(self, name: str, data: bytes, condition: Condition) -> str:
        """Put what nobody else puts; a network that sends it twice reports the success as a failure."""
        path = self._path(name)
        try:
            return await self._store.put(path, data, condition)
        except (AlreadyExists, VersionMismatch):
            stored = await self._store.get(path)
            if stored.data != data or stored.etag == condition:
                raise
            return stored.etag

    async def _expect(self, data: bytes) -> str:
        if (await self._store.get(self._path("a"))).data != data:
            raise _Broken("a read does not give what was written last")
        return ""

    async def _paths(self, after: str = "") -> list[str]:
        """Paths of this run's objects."""
        listed = await self._store.list(PROBE, after=after or self._prefix)
        return [info.path for info in listed if info.path.startswith(self._prefix)]

    def _path(self, name: str) -> str:
        return f"{self._prefix}-{name}"


def judge_file_system(kind: str) -> str:
    """Remark on a directory's file system; raises where its locks and renames cannot be relied on."""
    if kind in _UNSAFE_TYPES or (kind.startswith("fuse") and kind not in _SAFE_FUSE_TYPES):
        raise _Broken(f"locks and renames of this file system cannot be relied on, type={kind}")
    if kind in _SHARED_TYPES:
        return f"every process must mount it with working locks, type={kind}"
    return f"type={kind}" if kind else "type of the file system unknown"
