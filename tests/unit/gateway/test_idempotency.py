"""The rules of docs/decisions/0037, one by one, on the database of the fakes."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from deltadatabase.auth.policy import Permission, Principal
from deltadatabase.errors import (
    Conflict,
    DeltaError,
    Invalid,
    NotFound,
    OutcomeUnknown,
    PartlyApplied,
    StoreFull,
    Unavailable,
    Unprocessable,
    VersionMismatch,
)
from deltadatabase.gateway.conditions import ANY, NO_CONDITIONS, Conditions
from deltadatabase.gateway.entity import deleting
from deltadatabase.gateway.idempotency import IdempotentWrites, KeyedWrite, keyed_write
from deltadatabase.gateway.used_keys import UsedKeys
from deltadatabase.limits import IDEMPOTENCY_SURE_S
from deltadatabase.model import Result
from unit.gateway.rest_fakes import FakeDatabase, TestClock

ALICE = Principal(
    client_id="alice",
    permissions=frozenset({Permission.WRITE}),
    is_admin=False,
    schemas=None,
    key_id="a1",
)
HOUR_MS = 3_600_000
LOST = OutcomeUnknown("the write may or may not have been stored")


class Setting:
    """A database, its clients' writes, and a main worker that can be restarted with or without its state."""

    def __init__(self) -> None:
        self.database = FakeDatabase()
        self.clock = TestClock()
        self.restart(forgetful=True)

    def restart(self, *, forgetful: bool = False) -> None:
        if forgetful:
            self.used = UsedKeys()
        self.writes = IdempotentWrites(self.database, self.used, clock=self.clock)

    def named(
        self, document: bytes = b"1", *, name: bytes = b"n", key: str = "k", conditions=NO_CONDITIONS
    ) -> KeyedWrite:
        return keyed_write(ALICE, name, "PUT", "s", key, document, conditions=conditions)

    async def put(self, document: bytes = b"1", *, name: bytes = b"n", conditions=NO_CONDITIONS) -> Result:
        def send(write_id, when):
            return self.database.put_one(
                "s",
                "k",
                document,
                if_match=when.if_match,
                if_none_match=when.if_none_match,
                write_id=write_id,
            )

        return await self.writes.write(self.named(document, name=name, conditions=conditions), send)

    async def delete(self, name: bytes = b"d") -> Result:
        write = keyed_write(ALICE, name, "DELETE", "s", "k")
        return await self.writes.write(write, deleting(self.database, "s", "k", ""))

    async def others_write(self, times: int) -> None:
        for number in range(times):
            await self.database.put_one("s", "k", b'"other %d"' % number)

    @property
    def stored(self) -> tuple[int, bytes] | None:
        return self.database.documents.get(("s", "k"))


@pytest.fixture
def setting():
    made = Setting()
    yield made
    made.used.close()


async def refused(kind: type[DeltaError], code: str, call) -> None:
    with pytest.raises(kind) as caught:
        await call
    assert caught.value.code == code


async def test_a_repeat_gets_the_first_outcome_without_a_worker(setting):
    first = await setting.put()
    assert (first.version, first.created, first.repeated) == (1, True, False)
    await setting.others_write(20)
    setting.database.failure = Unavailable("no worker")
    again = await setting.put()
    assert (again.version, again.etag, again.created, again.repeated) == (1, '"1-aa"', True, True)
    assert setting.stored == (21, b'"other 19"')


async def test_a_repeat_after_a_delete_does_not_bring_the_entity_back(setting):
    await setting.put()
    deleted = await setting.delete()
    assert deleted.found and not deleted.repeated
    assert (await setting.put()).repeated
    assert setting.stored is None
    await setting.others_write(1)
    again = await setting.delete()
    assert again.found and again.repeated
    assert setting.stored == (3, b'"other 0"')


async def test_another_request_with_the_key_is_refused(setting):
    await setting.put(b"1")
    await refused(Unprocessable, "idempotency_key_reused", setting.put(b"2"))
    await refused(Unprocessable, "idempotency_key_reused", setting.delete(b"n"))
    await refused(Unprocessable, "idempotency_key_reused", setting.put(conditions=Conditions(if_match=ANY)))
    setting.restart(forgetful=True)
    # The entity's own history tells.
    await refused(Unprocessable, "idempotency_key_reused", setting.put(b"2"))
    assert setting.stored == (1, b"1")


def test_what_a_name_stands_for():
    same = keyed_write(ALICE, b"n", "PUT", "s", "k", b"1")
    assert keyed_write(ALICE, b"n", "PUT", "s", "k", b"1") == same
    others = [
        keyed_write(msgspec.structs.replace(ALICE, key_id="a2"), b"n", "PUT", "s", "k", b"1"),
        keyed_write(msgspec.structs.replace(ALICE, client_id="bob"), b"n", "PUT", "s", "k", b"1"),
        keyed_write(ALICE, b"ns", "PUT", "", "k", b"1"),
        keyed_write(ALICE, b"n", "PUT", "sk", "", b"1"),
        keyed_write(ALICE, b"n", "PUT", "s", "k2", b"1"),
    ]
    assert len({write.name for write in [same, *others]}) == 6
    contents = [
        keyed_write(ALICE, b"n", "PATCH", "s", "k", b"1"),
        keyed_write(ALICE, b"n", "PATCH", "s", "k", b"1", kind=1),
        keyed_write(ALICE, b"n", "PUT", "s", "k", b"2"),
        keyed_write(ALICE, b"n", "PUT", "s", "k", b"1", conditions=Conditions(if_match=ANY)),
        keyed_write(ALICE, b"n", "PUT", "s", "k", b"1", conditions=Conditions(if_none_match=ANY)),
        keyed_write(ALICE, b"n", "PUT", "s", "k", b"1", conditions=Conditions(if_match=())),
    ]
    assert len({write.content for write in [same, *contents]}) == 7
    assert {write.name for write in contents} == {same.name}


def test_write_ids_of_one_name_differ_once_versions_may_begin_again():
    write = keyed_write(ALICE, b"n", "PUT", "s", "k", b"1")
    assert write.write_id(0) == write.write_id(HOUR_MS - 1)
    # ETags are made of the first half.
    assert write.write_id(0)[:4] != write.write_id(HOUR_MS)[:4]
    assert len(write.write_id(0)) == 16


async def test_a_write_that_was_certainly_not_applied_frees_its_key(setting):
    setting.database.failure = StoreFull("full")
    await refused(StoreFull, "store_full", setting.put(b"1"))
    setting.database.failure = None
    assert (await setting.put(b"2")).version == 1
    mismatch = Conditions(if_match=('"9-aa"',))
    with pytest.raises(VersionMismatch):
        await setting.put(b"3", name=b"m", conditions=mismatch)
    assert (await setting.put(b"4", name=b"m")).version == 2
    assert not (await setting.delete()).repeated
    assert not (await setting.delete(b"e")).found
    assert (await setting.put(b"5", name=b"e")).version == 4, "a delete of nothing frees its key"


@pytest.mark.parametrize("restarted", ["", "with its state", "without"])
async def test_a_repeat_of_a_write_whose_answer_was_lost_finds_it(setting, restarted):
    setting.database.lost = LOST
    with pytest.raises(OutcomeUnknown):
        await setting.put()
    await setting.others_write(5)
    if restarted:
        setting.restart(forgetful=restarted == "without")
    for _ in range(2):
        again = await setting.put()
        assert (again.version, again.etag, again.created, again.repeated) == (1, '"1-aa"', True, True)
    assert setting.stored == (6, b'"other 4"')


@pytest.mark.parametrize("before", [0, 1, 30])
@pytest.mark.parametrize("between", [0, 1, 7])
async def test_a_write_that_never_arrived_is_applied_by_its_repeat(setting, before, between):
    await setting.others_write(before)
    await lose_before(setting, setting.put)
    await setting.others_write(between)
    again = await setting.put()
    assert (again.version, again.repeated) == (before + between + 1, False)
    assert setting.stored == (before + between + 1, b"1")
    assert (await setting.put()).repeated
    assert len(set(setting.database.write_ids)) == 1


async def lose_before(setting: Setting, call: Callable) -> None:
    """A request whose write is lost on its way, so that nobody knows."""
    put_one = setting.database.put_one

    async def lost(*arguments, **options):
        raise LOST

    setting.database.put_one = lost  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        await call()
    setting.database.put_one = put_one  # type: ignore[method-assign]


async def test_when_the_history_has_passed_over_it_nobody_knows(setting):
    await setting.others_write(3)
    setting.database.lost = LOST
    with pytest.raises(OutcomeUnknown):
        await setting.put()
    await setting.others_write(30)
    for _ in range(2):
        await refused(Conflict, "idempotency_key_forgotten", setting.put())
    assert setting.stored == (34, b'"other 29"')
    assert not (await setting.put(name=b"another")).repeated


async def test_a_write_that_may_have_been_deleted_with_its_history_is_not_applied_again(setting):
    setting.database.lost = LOST
    with pytest.raises(OutcomeUnknown):
        await setting.put()
    # Deleted, its tombstone removed, and made anew.
    setting.database.history.clear()
    setting.database.documents.clear()
    setting.clock.now_ms += int(IDEMPOTENCY_SURE_S * 1000)
    await refused(Conflict, "idempotency_key_forgotten", setting.put())
    await setting.others_write(1)
    await refused(Conflict, "idempotency_key_forgotten", setting.put())


async def test_a_clock_that_went_back_proves_nothing(setting):
    await lose_before(setting, setting.put)
    setting.clock.now_ms -= 1
    await refused(Conflict, "idempotency_key_forgotten", setting.put())


async def test_a_vanished_entity_proves_nothing(setting):
    await setting.others_write(3)
    await lose_before(setting, setting.put)
    setting.database.history.clear()
    setting.database.documents.clear()
    await refused(Conflict, "idempotency_key_forgotten", setting.put())


async def test_a_repeat_keeps_the_conditions_of_the_request(setting):
    await setting.others_write(1)
    conditions = Conditions(if_match=('"1-aa"',))
    await lose_before(setting, lambda: setting.put(conditions=conditions))
    await setting.others_write(1)
    with pytest.raises(VersionMismatch) as caught:
        await setting.put(conditions=conditions)
    assert caught.value.etag == '"2-aa"'
    # It stays open: its first attempt may land yet where it still fits.
    await refused(Unprocessable, "idempotency_key_reused", setting.put(b"2"))


async def test_a_late_first_attempt_is_not_applied_twice(setting):
    """The first put lands between the look at the history and the second, and others write past it."""
    await setting.others_write(1)
    await lose_before(setting, setting.put)
    database, put_one = setting.database, setting.database.put_one
    use = setting.used.find(setting.named().name, setting.clock.now_ms)
    late = [use.write_id]

    async def overtaken(*arguments, **options):
        if late:
            database._write("s", "k", b"1", late.pop(), None, None)
            for _ in range(20):
                database._write("s", "k", b'"other"', None, None, None)
        return await put_one(*arguments, **options)

    database.put_one = overtaken  # type: ignore[method-assign]
    await refused(Conflict, "idempotency_key_forgotten", setting.put())
    assert setting.stored == (22, b'"other"')


async def test_who_keeps_being_overtaken_gives_up_unapplied(setting):
    await lose_before(setting, setting.put)
    put_one = setting.database.put_one

    async def overtaken(*arguments, **options):
        setting.database._write("s", "k", b"0", None, None, None)
        return await put_one(*arguments, **options)

    setting.database.put_one = overtaken  # type: ignore[method-assign]
    await refused(Unavailable, "contended", setting.put())


async def test_a_repeat_beside_its_first_request_waits_for_it(setting):
    gate = asyncio.Event()
    put_one = setting.database.put_one
    calls = []

    async def slow(*arguments, **options):
        calls.append(1)
        await gate.wait()
        return await put_one(*arguments, **options)

    setting.database.put_one = slow  # type: ignore[method-assign]
    requests = [asyncio.create_task(setting.put()) for _ in range(5)]
    for _ in range(5):
        await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*requests)
    assert [result.repeated for result in results] == [False, True, True, True, True]
    assert {result.version for result in results} == {1} and len(calls) == 1


async def test_a_repeat_of_a_request_that_was_cancelled_finds_out(setting):
    started = asyncio.Event()
    put_one = setting.database.put_one

    async def hung(*arguments, **options):
        await put_one(*arguments, **options)
        started.set()
        await asyncio.Event().wait()

    setting.database.put_one = hung  # type: ignore[method-assign]
    request = asyncio.create_task(setting.put())
    await started.wait()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    setting.database.put_one = put_one  # type: ignore[method-assign]
    again = await setting.put()
    assert (again.version, again.repeated) == (1, True)


async def test_a_repeat_that_waits_too_long_is_told_so(setting, monkeypatch):
    monkeypatch.setattr("deltadatabase.gateway.idempotency.REQUEST_TIMEOUT_MS", 1)
    never = asyncio.Event()

    async def hung(*arguments, **options):
        await never.wait()

    setting.database.put_one = hung  # type: ignore[method-assign]
    request = asyncio.create_task(setting.put())
    await asyncio.sleep(0)
    await refused(Conflict, "idempotency_key_in_use", setting.put())
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)


async def test_without_a_place_to_note_it_a_write_is_not_sent(setting):
    setting.used.close()
    await refused(Unavailable, "state_unavailable", setting.put())
    assert setting.stored is None


# -- several documents in one request


async def put_all(setting: Setting, documents: dict[str, bytes]) -> dict[str, Result]:
    named = [setting.named(document, key=key) for key, document in documents.items()]
    return await setting.writes.put_all(named, documents)


DOCUMENTS = {"a": b"1", "b": b"2", "c": b"3"}


async def test_several_documents_are_repeated_as_one(setting):
    assert {key: result.version for key, result in (await put_all(setting, DOCUMENTS)).items()} == {
        "a": 1,
        "b": 1,
        "c": 1,
    }
    again = await put_all(setting, DOCUMENTS)
    assert all(result.repeated and result.version == 1 for result in again.values())
    assert list(again) == list(DOCUMENTS)
    await refused(Unprocessable, "idempotency_key_reused", put_all(setting, {**DOCUMENTS, "b": b"0"}))


async def test_a_repeat_writes_only_what_is_missing(setting):
    await put_all(setting, {"b": b"2"})
    results = await put_all(setting, DOCUMENTS)
    assert {key: result.repeated for key, result in results.items()} == {"a": False, "b": True, "c": False}
    assert {key for _, key in setting.database.documents} == {"a", "b", "c"}


async def test_a_repeat_after_a_write_in_part_completes_it(setting):
    put = setting.database.put

    async def partly(schema_id, documents, *, write_ids=None, request_id=""):
        assert write_ids is not None
        setting.database._write(schema_id, "a", documents["a"], write_ids["a"], None, None)
        outcomes = {"a": 1, "b": "store_full", "c": "outcome_unknown"}
        raise PartlyApplied("in part", outcomes=outcomes, cause=LOST)

    setting.database.put = partly  # type: ignore[method-assign]
    with pytest.raises(PartlyApplied):
        await put_all(setting, DOCUMENTS)
    setting.database.put = put  # type: ignore[method-assign]
    results = await put_all(setting, DOCUMENTS)
    assert {key: result.repeated for key, result in results.items()} == {"a": True, "b": False, "c": False}
    assert {result.version for result in results.values()} == {1}
    assert all(result.repeated for result in (await put_all(setting, DOCUMENTS)).values())


async def test_what_is_missing_is_told_key_by_key(setting):
    await put_all(setting, {"b": b"2"})
    setting.database.failure = StoreFull("full")
    with pytest.raises(PartlyApplied) as caught:
        await put_all(setting, DOCUMENTS)
    assert caught.value.outcomes == {"a": "store_full", "b": 1, "c": "store_full"}
    assert isinstance(caught.value.cause, StoreFull)


async def test_refused_documents_free_their_keys(setting):
    with pytest.raises(Invalid):
        await put_all(setting, {**DOCUMENTS, "b": b"nonsense"})
    assert len(await put_all(setting, {**DOCUMENTS, "a": b"0"})) == 3


async def test_a_patch_of_nothing_frees_its_key(setting):
    write = keyed_write(ALICE, b"n", "PATCH", "s", "k", b"{}")

    async def send(_write_id, _when):
        raise NotFound("there is no such entity")

    with pytest.raises(NotFound):
        await setting.writes.write(write, send)
    assert (await setting.put()).created


async def test_a_lost_create_is_made_up_for_where_much_was_written_and_deleted_before(setting):
    for number in range(setting.database.remembered):
        await setting.put(name=b"put %d" % number)
        await setting.delete(b"delete %d" % number)
    once = Conditions(if_none_match=ANY)

    async def nothing_comes_of_it(_write_id, _when):
        raise LOST

    with pytest.raises(OutcomeUnknown):
        await setting.writes.write(setting.named(b"2", conditions=once), nothing_comes_of_it)
    result = await setting.put(b"2", conditions=once)
    assert result.created and not result.repeated
