"""Findings in other people's hands: each test fails until its mistake is gone, and then must lose its mark.

The harnesses step over exactly these; where they do, a comment points here.
"""

from __future__ import annotations

import grpc
import grpc.aio
import msgspec
import pytest
from support.clocks import SeededRandom
from support.fake_store import FakeStore
from support.workers import KEYRING
from unit.gateway.rest_fakes import Client

from deltadatabase.auth.account_file import AccountFile
from deltadatabase.auth.join import JoinPolicy
from deltadatabase.clock import SystemClock
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.errors import DeltaError, Internal, StartupError
from deltadatabase.gateway.admission import Admissions
from deltadatabase.gateway.control import ControlPlane
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.keys import Keys
from deltadatabase.gateway.members import Cluster
from deltadatabase.limits import SHARD_COUNT_MAX
from deltadatabase.model import Command, Header, MemberInfo, MemberState, Op
from deltadatabase.rpc import channels
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc
from deltadatabase.storage.base import When
from deltadatabase.storage.objects import MemoryObjects
from deltadatabase.storage.paths import entity_path
from deltadatabase.telemetry.audit import Audit
from fuzz.targets.control import Link
from fuzz.targets.stack import ADMIN_KEY, Stack, State, make_node, report


@pytest.mark.xfail(
    strict=True,
    raises=UnicodeDecodeError,
    reason="auth/account_file.py: SQLite's text about a damaged file quotes it, which need not be UTF-8; "
    "__init__ and load must take UnicodeDecodeError for damage as they take sqlite3.Error",
)
def test_a_damaged_accounts_file_is_told_in_one_line(tmp_path):
    path = tmp_path / "accounts.db"
    AccountFile(path).close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE keys", b"CREATE\xff\xff\xff\xff\xff\xff keys"))
    with pytest.raises(StartupError):
        AccountFile(path)


@pytest.fixture
async def plane():
    clock = SystemClock()
    cluster = Cluster(
        Router(clock=clock, random=SeededRandom(1)), State(), clock=clock, random=SeededRandom(2)
    )
    served = ControlPlane(
        cluster,
        Admissions(Keys(KEYRING), JoinPolicy(), random=SeededRandom(3), instance_id="main"),
        dial=None,
        process=None,
        clock=clock,
        random=SeededRandom(4),
        audit=Audit(clock),
    )
    server = channels.new_server()
    pb_grpc.add_MainWorkerServicer_to_server(served, server)
    port = channels.listen(server, "127.0.0.1:0")
    await server.start()
    async with channels.open_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


UNDECODABLE = (
    "gateway/control.py: gRPC decodes before our code runs; what is no message ends as UNKNOWN with the name "
    "of a Python class, and each one writes an error to the log, whoever sent it. Take bytes, decode inside, "
    "and abort with INVALID_ARGUMENT, as rpc/exchange.py does"
)


@pytest.mark.xfail(strict=True, reason=UNDECODABLE)
async def test_a_call_that_is_no_message_is_an_invalid_argument(plane):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plane.unary_unary("/deltadatabase.v1.MainWorker/Process", bytes, bytes)(b"\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.xfail(strict=True, reason=UNDECODABLE)
async def test_a_join_that_is_no_message_is_an_invalid_argument(plane):
    call = plane.stream_stream("/deltadatabase.v1.MainWorker/Subscribe", bytes, bytes)()
    await call.write(b"\xff")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.xfail(
    strict=True,
    reason="gateway/members.py (or rpc/convert.py): the number of shards in a worker's report is believed; 0 "
    "makes every later request a ZeroDivisionError, 2**32-1 takes all memory. Refuse what "
    "parse_database refuses",
)
@pytest.mark.parametrize("shards", [0, SHARD_COUNT_MAX + 1])
async def test_a_report_of_impossible_shards_is_refused(shards):
    clock = SystemClock()
    cluster = Cluster(
        Router(clock=clock, random=SeededRandom(1)), State(), clock=clock, random=SeededRandom(2)
    )
    told = report()
    told = msgspec.structs.replace(told, database=msgspec.structs.replace(told.database, shards=shards))
    member = MemberInfo(
        worker_id="one", instance_id="i", state=MemberState.AVAILABLE, key_id="k", last_seen_ms=0, address=""
    )
    try:
        with pytest.raises(DeltaError):
            await cluster.admit(member, told, Link(), watched=False)
    finally:
        await cluster.close()


@pytest.mark.xfail(
    strict=True,
    raises=Internal,
    reason="worker/node.py: names in a command are not checked; the store refuses the path, which is right, "
    "but as a mistake of ours. check_schema_id and check_key would say what is wrong. Only the main worker "
    "can send it",
)
@pytest.mark.parametrize("schema_id", ["", "..", "a/../b"])
async def test_a_worker_refuses_names_that_are_none(schema_id):
    node = make_node(MemoryObjects())
    with pytest.raises(DeltaError) as caught:
        await node.execute(Command(op=Op.GET, schema_id=schema_id, key="k", shard=1, term=1))
    if isinstance(caught.value, Internal):
        raise caught.value


@pytest.mark.xfail(
    strict=True,
    reason="gateway/entity.py: Last-Modified of a time after the year 9999, which a clock gone wild has once "
    "written into a sealed header, is a ValueError and so a 500, for ever. Leave the header out, or bound it",
)
def test_a_document_from_the_far_future_can_be_read(tmp_path):
    stack = Stack(tmp_path)
    header = Header(
        schema_id="notes", key="k", version=1, term=1, updated_ms=2**63, write_id=b"w" * 16, key_id=b""
    )
    sealed = Sealer(KEYRING, SeededRandom(0)).seal(header, b"{}")

    async def read() -> int:
        assert isinstance(stack.store, FakeStore)
        await stack.store.put(entity_path("notes", "k"), sealed, When.ABSENT)
        return (await Client(stack.app)("GET", "/entity/notes?key=k", key=ADMIN_KEY)).status

    try:
        assert stack.loop.run(read()) == 200
    finally:
        stack.close()
