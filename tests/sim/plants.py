"""Bugs to be planted in the real code, to show that the simulation finds each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from deltadatabase.errors import OutcomeUnknown, Unavailable, VersionMismatch
from deltadatabase.gateway.forwarding import Router
from deltadatabase.model import Command, Header, Op, RecentWrites, Result
from deltadatabase.placement.membership import Placement
from deltadatabase.placement.ring import shard_of
from deltadatabase.storage.base import Condition, When
from deltadatabase.worker import commit, engine
from deltadatabase.worker.cache import Cache, Entry, Name
from deltadatabase.worker.commit import Committer
from deltadatabase.worker.creations import Creations
from deltadatabase.worker.engine import Change, Plan
from deltadatabase.worker.locks import EntityLocks
from deltadatabase.worker.writes import Attempt, PendingWrite, WriteQueue
from sim.store import SimStore
from sim.world import SHARDS

Patch = pytest.MonkeyPatch


def conditional_put_removed(patch: Patch) -> None:
    put = SimStore.put

    async def blind(self: SimStore, path: str, data: bytes, condition: Condition) -> str:
        self.ignore_conditions = True
        return await put(self, path, data, condition)

    patch.setattr(SimStore, "put", blind)


def entity_lock_removed(patch: Patch) -> None:
    @asynccontextmanager
    async def hold(self: EntityLocks, name: Hashable, *, bounded: bool = True) -> AsyncIterator[None]:
        yield

    async def at_once(self: WriteQueue, name: Name, write: PendingWrite) -> Result:
        await self._commit(name, [write])
        return await write.answer

    patch.setattr(EntityLocks, "hold", hold)
    patch.setattr(WriteQueue, "write", at_once)


def cache_not_tagged(patch: Patch) -> None:
    def get(self: Cache, name: Name, term: int, now_s: float) -> Entry | None:
        return self._entries.get(name)

    patch.setattr(Cache, "get", get)


def term_worked_out_by_the_worker(patch: Patch) -> None:
    """From when it first heard of the shard; it does not learn that it lost it in between."""
    fast, execute = Committer.fast, Committer.execute

    def own(self: Committer, command: Command) -> Command:
        terms = self.__dict__.setdefault("_own_terms", {})
        return msgspec.structs.replace(command, term=terms.setdefault(command.shard, command.term))

    patch.setattr(Committer, "fast", lambda self, command: fast(self, own(self, command)))
    patch.setattr(Committer, "execute", lambda self, command: execute(self, own(self, command)))


def newer_term_overwritten(patch: Patch) -> None:
    for module in (commit, engine):
        patch.setattr(module, "check_owner", lambda header, term: None)


def stale_reply_delivered(patch: Patch) -> None:
    send = Router._send

    async def anything_goes(self: Router, command: Command, deadline: float) -> tuple[Result, bool]:
        result, _ = await send(self, command, deadline)
        return result, True

    patch.setattr(Router, "_send", anything_goes)


def write_sent_again(patch: Patch) -> None:
    """A write of unknown outcome is sent again, and compared with the current write id only."""

    async def again(self: Router, command: Command, deadline: float, cause: object) -> Result:
        return await self._write(command)

    def current_only(header: Header | None, write_id: bytes) -> int:
        return header.version if header is not None and header.write_id == write_id else 0

    patch.setattr(Router, "_resolve", again)
    for module in (commit, engine):
        patch.setattr(module, "applied_version", current_only)


def write_id_not_checked(patch: Patch) -> None:
    """A failed condition is believed: the write is made again on top of its own success."""
    reload = Committer._reload

    async def forgetful(self: Committer, name: Name, attempt: Attempt, **more: bool) -> Entry:
        entry = await reload(self, name, attempt, **more)
        if entry.header is None:
            return entry
        header = msgspec.structs.replace(entry.header, write_id=b"?" * 16, recent=RecentWrites())
        return msgspec.structs.replace(entry, header=header)

    patch.setattr(Committer, "_reload", forgetful)


def merged_answer_before_the_commit(patch: Patch) -> None:
    put = Committer._put

    async def hasty(
        self: Committer,
        name: Name,
        attempt: Attempt,
        etag: str,
        sealed: bytes,
        header: Header,
        document: bytes,
    ) -> Entry:
        if len(attempt.writes) > 1:
            attempt.succeed()
        return await put(self, name, attempt, etag, sealed, header, document)

    patch.setattr(Committer, "_put", hasty)


def merged_write_forgotten(patch: Patch) -> None:
    """The merged header remembers as few writes as any other: a repeat is made again."""
    decide = engine.decide
    patch.setattr(
        engine,
        "decide",
        lambda header, command, now_ms, _recent_max, **more: decide(header, command, now_ms, 0, **more),
    )


def acknowledged_before_the_commit(patch: Patch) -> None:
    put = SimStore.put

    async def hasty(self: SimStore, path: str, data: bytes, condition: Condition) -> str:
        landing = asyncio.ensure_future(put(self, path, data, condition))
        landing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        return data.hex()

    patch.setattr(SimStore, "put", hasty)


def delete_without_condition(patch: Patch) -> None:
    land = SimStore._land

    async def careless(self: SimStore, path: str, data: bytes, condition: Condition, delay_s: float) -> str:
        header, _ = self._sealer.sealed.get(data, (None, b""))
        blind = header is not None and header.tombstone
        return await land(self, path, data, When.ALWAYS if blind else condition, delay_s)

    patch.setattr(SimStore, "_land", careless)


def unknown_reported_as_refused(patch: Patch) -> None:
    """An attempt is closed though its put may still land."""
    fail = Attempt.fail

    def hides(self: Attempt, error: Exception) -> None:
        self.open = False
        fail(self, Unavailable("refused") if isinstance(error, OutcomeUnknown) else error)

    patch.setattr(Attempt, "fail", hides)


def resolved_write_left_out_of_the_cache(patch: Patch) -> None:
    """The owner looks a lost write up in the store and goes on serving what it had before."""
    execute = Committer.execute

    async def keeps(self: Committer, command: Command) -> Result:
        if command.op is not Op.RESOLVE:
            return await execute(self, command)
        name = (command.schema_id, command.key)
        before = self._cache._entries.get(name)
        try:
            return await execute(self, command)
        finally:
            if before is not None:
                self._cache.put(name, before)

    patch.setattr(Committer, "execute", keeps)


def epochs_begin_again(patch: Patch) -> None:
    """A main worker that starts anew begins below what was used before."""
    init = Placement.__init__

    def forgetful(self: Placement, shards: int, *, epoch: int, epoch_limit: int) -> None:
        init(self, shards, epoch=0, epoch_limit=epoch_limit)

    patch.setattr(Placement, "__init__", forgetful)


def tombstone_removed_without_comparison(patch: Patch) -> None:
    remove = SimStore._remove

    async def careless(self: SimStore, path: str, etag: str, delay_s: float) -> str:
        present = self.objects.get(path)
        return await remove(self, path, present.etag if present is not None else etag, delay_s)

    patch.setattr(SimStore, "_remove", careless)


def reply_delivered_after_the_store_was_lost(patch: Patch) -> None:
    def counts(self: Router, shard: int, term: int) -> bool:
        return self._bound().terms[shard] == term

    patch.setattr(Router, "_counts", counts)


def terms_kept_when_the_store_is_back(patch: Patch) -> None:
    """What workers cached in the emptied store goes on being served."""
    patch.setattr(Placement, "release", lambda self: None)


def cached_under_the_term_of_its_end(patch: Patch) -> None:
    """A read counts for the term that the worker knows when it ends, not when it began."""
    load = Committer._load

    async def late(self: Committer, name: Name, term: int, *, sure: bool = False, **more: Any) -> Entry:
        entry = await load(self, name, term, sure=sure, **more)
        if not sure:
            shard = shard_of(*name, SHARDS)
            entry = msgspec.structs.replace(entry, term=self._seen_terms.get(shard, term))
            self._cache.put(name, entry)
        return entry

    patch.setattr(Committer, "_load", late)


def refusal_of_a_lost_merge_told(patch: Patch) -> None:
    """A write is refused because of one that was merged before it, and that may never land."""
    fail = Attempt.fail

    def tells(self: Attempt, error: Exception) -> None:
        if self.open and self.plan is not None:
            for write, outcome in zip(self.writes, self.plan.outcomes, strict=True):
                if isinstance(outcome, VersionMismatch):
                    write.fail(outcome)
        fail(self, error)

    patch.setattr(Attempt, "fail", tells)


def reseal_without_condition(patch: Patch) -> None:
    land = SimStore._land

    async def careless(self: SimStore, path: str, data: bytes, condition: Condition, delay_s: float) -> str:
        header, _ = self._sealer.sealed.get(data, (None, b""))
        version = self.landings.version_of(header.key) if header is not None else 0
        blind = header is not None and header.version <= version
        return await land(self, path, data, When.ALWAYS if blind else condition, delay_s)

    patch.setattr(SimStore, "_land", careless)


def reseal_drops_the_document(patch: Patch) -> None:
    reseal = engine._decide_reseal
    patch.setattr(engine, "_decide_reseal", lambda header, command, _document: reseal(header, command, b""))


def patch_made_of_a_stale_document(patch: Patch) -> None:
    """Each patch of a group changes what was there before the group."""
    add = Plan.add

    def stale(self: Plan, command: Command, change: Change | None = None) -> None:
        before = self.__dict__.setdefault("_before", self.document)
        add(self, command, None if change is None else lambda document: change(before or document))

    patch.setattr(Plan, "add", stale)


def condition_of_a_patch_not_checked(patch: Patch) -> None:
    check = engine.check_conditions

    def lenient(header: Header | None, command: Command) -> None:
        if command.op is not Op.PATCH:
            check(header, command)

    patch.setattr(engine, "check_conditions", lenient)


def condition_checked_before_the_repeat(patch: Patch) -> None:
    decide, conditions = engine.decide, engine.check_conditions

    def decided(header: Header | None, command: Command, *rest: Any, **more: Any) -> engine.Decision:
        if command.op is not Op.RESEAL:
            conditions(header, command)
        return decide(header, command, *rest, **more)

    patch.setattr(engine, "decide", decided)


def repeat_applied_again(patch: Patch) -> None:
    """A repeat is compared with the present write only."""

    def current_only(header: Header | None, write_id: bytes) -> int:
        return header.version if header is not None and header.write_id == write_id else 0

    patch.setattr(engine, "check_repeat", current_only)


def put_recognised_by_its_last_write(patch: Patch) -> None:
    """That the last write of a group is stored is taken for the whole group's being so."""

    def committed(self: Plan, header: Header | None) -> bool:
        assert self.header is not None
        return engine.applied_version(header, self.header.write_id) > 0

    patch.setattr(Plan, "committed", committed)


def conflict_of_a_create_believed(patch: Patch) -> None:
    """That something is there is taken for others having made it, without a look for the own write id."""
    put = Committer._put

    async def believes(
        self: Committer,
        name: Name,
        attempt: Attempt,
        etag: str,
        sealed: bytes,
        header: Header,
        document: bytes,
    ) -> Entry:
        entry = await put(self, name, attempt, etag, sealed, header, document)
        if etag or entry.header is None or entry.header is header:
            return entry
        others = msgspec.structs.replace(entry.header, write_id=b"?" * 16, recent=RecentWrites())
        return msgspec.structs.replace(entry, header=others)

    patch.setattr(Committer, "_put", believes)


def guessed_absence_cached(patch: Patch) -> None:
    """That there is no entity, which a create is tried on, is told to readers before the store says so."""
    begin = Committer._begin

    async def keeps(self: Committer, name: Name, attempt: Attempt) -> Entry:
        entry = await begin(self, name, attempt)
        self._cache.put(name, entry)
        return entry

    patch.setattr(Committer, "_begin", keeps)


def absence_guessed_for_every_write(patch: Patch) -> None:
    """Deletes, patches and conditions are decided on the guess, and some answered from it."""
    patch.setattr(Creations, "expected", lambda self, command: True)


PLANTS: dict[str, Callable[[Patch], None]] = {
    plant.__name__: plant
    for plant in (
        conditional_put_removed,
        entity_lock_removed,
        cache_not_tagged,
        term_worked_out_by_the_worker,
        newer_term_overwritten,
        stale_reply_delivered,
        write_sent_again,
        write_id_not_checked,
        merged_answer_before_the_commit,
        merged_write_forgotten,
        acknowledged_before_the_commit,
        delete_without_condition,
        unknown_reported_as_refused,
        resolved_write_left_out_of_the_cache,
        epochs_begin_again,
        tombstone_removed_without_comparison,
        reply_delivered_after_the_store_was_lost,
        terms_kept_when_the_store_is_back,
        cached_under_the_term_of_its_end,
        refusal_of_a_lost_merge_told,
        reseal_without_condition,
        reseal_drops_the_document,
        patch_made_of_a_stale_document,
        condition_of_a_patch_not_checked,
        condition_checked_before_the_repeat,
        repeat_applied_again,
        put_recognised_by_its_last_write,
        conflict_of_a_create_believed,
        guessed_absence_cached,
        absence_guessed_for_every_write,
    )
}
