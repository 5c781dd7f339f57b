"""What a write does to an entity."""

import pytest
from msgspec.structs import replace

from deltadatabase.errors import Conflict, NotFound, NotOwner, Unprocessable, VersionMismatch
from deltadatabase.limits import MERGED_WRITES_MAX, RECENT_WRITES_MAX
from deltadatabase.model import Command, Header, Op, RecentWrite
from deltadatabase.worker.engine import (
    Change,
    Plan,
    Unchanged,
    Write,
    applied_version,
    decide,
    etag_of,
    live_etag,
    oldest_known,
)


def write_id(number: int, rest: int = 0) -> bytes:
    return number.to_bytes(8, "big") + rest.to_bytes(8, "big")


def plan(
    header: Header | None,
    document: bytes,
    commands: list[Command],
    now_ms: int,
    change: Change | None = None,
) -> Plan:
    made = Plan(header, document, count=len(commands), now_ms=now_ms)
    for command in commands:
        made.add(command, change)
    return made


def put(number: int = 1, *, term: int = 5, **more: object) -> Command:
    return Command(op=Op.PUT, schema_id="s", key="k", term=term, write_id=write_id(number), **more)  # type: ignore[arg-type]


def delete(number: int = 1, *, term: int = 5) -> Command:
    return Command(op=Op.DELETE, schema_id="s", key="k", term=term, write_id=write_id(number))


def after(header: Header | None, command: Command, now_ms: int = 1000) -> Header:
    decision = decide(header, command, now_ms)
    assert isinstance(decision, Write)
    return decision.header


def test_first_put_makes_version_one() -> None:
    decision = decide(None, put(), 1000)
    assert isinstance(decision, Write)
    assert decision.created
    assert (decision.header.version, decision.header.term, decision.header.updated_ms) == (1, 5, 1000)


def test_versions_rise_without_gaps_through_a_tombstone() -> None:
    first = after(None, put(1))
    gone = after(first, delete(2))
    assert gone.tombstone and gone.version == 2
    again = decide(gone, put(3), 1000)
    assert isinstance(again, Write) and again.created and again.header.version == 3
    assert not again.header.tombstone


def test_deleting_nothing_stores_nothing() -> None:
    decision = decide(None, delete(), 1000)
    assert isinstance(decision, Unchanged) and not decision.found
    gone = after(after(None, put(1)), delete(2))
    assert isinstance(decide(gone, delete(3), 1000), Unchanged)


def test_a_repeated_write_is_applied_once() -> None:
    first = after(None, put(1))
    second = after(first, put(2))
    repeat = decide(second, put(1), 1000)
    assert repeat == Unchanged(1, etag_of(1, write_id(1)), 1000, True, repeated=True, created=True)


def test_recent_writes_are_inherited_newest_first_and_bounded() -> None:
    header: Header | None = None
    for number in range(1, 30):
        header = after(header, put(number))
    assert header is not None
    assert next(iter(header.recent)) == RecentWrite(28, write_id(28))
    assert len(header.recent) == RECENT_WRITES_MAX
    assert applied_version(header, write_id(29 - RECENT_WRITES_MAX)) == 29 - RECENT_WRITES_MAX
    assert applied_version(header, write_id(1)) == 0
    assert applied_version(None, write_id(1)) == 0
    assert applied_version(header, b"") == 0


def test_a_newer_term_is_never_overwritten() -> None:
    newer = after(None, put(1, term=9))
    for command in (put(2, term=8), delete(2, term=8)):
        with pytest.raises(NotOwner) as caught:
            decide(newer, command, 1000)
        assert caught.value.term == 9


def test_time_never_goes_back() -> None:
    first = after(None, put(1), now_ms=5000)
    assert after(first, put(2), now_ms=1000).updated_ms == 5000


def test_conditions() -> None:
    first = after(None, put(1))
    etag = live_etag(first)
    assert isinstance(decide(first, put(2, if_match=(etag,)), 1), Write)
    assert isinstance(decide(first, put(2, if_match=("*",)), 1), Write)
    assert isinstance(decide(None, put(2, if_none_match=("*",)), 1), Write)
    refused = [
        (first, put(2, if_match=('"other"',)), etag),
        (None, put(2, if_match=("*",)), None),
        (first, put(2, if_none_match=("*",)), etag),
        (first, put(2, if_none_match=(etag,)), etag),
        (after(first, delete(2)), put(3, if_match=("*",)), None),
    ]
    for header, command, current in refused:
        with pytest.raises(VersionMismatch) as caught:
            decide(header, command, 1)
        assert caught.value.etag == current


def test_etags_differ_when_versions_begin_again() -> None:
    assert etag_of(1, b"\x01" * 16) != etag_of(1, b"\x02" * 16)
    assert etag_of(1, b"\x01" * 16) == '"1-01010101"'


def test_a_plan_is_what_its_writes_come_to_one_by_one() -> None:
    commands = [put(1, document=b"1"), delete(2), put(3, document=b"3"), put(4, document=b"4")]
    made = plan(None, b"", commands, 1000)
    header = None
    for command, outcome in zip(commands, made.outcomes, strict=True):
        assert isinstance(outcome, Write)
        assert outcome == decide(header, command, 1000)
        header = outcome.header
    assert (made.header, made.document) == (header, b"4")
    assert plan(None, b"", [put(1, document=b"1"), delete(2)], 1000).document == b""


def test_a_plan_remembers_every_write_in_it_and_the_next_write_forgets() -> None:
    before = after(after(None, put(1)), put(2))
    commands = [put(number) for number in range(3, 3 + MERGED_WRITES_MAX)]
    header = plan(before, b"", commands, 1000).header
    assert header is not None
    for version, command in enumerate(commands, 3):
        assert applied_version(header, command.write_id) == version
    assert len(header.recent) == MERGED_WRITES_MAX - 1
    assert len(after(header, put(99)).recent) == RECENT_WRITES_MAX
    few = plan(before, b"", commands[:2], 1000).header
    assert few is not None and [write.version for write in few.recent] == [3, 2, 1]


def test_a_plan_takes_refusals_and_repeats_in_its_stride() -> None:
    first = after(None, put(1))
    made = plan(first, b"", [put(1), put(2, if_none_match=("*",)), delete(3), delete(4)], 1000)
    repeat, refused, deleted, nothing = made.outcomes
    assert isinstance(repeat, Unchanged) and repeat.version == 1
    assert isinstance(refused, VersionMismatch) and refused.etag == live_etag(first)
    assert isinstance(deleted, Write) and deleted.header == made.header
    assert isinstance(nothing, Unchanged) and not nothing.found
    assert plan(first, b"", [put(1)], 1000).header is None
    with pytest.raises(NotOwner):
        plan(after(None, put(1, term=9)), b"", [put(2, term=8)], 1000)


# Sealing anew

KEY, OTHER = b"key-0001", b"key-0002"


def reseal(term: int = 5) -> Command:
    return Command(op=Op.RESEAL, schema_id="s", key="k", term=term, document=KEY)


def test_sealing_anew_keeps_all_that_clients_see() -> None:
    before = replace(after(after(None, put(1)), put(2)), key_id=OTHER)
    made = plan(before, b"old", [reseal(term=7)], 99_000)
    assert made.header == replace(before, term=7, key_id=b"")
    assert made.document == b"old"


def test_a_tombstone_is_sealed_anew_as_one() -> None:
    grave = replace(after(after(None, put(1)), delete(2)), key_id=OTHER)
    made = plan(grave, b"", [reseal()], 99_000)
    assert made.header is not None and made.header.tombstone and made.document == b""


def test_nothing_is_sealed_anew_without_need() -> None:
    there = replace(after(None, put(1)), key_id=KEY)
    assert plan(there, b"doc", [reseal()], 1000).header is None
    assert plan(None, b"", [reseal()], 1000).header is None
    # The put before it seals with the primary key anyway.
    made = plan(replace(there, key_id=OTHER), b"doc", [put(2, document=b"2"), reseal()], 1000)
    assert made.document == b"2" and made.header is not None and made.header.version == 2


def test_sealing_anew_comes_before_the_writes_that_follow_it() -> None:
    there = replace(after(None, put(1)), key_id=OTHER)
    made = plan(there, b"1", [reseal(), put(2, document=b"2"), reseal()], 1000)
    assert made.document == b"2" and made.header is not None
    assert made.header.version == 2 and next(iter(made.header.recent)).write_id == there.write_id


def test_a_newer_owners_entity_is_not_sealed_anew() -> None:
    with pytest.raises(NotOwner):
        plan(replace(after(None, put(1, term=9)), key_id=OTHER), b"", [reseal(term=8)], 1000)


# Patches


def patch(number: int = 1, text: bytes = b"+", **more: object) -> Command:
    return Command(
        op=Op.PATCH, schema_id="s", key="k", term=5, write_id=write_id(number), document=text, **more
    )  # type: ignore[arg-type]


def append(document: bytes) -> bytes:
    if document == b"full":
        raise Conflict("no room", code="patch_conflict")
    return document + b"+"


def test_a_patch_is_made_of_what_the_write_before_it_left() -> None:
    commands = [put(1, document=b"a"), patch(2), put(3, document=b"b"), patch(4), patch(5)]
    made = plan(None, b"", commands, 1000, append)
    assert [outcome.document for outcome in made.outcomes if isinstance(outcome, Write)] == [
        b"a", b"a+", b"b", b"b+", b"b++",
    ]  # fmt: skip
    assert made.document == b"b++" and made.header is not None and made.header.version == 5


def test_a_patch_needs_an_entity() -> None:
    first = after(None, put(1))
    gone = after(first, delete(2))
    for header in (None, gone):
        with pytest.raises(NotFound) as caught:
            decide(header, patch(3), 1000, change=append)
        assert caught.value.code == "entity_not_found"
        with pytest.raises(VersionMismatch):
            decide(header, patch(3, if_match=("*",)), 1000, change=append)
    made = plan(first, b"a", [delete(2), patch(3)], 1000, append)
    assert isinstance(made.outcomes[1], NotFound)


def test_a_refused_patch_changes_nothing_for_those_behind_it() -> None:
    first = after(None, put(1))
    made = plan(
        first, b"full", [patch(2), patch(3, if_match=('"9-x"',)), put(4, document=b"a"), patch(5)], 1, append
    )
    refused, mismatch, *_ = made.outcomes
    assert isinstance(refused, Conflict) and isinstance(mismatch, VersionMismatch)
    assert made.document == b"a+" and made.header is not None and made.header.version == 3


def test_a_repeated_patch_is_what_it_was() -> None:
    first = after(None, put(1))
    second = decide(first, patch(2), 1000, document=b"a", change=append)
    assert isinstance(second, Write)
    repeat = decide(
        second.header, patch(2, if_match=(live_etag(first),)), 1000, document=b"a+", change=append
    )
    assert repeat == Unchanged(2, live_etag(second.header), 1000, True, repeated=True, document=b"a+")
    third = after(second.header, put(3))
    repeat = decide(third, patch(2), 1000, document=b"b", change=append)
    assert isinstance(repeat, Unchanged) and (repeat.version, repeat.document) == (2, b"")


# Idempotent writes


def test_a_repeat_comes_before_its_own_conditions() -> None:
    created = put(1, if_none_match=("*",))
    first = after(None, created)
    repeat = decide(first, created, 2000)
    assert isinstance(repeat, Unchanged) and repeat.repeated and repeat.created
    gone = after(first, delete(2))
    again = decide(gone, delete(2), 2000)
    assert isinstance(again, Unchanged)
    assert (again.found, again.repeated, again.version, again.etag) == (True, True, 2, "")


def test_another_write_under_the_same_key_is_refused() -> None:
    first = after(None, put(1))
    other = replace(put(1), write_id=write_id(1, rest=7))
    for header in (first, after(after(first, put(2)), delete(3))):
        with pytest.raises(Unprocessable) as caught:
            decide(header, other, 1000)
        assert caught.value.code == "idempotency_key_reused"
    # Also when its own conditions fail: what it is refused for does not hang on the present state.
    with pytest.raises(Unprocessable):
        decide(first, replace(other, if_match=('"9-x"',)), 1000)


def test_repeats_within_one_plan_are_recognised() -> None:
    other = replace(put(1, document=b"x"), write_id=write_id(1, rest=7))
    made = plan(
        None, b"", [put(1, document=b"a"), put(1, document=b"a"), other, patch(2), patch(2)], 1000, append
    )
    first, repeat, reused, patched, again = made.outcomes
    assert isinstance(first, Write) and isinstance(patched, Write)
    assert isinstance(repeat, Unchanged) and repeat.repeated and repeat.version == 1
    assert isinstance(reused, Unprocessable)
    assert isinstance(again, Unchanged) and (again.version, again.document) == (2, b"a+")
    assert made.document == b"a+"


def test_a_plan_is_committed_only_as_a_whole_and_in_its_versions() -> None:
    before = after(None, put(1))
    made = plan(before, b"", [put(2), put(3)], 1000)
    assert made.committed(made.header)
    assert made.committed(after(made.header, put(9)))
    assert not made.committed(before)
    # The last of them came again, by another way, and landed alone.
    assert not made.committed(after(before, put(3)))
    assert not made.committed(after(after(before, put(4)), put(3)))


def test_how_far_the_memory_reaches() -> None:
    header = None
    assert oldest_known(header) == 0
    for number in range(1, 30):
        header = after(header, put(number))
        assert oldest_known(header) == max(1, number - RECENT_WRITES_MAX)
