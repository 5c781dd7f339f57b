"""The simulation passes on the code as it is, and finds each bug that is planted in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

import msgspec
import pytest

from deltadatabase.errors import OutcomeUnknown
from deltadatabase.gateway.forwarding import Router
from deltadatabase.model import Command, Result
from deltadatabase.storage.base import Condition, When
from deltadatabase.worker import commit, engine
from deltadatabase.worker.cache import Cache, Entry, Name
from deltadatabase.worker.locks import EntityLocks
from sim.history import Operation, violations
from sim.scenario import first_failure, simulate
from sim.world import SimStore, World

SEEDS = range(400)
PLANTED_SEEDS = range(3_000)
"""Enough for each planted bug several times over; the search ends at the first."""


def test_no_violation_in_many_seeds() -> None:
    found = first_failure(SEEDS)
    assert found is None, "\n".join(["", f"seed {found[0]}", *found[2], *map(str, found[1])])


def conditions_ignored(patch: pytest.MonkeyPatch) -> None:
    put = SimStore.put

    async def blind(self: SimStore, path: str, data: bytes, condition: Condition) -> str:
        self.ignore_conditions = True
        return await put(self, path, data, condition)

    patch.setattr(SimStore, "put", blind)


def no_entity_lock(patch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def hold(self: EntityLocks, name: Hashable) -> AsyncIterator[None]:
        yield

    patch.setattr(EntityLocks, "hold", hold)


def cache_not_tagged(patch: pytest.MonkeyPatch) -> None:
    def get(self: Cache, name: Name, term: int, now_s: float) -> Entry | None:
        return self._entries.get(name)

    patch.setattr(Cache, "get", get)


def stale_replies_delivered(patch: pytest.MonkeyPatch) -> None:
    send = Router._send

    async def anything_goes(self: Router, command: Command, deadline: float) -> tuple[Result, bool]:
        result, _ = await send(self, command, deadline)
        return result, True

    patch.setattr(Router, "_send", anything_goes)


def write_ids_not_checked(patch: pytest.MonkeyPatch) -> None:
    """A failed condition is believed: the write is made again on top of its own success."""
    real = commit.Committer._reload

    async def forgetful(self: commit.Committer, name: Name, attempt: commit._Attempt) -> Entry:
        entry = await real(self, name, attempt)
        fresh = bytes(byte ^ 0xFF for byte in attempt.command.write_id)
        attempt.command = msgspec.structs.replace(attempt.command, write_id=fresh)
        return entry

    async def commit_afresh(self: commit.Committer, name: Name, attempt: commit._Attempt) -> Result:
        # Decides with the command as it is now, each time.
        entry = self._cache.get(name, attempt.command.term, self._clock.monotonic_s())
        if entry is None:
            entry = await self._load(name, attempt.command)
        while True:
            decision = engine.decide(entry.header, attempt.command, self._clock.wall_ms())
            if isinstance(decision, engine.Unchanged):
                return attempt.unchanged(decision)
            sealed = self._sealer().seal(decision.header, attempt.command.document)
            entry = await self._put(name, attempt, entry.store_etag, sealed, decision.header)
            version = engine.applied_version(entry.header, attempt.command.write_id)
            if version:
                return attempt.written(version, "", 0, decision.created)

    patch.setattr(commit.Committer, "_reload", forgetful)
    patch.setattr(commit.Committer, "_commit", commit_afresh)


def lost_writes_sent_again(patch: pytest.MonkeyPatch) -> None:
    """And compared with the current write id only."""

    async def again(self: Router, command: Command, deadline: float, cause: object) -> Result:
        return await self._write(command)

    def current_only(header: engine.Header | None, write_id: bytes) -> int:
        return header.version if header is not None and header.write_id == write_id else 0

    patch.setattr(Router, "_resolve", again)
    for module in (commit, engine):
        patch.setattr(module, "applied_version", current_only)


def acknowledged_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    put = SimStore.put

    async def hasty(self: SimStore, path: str, data: bytes, condition: Condition) -> str:
        landing = asyncio.ensure_future(put(self, path, data, condition))
        landing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        return data.hex()

    patch.setattr(SimStore, "put", hasty)


def deletes_without_condition(patch: pytest.MonkeyPatch) -> None:
    land = SimStore._land

    async def careless(self: SimStore, path: str, data: bytes, condition: Condition, delay_s: float) -> str:
        header, _ = self.sealed[data]
        return await land(self, path, data, When.ALWAYS if header.tombstone else condition, delay_s)

    init = World.__init__

    def with_sealed(self: World, *arguments: object, **more: object) -> None:
        init(self, *arguments, **more)  # type: ignore[arg-type]
        self.store.sealed = self.sealer.sealed  # type: ignore[attr-defined]

    patch.setattr(World, "__init__", with_sealed)
    patch.setattr(SimStore, "_land", careless)


def refusal_after_an_unknown_put_believed(patch: pytest.MonkeyPatch) -> None:
    """The bug that an earlier review found: an attempt is closed though its put may still land."""
    real = commit.Committer._write

    async def hides(self: commit.Committer, command: Command) -> Result:
        try:
            return await real(self, command)
        except OutcomeUnknown:
            raise commit.Unavailable("refused") from None

    patch.setattr(commit.Committer, "_write", hides)


PLANTS = [
    conditions_ignored,
    no_entity_lock,
    cache_not_tagged,
    stale_replies_delivered,
    write_ids_not_checked,
    lost_writes_sent_again,
    acknowledged_before_the_commit,
    deletes_without_condition,
    refusal_after_an_unknown_put_believed,
]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.filterwarnings("ignore")
def test_a_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch) -> None:
    plant(monkeypatch)
    found = first_failure(PLANTED_SEEDS)
    assert found is not None
    print(f"{plant.__name__}: seed {found[0]}: {found[2][0]}")


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        ([("put", b"1", 0, 1, 1), ("put", b"2", 2, 3, 1)], "two writes got version 1"),
        ([("put", b"1", 0, 1, 1), ("get", b"2", 2, 3, 1)], "never written"),
        ([("put", b"1", 0, 1, 1), ("put", b"2", 2, 3, 2), ("get", b"1", 4, 5, 1)], "older than"),
        ([("put", b"1", 0, 1, 1), ("get", None, 2, 3, 0)], "missing"),
        ([("put", b"2", 0, 1, 2), ("put", b"1", 2, 3, 1)], "taken before it began"),
        ([("get", b"1", 0, 1, 1), ("put", b"1", 2, 3, 1)], "later write"),
    ],
)
def test_the_checker_sees(operations: list[tuple[str, bytes | None, int, int, int]], says: str) -> None:
    history = [
        Operation(0, "k", kind, value, begin, end, version, "ok")
        for kind, value, begin, end, version in operations
    ]
    assert says in "".join(violations(history))


def test_the_checker_lets_pass_what_one_copy_could_show() -> None:
    history = [
        Operation(0, "k", "put", b"1", 0, 1, 1, "ok"),
        Operation(1, "k", "put", b"2", 0.5, None, 0, "unknown"),
        Operation(2, "k", "get", b"2", 2, 3, 2, "ok"),
        Operation(0, "k", "delete", None, 4, 5, 3, "ok"),
        Operation(2, "k", "get", None, 6, 7, 0, "ok"),
        Operation(1, "k", "put", b"3", 6, None, 0, "refused"),
        Operation(0, "k", "delete", None, 8, 9, 0, "ok"),
    ]
    assert violations(history) == []


def test_one_seed_is_one_history() -> None:
    for seed in range(20):
        first, second = simulate(seed), simulate(seed)
        assert list(map(str, first[0])) == list(map(str, second[0]))
    assert any(operation.kind == "delete" for operation in first[0])
