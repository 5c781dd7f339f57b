from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase import limits
from deltadatabase.errors import Invalid, NotFound
from deltadatabase.model import Command, DatabaseInfo, ListedEntity, Op, ProbeCheck, Result, StoreReport
from deltadatabase.rpc import convert, status
from deltadatabase.rpc.pb.proc_worker_pb2 import Reply, Request
from deltadatabase.rpc.pb.types_pb2 import Op as PbOp
from deltadatabase.rpc.pb.types_pb2 import StoreReport as PbStoreReport

WRITE_ID = bytes(range(16))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
etags = st.none() | st.lists(texts, max_size=3).map(tuple)
u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)

commands = st.builds(
    Command,
    op=st.sampled_from(Op),
    schema_id=texts,
    key=texts,
    shard=st.integers(-1, 65_535),
    term=u64,
    write_id=st.binary(min_size=16, max_size=16),
    document=st.binary(max_size=50),
    if_match=etags,
    if_none_match=etags,
    revision=u64,
    schema_hash=texts,
    validated=st.booleans(),
    number=u64,
    prefix=texts,
    terms=st.lists(u64, max_size=3).map(tuple),
    deleted=st.booleans(),
    document_bytes_max=u64,
    timeout_ms=u32,
    request_id=texts,
    traceparent=texts,
)
results = st.builds(
    Result,
    version=u64,
    etag=texts,
    updated_ms=u64,
    document=st.binary(max_size=50),
    created=st.booleans(),
    not_modified=st.booleans(),
    found=st.booleans(),
    schema_hash=texts,
    names=st.lists(texts, max_size=3).map(tuple),
    number=u64,
    key_id=st.binary(max_size=8),
    repeated=st.booleans(),
    entities=st.lists(st.builds(ListedEntity, texts, u64, u64, st.booleans()), max_size=2).map(tuple),
    next=texts,
    queue_us=u32,
    validate_us=u32,
    seal_us=u32,
    store_us=u32,
)


OF_A_READ = (
    "schema_id",
    "key",
    "shard",
    "term",
    "if_none_match",
    "deleted",
    "timeout_ms",
    "request_id",
    "traceparent",
)


def test_operations_have_the_numbers_of_the_protocol() -> None:
    assert {f"OP_{op.name}": int(op) for op in Op} | {"OP_UNSPECIFIED": 0} == dict(PbOp.items())


@given(commands, u64)
def test_commands_survive_the_wire(command: Command, request_id: int) -> None:
    request = Request.FromString(convert.encode_request(request_id, command).SerializeToString())
    assert request.id == request_id
    if command.op is Op.GET:
        asked = {name: getattr(command, name) for name in OF_A_READ}
        command = Command(op=Op.GET, **asked)
    assert convert.decode_request(request) == command


@given(results, u64)
def test_results_survive_the_wire(result: Result, request_id: int) -> None:
    reply = Reply.FromString(convert.encode_reply(request_id, result).SerializeToString())
    assert reply.id == request_id
    assert convert.decode_reply(reply) == result


@given(results)
def test_what_a_read_returns_survives_the_shorter_way(result: Result) -> None:
    reply = Reply.FromString(convert.encode_reply(1, result).SerializeToString())
    read = convert.decode_reply(reply, Op.GET)
    for name in ("version", "etag", "updated_ms", "document", "not_modified", "queue_us", "store_us"):
        assert getattr(read, name) == getattr(result, name)


def test_defaults_cost_nothing_on_the_wire() -> None:
    bare = convert.encode_request(1, Command(op=Op.GET, shard=0, timeout_ms=0))
    assert bare.ByteSize() == 4
    assert convert.encode_reply(1, Result()).ByteSize() == 2


def test_a_read_needs_no_write_id() -> None:
    command = Command(op=Op.GET, schema_id="s", key="k")
    assert convert.decode_request(convert.encode_request(1, command)) == command


@pytest.mark.parametrize(
    "command",
    [
        Command(op=Op.GET, key="\ud800"),
        Command(op=Op.GET, if_match=("\udfff",)),
        Command(op=Op.GET, schema_hash="\udfff"),
        Command(op=Op.GET, term=-1),
        Command(op=Op.GET, timeout_ms=2**32),
    ],
)
def test_what_cannot_be_sent_is_invalid(command: Command) -> None:
    with pytest.raises(Invalid):
        convert.encode_request(1, command)


@pytest.mark.parametrize("op", [0, 9, 99, -1])
def test_an_unknown_operation_is_invalid(op: int) -> None:
    with pytest.raises(Invalid) as caught:
        convert.decode_request(Request(id=1, op=op))  # type: ignore[arg-type]
    assert caught.value.code == "unknown_op"


@pytest.mark.parametrize("op", [Op.PUT, Op.PATCH, Op.DELETE, Op.RESOLVE])
@pytest.mark.parametrize("write_id", [b"", WRITE_ID[:15], WRITE_ID + b"x"])
def test_a_write_needs_a_whole_write_id(op: Op, write_id: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        convert.decode_request(convert.encode_request(1, Command(op=op, write_id=write_id)))
    assert caught.value.code == "bad_write_id"


def test_a_reply_with_an_error_raises_it() -> None:
    reply = Reply(id=1, error=status.encode_error(NotFound("no such entity")))
    with pytest.raises(NotFound, match="no such entity"):
        convert.decode_reply(reply)


def test_store_reports_survive_the_wire() -> None:
    report = StoreReport(
        backend="s3",
        checks=(ProbeCheck("create twice", True, "refused"), ProbeCheck("racers", False, "two won")),
        database=DatabaseInfo(
            database_id="ab" * 16,
            format=1,
            shards=1024,
            highest_epoch=2**40,
            keys={"aa": "bb", "cc": "dd"},
        ),
        templates=3,
    )
    encoded = convert.encode_store_report(report).SerializeToString()
    assert convert.decode_store_report(PbStoreReport.FromString(encoded)) == report


@given(st.dictionaries(texts, texts, max_size=5))
def test_a_small_snapshot_of_templates_is_one_message(templates: dict[str, str]) -> None:
    (part,) = convert.encode_templates(templates)
    assert dict(part.etags) == templates
    assert not part.more


def test_a_large_snapshot_of_templates_comes_in_messages_that_the_control_plane_takes() -> None:
    templates = {f"{number:0100}": "e" * 64 for number in range(50_000)}
    parts = list(convert.encode_templates(templates))
    assert len(parts) > 1
    assert all(part.more for part in parts[:-1])
    assert not parts[-1].more
    assert max(part.ByteSize() for part in parts) < limits.CONTROL_MESSAGE_BYTES_MIN // 2
    together: dict[str, str] = {}
    for part in parts:
        together |= part.etags
    assert together == templates
