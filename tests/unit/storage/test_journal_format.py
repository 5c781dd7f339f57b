"""A journal's bytes: what was written is read, a torn end is left out, damage before it is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.errors import Corrupt
from deltadatabase.storage.batch import digest
from deltadatabase.storage.journal_format import Change, frame, parse

DATA = st.binary(max_size=50)
CHANGES = st.builds(
    lambda name, before, data: Change(
        f"files/s/{name}",
        None if before is None else digest(before),
        None if data is None else digest(data),
        data,
    ),
    st.text(max_size=20).filter(lambda text: text.isprintable()),
    st.none() | DATA,
    st.none() | DATA,
)
BATCHES = st.lists(st.lists(CHANGES, min_size=1, max_size=3), min_size=1, max_size=4)


def segment(batches: list[list[Change]], number: int = 7) -> list[bytes]:
    return [frame(batch, segment=number, batch=each) for each, batch in enumerate(batches, 1)]


@given(BATCHES)
def test_what_was_written_is_read(batches: list[list[Change]]) -> None:
    data = b"".join(segment(batches))
    assert list(parse(data, segment=7)) == [change for batch in batches for change in batch]


@given(BATCHES, st.data())
def test_a_torn_end_is_left_out(batches: list[list[Change]], data: st.DataObject) -> None:
    *whole, last = segment(batches)
    cut = data.draw(st.integers(0, len(last) - 1))
    filler = data.draw(st.sampled_from([b"", bytes(len(last) - cut)]))
    found = parse(b"".join(whole) + last[:cut] + filler, segment=7)
    if last[:cut] + filler != last:
        assert list(found) == [change for batch in batches[:-1] for change in batch]


@given(BATCHES.filter(lambda batches: len(batches) > 1), st.data())
def test_damage_before_the_end_is_no_torn_end(batches: list[list[Change]], data: st.DataObject) -> None:
    written = b"".join(segment(batches))
    last = len(segment(batches)[-1])
    position = data.draw(st.integers(0, len(written) - last - 1))
    flipped = bytearray(written)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Corrupt):
        parse(bytes(flipped), segment=7)


def test_another_segments_bytes_are_not_taken() -> None:
    change = Change("files/s/a", None, digest(b"x"), b"x")
    assert list(parse(frame([change], segment=7, batch=1), segment=8)) == []
    assert list(parse(frame([change], segment=7, batch=2), segment=7)) == []
