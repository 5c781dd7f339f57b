"""The start-up probe passes every backend, and refuses each store that breaks one promise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.clocks import SeededRandom

from contract.stores import BACKENDS, open_backend
from deltadatabase.errors import (
    AlreadyExists,
    OutcomeUnknown,
    StartupError,
    StoreFull,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.storage.base import Condition, ObjectInfo, Stored, When
from deltadatabase.storage.objects import MemoryObjects
from deltadatabase.storage.paths import CLUSTER
from deltadatabase.storage.probe import judge_file_system, probe, refuse


@pytest.mark.parametrize("backend", BACKENDS)
async def test_every_backend_passes_and_nothing_is_left(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("weed") if backend == "s3" else None
    store = await open_backend(backend, tmp_path, server, "probe-passes")
    checks = await probe(store, SeededRandom(1))
    assert [check.name for check in checks if not check.passed] == []
    refuse(checks)
    assert list(await store.list(CLUSTER)) == []
    await store.close()


class SentTwice(MemoryObjects):
    """A network that sends each put twice, and passes the second answer on."""

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        await super().put(path, data, condition)
        return await super().put(path, data, condition)


class SentTwiceAndSilent(SentTwice):
    """And some of those who lost are never answered."""

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        try:
            return await super().put(path, data, condition)
        except (AlreadyExists, VersionMismatch):
            if data.startswith(b"racer 15 "):
                raise OutcomeUnknown("no reply") from None
            raise


@pytest.mark.parametrize("network", [SentTwice, SentTwiceAndSilent])
async def test_its_own_success_told_as_a_failure_does_not_refuse_a_store(
    network: type[MemoryObjects],
) -> None:
    checks = await probe(network(), SeededRandom(1))
    assert [check for check in checks if not check.passed] == []


class IgnoresCreate(MemoryObjects):
    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        return await super().put(path, data, When.ALWAYS if condition is When.ABSENT else condition)


class IgnoresEtag(MemoryObjects):
    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        return await super().put(path, data, When.ALWAYS if isinstance(condition, str) else condition)


class ClaimsToRefuse(MemoryObjects):
    """Writes, and then says that it did not."""

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        try:
            return await super().put(path, data, condition)
        except AlreadyExists:
            await super().put(path, data, When.ALWAYS)
            raise


class ReadsOldBytes(MemoryObjects):
    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, Stored] = {}

    async def get(self, path: str) -> Stored:
        stored = await super().get(path)
        return self._first.setdefault(path, stored)


class OtherEtagOnRead(MemoryObjects):
    async def get(self, path: str) -> Stored:
        stored = await super().get(path)
        return Stored(stored.data, stored.etag + "x", stored.updated_ms)


class AlwaysUnchanged(MemoryObjects):
    async def get_if_changed(self, path: str, etag: str) -> Stored | None:
        return None


class NeverUnchanged(MemoryObjects):
    async def get_if_changed(self, path: str, etag: str) -> Stored | None:
        return await self.get(path)


class IgnoresCase(MemoryObjects):
    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        return await super().put(path.lower(), data, condition)


class ListsLate(MemoryObjects):
    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        self._newest = path
        return await super().put(path, data, condition)

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        listed = await super().list(prefix, after=after, limit=limit)
        return [info for info in listed if info.path != self._newest]


class ListsUnsorted(MemoryObjects):
    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        return (await super().list(prefix, after=after, limit=limit))[::-1]


class ListsFromTheBeginning(MemoryObjects):
    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        return await super().list(prefix, limit=limit)


class DeletesNothing(MemoryObjects):
    async def delete(self, path: str) -> None:
        pass


class NoRoom(MemoryObjects):
    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        raise StoreFull("the store has no room")


class Denies(MemoryObjects):
    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        raise Unavailable("the store denies access", code="store_denied")


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (IgnoresCreate, {"create_twice", "racing_creates"}),
        (IgnoresEtag, {"update_stale", "update_missing", "racing_updates"}),
        (ClaimsToRefuse, {"create_twice", "racing_creates"}),
        (ReadsOldBytes, {"update"}),
        (OtherEtagOnRead, {"read_after_write"}),
        (AlwaysUnchanged, {"conditional_read"}),
        (NeverUnchanged, {"conditional_read"}),
        (IgnoresCase, {"case_sensitive"}),
        (ListsLate, {"list_after_write"}),
        (ListsUnsorted, {"list_after_write"}),
        (ListsFromTheBeginning, {"list_after_write"}),
        (DeletesNothing, {"delete"}),
        (NoRoom, {"create"}),
        (Denies, {"create"}),
    ],
)
async def test_a_broken_promise_is_found_and_named(broken: type[MemoryObjects], names: set[str]) -> None:
    checks = await probe(broken(), SeededRandom(1))
    failed = {check.name for check in checks if not check.passed}
    assert names <= failed
    with pytest.raises(StartupError) as caught:
        refuse(checks)
    assert caught.value.code == "store_refused"
    assert all(name in caught.value.detail for name in names)


class Silent(MemoryObjects):
    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        raise OutcomeUnknown("the store did not confirm the write")


class Gone(MemoryObjects):
    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        raise Unavailable("the store cannot be reached")


@pytest.mark.parametrize("absent", [Silent, Gone])
async def test_a_store_that_does_not_answer_is_not_judged(absent: type[MemoryObjects]) -> None:
    with pytest.raises(Unavailable):
        await probe(absent(), SeededRandom(1))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "tmpfs", "nfs4", "ceph", "fuse.juicefs", ""])
def test_usable_file_systems(kind: str) -> None:
    assert judge_file_system(kind)


@pytest.mark.parametrize("kind", ["nfs", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "fuse", "vfat"])
def test_file_systems_whose_locks_mean_nothing(kind: str) -> None:
    with pytest.raises(Exception, match=f"type={kind}"):
        judge_file_system(kind)
