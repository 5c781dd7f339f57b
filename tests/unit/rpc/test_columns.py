from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase.errors import Invalid
from deltadatabase.model import Command, Op, Result
from deltadatabase.rpc import columns, convert
from deltadatabase.rpc.pb.proc_worker_pb2 import Documents, Reads

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)

plain_reads = st.builds(
    Command,
    op=st.just(Op.GET),
    schema_id=texts,
    key=texts,
    shard=st.integers(0, 65_535),
    term=u64,
    timeout_ms=u32,
    request_id=texts,
)
documents = st.builds(Result, version=u64, etag=texts, updated_ms=u64, document=st.binary(max_size=50))

PLAIN = Command(op=Op.GET, schema_id="notes", key="k", shard=3, term=7, request_id="r")


@given(st.lists(plain_reads, min_size=1, max_size=5))
def test_plain_reads_arrive_as_if_each_had_its_message(commands: list[Command]) -> None:
    rows = [columns.read_row(number, command) for number, command in enumerate(commands, start=1)]
    sent = columns.pack_reads([row for row in rows if row is not None]).SerializeToString()
    assert len(sent) <= sum(columns.read_bytes(row) for row in rows if row is not None)
    arrived = columns.unpack_reads(Reads.FromString(sent))
    assert [row[0] for row in arrived] == list(range(1, len(commands) + 1))
    for command, row in zip(commands, arrived, strict=True):
        assert columns.read_command(row) == command
        assert convert.decode_request(convert.encode_request(1, command)) == command


@pytest.mark.parametrize(
    "fields",
    [
        {"op": Op.PUT},
        {"op": Op.KEY_OF},
        {"if_none_match": ()},
        {"deleted": True},
        {"traceparent": "00-1-2-01"},
        {"shard": -1},
        {"shard": 2**32},
        {"term": 2**64},
        {"timeout_ms": 2**32},
        {"key": "\ud800"},
        {"schema_id": "\ud800"},
        {"request_id": "\ud800"},
    ],
)
def test_anything_else_is_no_row(fields: dict[str, object]) -> None:
    plain = {"op": Op.GET, "schema_id": "notes", "key": "k", "shard": 3}
    assert columns.read_row(1, Command(**{**plain, **fields})) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("column", [1, 2, 6])
def test_text_that_is_not_utf8_is_refused_alone(column: int) -> None:
    row = list(columns.read_row(1, PLAIN) or ())
    row[column] = b"\xff"
    good = columns.read_row(2, PLAIN)
    assert good is not None
    bad, fine = columns.unpack_reads(columns.pack_reads([tuple(row), good]))  # type: ignore[list-item]
    with pytest.raises(Invalid):
        columns.read_command(bad)
    assert columns.read_command(fine) == PLAIN


def test_columns_of_different_lengths_are_no_rows() -> None:
    with pytest.raises(DecodeError):
        columns.unpack_reads(Reads(id=[1, 2], schema_id=[b"s"], key=[b"k"]))
    with pytest.raises(DecodeError):
        columns.unpack_documents(Documents(id=[1, 2], version=[1, 1], etag=['"1"'], updated_ms=[1, 1]))


@given(st.lists(documents, min_size=1, max_size=5))
def test_documents_arrive_as_they_were(results: list[Result]) -> None:
    rows = [columns.document_row(number, result) for number, result in enumerate(results, start=1)]
    sent = columns.pack_documents([row for row in rows if row is not None]).SerializeToString()
    assert len(sent) <= sum(columns.document_bytes(row) for row in rows if row is not None)
    assert columns.unpack_documents(Documents.FromString(sent)) == list(enumerate(results, start=1))


@pytest.mark.parametrize(
    "result",
    [Result(not_modified=True), Result(queue_us=1), Result(store_us=1)],
    ids=["not modified", "queued", "from the store"],
)
def test_what_says_more_is_no_row(result: Result) -> None:
    assert columns.document_row(1, result) is None
