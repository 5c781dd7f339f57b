"""What the fuzzers found, each as a test of its own."""

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
from deltadatabase.errors import DeltaError, Invalid, StartupError
from deltadatabase.gateway.admission import Admissions
from deltadatabase.gateway.control import ControlPlane
from deltadatabase.gateway.forwarding import Router
from deltadatabase.gateway.keys import Keys
from deltadatabase.gateway.members import Cluster
from deltadatabase.limits import SHARD_COUNT_MAX
from deltadatabase.model import Command, Header, MemberInfo, MemberState, Op
from deltadatabase.rpc import channels
from deltadatabase.rpc.doorway import Doorway, places_for
from deltadatabase.storage.base import When
from deltadatabase.storage.objects import MemoryObjects
from deltadatabase.storage.paths import entity_path
from deltadatabase.telemetry.audit import Audit
from fuzz.targets.control import Link
from fuzz.targets.stack import ADMIN_KEY, Stack, State, make_node, report


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
        doorway=Doorway(places_for(1 << 20)),
    )
    server = channels.new_server()
    served.serve_on(server)
    port = channels.listen(server, "127.0.0.1:0")
    await server.start()
    async with channels.open_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def test_a_call_that_is_no_message_is_an_invalid_argument(plane):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plane.unary_unary("/deltadatabase.v1.MainWorker/Process", bytes, bytes)(b"\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_join_that_is_no_message_is_an_invalid_argument(plane):
    call = plane.stream_stream("/deltadatabase.v1.MainWorker/Subscribe", bytes, bytes)()
    await call.write(b"\xff")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


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


@pytest.mark.parametrize("schema_id", ["", "..", "a/../b"])
async def test_a_worker_refuses_names_that_are_none(schema_id):
    node = make_node(MemoryObjects())
    with pytest.raises(Invalid):
        await node.execute(Command(op=Op.GET, schema_id=schema_id, key="k", shard=1, term=1))


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
