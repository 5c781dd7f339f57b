from __future__ import annotations

from deltadatabase.model import RecentWrite, RecentWrites


def write(number: int) -> RecentWrite:
    return RecentWrite(number, number.to_bytes(16))


def test_recent_writes_are_found_by_their_whole_id_and_by_its_beginning() -> None:
    recent = RecentWrites.of(
        RecentWrite(9, b"idempotent-three"),
        RecentWrite(7, b"idempotent-two--"),
        RecentWrite(2, b"another-write-id"),
    )
    assert [each.version for each in recent] == [9, 7, 2]
    assert len(recent) == 3 and recent.oldest == 2
    assert recent.version_of(b"idempotent-two--") == 7
    assert recent.version_of(b"idempotent-four-") == 0
    assert recent.has_like(b"idempote") and not recent.has_like(b"mpotent-")


def test_no_write_id_is_seen_where_none_begins() -> None:
    # Version 1's bytes and the id after it spell another id across the two.
    recent = RecentWrites.of(RecentWrite(1, bytes(15) + b"x"), RecentWrite(2, b"y" * 16))
    assert recent.version_of(b"\x01" + bytes(15)) == 0
    assert not recent.has_like(b"\x01" + bytes(7))
    assert recent.version_of(bytes(15) + b"x") == 1


def test_a_new_write_pushes_the_oldest_out() -> None:
    recent = RecentWrites()
    assert not list(recent) and recent.oldest == 0
    for version in range(1, 6):
        recent = recent.after(version, version.to_bytes(16), 3)
    assert list(recent) == [write(5), write(4), write(3)]
