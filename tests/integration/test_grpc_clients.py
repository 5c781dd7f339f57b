"""``MainWorker.Process``: gRPC clients have the documents and rights that REST clients have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from support.programs import free_port, programs, wait_until_ready

from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc
from deltadatabase.rpc.pb import types_pb2

pytestmark = pytest.mark.integration
ADMIN_KEY = "an-admin-key-for-tests"


class Client:
    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self._stub = pb_grpc.MainWorkerStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    def __call__(
        self, op: types_pb2.Op, schema_id: str = "notes", key: str = "", **more
    ) -> pb.ProcessResponse:
        request = pb.ProcessRequest(op=op, schema_id=schema_id, key=key, **more)
        return self._stub.Process(request, metadata=self._metadata, timeout=20)

    def refused(self, *arguments, **more) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self(*arguments, **more)
        code = dict(caught.value.trailing_metadata() or ()).get("error-code", "")
        return caught.value.code(), code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grpc")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[tuple[str, str]]:
    rest, control = free_port(), free_port()
    url = f"http://127.0.0.1:{rest}"
    with programs(folder) as started:
        main = started.start(
            "main-worker",
            f"-rest-addr=127.0.0.1:{rest}",
            f"-grpc-addr=127.0.0.1:{control}",
            "-shared-fs=db",
            "-audit-log=audit.jsonl",
            environ={"ADMIN_KEY": ADMIN_KEY},
        )
        started.start(
            "proc-worker",
            f"-main-addr=127.0.0.1:{control}",
            "-worker-id=p",
            "-shared-fs=db",
            "-audit-log=audit.jsonl",
        )
        wait_until_ready(url, main)
        yield url, f"127.0.0.1:{control}"


@pytest.fixture
def events(folder: Path, served: tuple[str, str]) -> Callable[[], list[dict[str, object]]]:
    """The audit events since the test began, or since the last call; without their times."""
    path = folder / "audit.jsonl"
    seen = len(path.read_text().splitlines())

    def news() -> list[dict[str, object]]:
        nonlocal seen
        lines = path.read_text().splitlines()[seen:]
        seen += len(lines)
        return [{name: value for name, value in json.loads(line).items() if name != "time"} for line in lines]

    return news


@pytest.fixture
def channel(served: tuple[str, str]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served[1]) as opened:
        yield opened


def test_documents_and_schemas(channel: grpc.Channel) -> None:
    admin = Client(channel, ADMIN_KEY)
    admin(types_pb2.OP_SCHEMA_PUT, document=b'{"required": ["text"]}')
    assert list(admin(types_pb2.OP_SCHEMA_LIST, schema_id="").names) == ["notes"]
    assert admin(types_pb2.OP_SCHEMA_GET).document == b'{"required": ["text"]}'
    written = admin(types_pb2.OP_PUT, key="a", document=b'{"text":  "x"}')
    assert (written.version, written.created) == (1, True)
    read = admin(types_pb2.OP_GET, key="a")
    assert (read.document, read.etag, read.version) == (b'{"text":  "x"}', written.etag, 1)
    assert admin.refused(types_pb2.OP_PUT, key="a", document=b"{}") == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "schema_violation",
    )
    stale = types_pb2.ETags(etag=['"9-00000000"'])
    assert admin.refused(types_pb2.OP_PUT, key="a", document=b'{"text": 1}', if_match=stale) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "version_mismatch",
    )
    admin(types_pb2.OP_DELETE, key="a")
    assert admin.refused(types_pb2.OP_GET, key="a") == (grpc.StatusCode.NOT_FOUND, "entity_not_found")
    admin(types_pb2.OP_SCHEMA_DELETE)


def test_rights(served: tuple[str, str], channel: grpc.Channel) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    body = {"name": "reader", "permissions": ["read"], "schemas": ["open.*"]}
    secret = httpx.post(f"{served[0]}/api/keys", json=body, headers=headers).json()["secret"]
    reader = Client(channel, secret)
    assert reader.refused(types_pb2.OP_GET, "open.a", "k")[0] is grpc.StatusCode.NOT_FOUND
    admin = Client(channel, ADMIN_KEY)
    for schema_id in ("open.a", "closed.a"):
        admin(types_pb2.OP_SCHEMA_PUT, schema_id, document=b"{}")
    assert list(reader(types_pb2.OP_SCHEMA_LIST, "").names) == ["open.a"]
    for schema_id in ("open.a", "closed.a"):
        admin(types_pb2.OP_SCHEMA_DELETE, schema_id)
    denied = grpc.StatusCode.PERMISSION_DENIED
    assert reader.refused(types_pb2.OP_GET, "closed.a", "k")[0] is denied
    assert reader.refused(types_pb2.OP_PUT, "open.a", "k", document=b"1")[0] is denied
    for token in ("", "wrong", secret + "x"):
        assert Client(channel, token).refused(types_pb2.OP_GET, "open.a", "k")[0] is (
            grpc.StatusCode.UNAUTHENTICATED
        )


def test_what_is_malformed_is_refused(channel: grpc.Channel) -> None:
    admin = Client(channel, ADMIN_KEY)
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for op in (types_pb2.OP_UNSPECIFIED, types_pb2.OP_RESOLVE, types_pb2.OP_RESERVE_EPOCHS, 99):
        assert admin.refused(op, key="a")[0] is invalid
    assert admin.refused(types_pb2.OP_GET, "../x", "a") == (invalid, "invalid_schema_id")
    assert admin.refused(types_pb2.OP_GET, key="") == (invalid, "invalid_key")
    assert admin.refused(types_pb2.OP_PUT, key="a", document=b"{")[0] is invalid
    assert admin.refused(types_pb2.OP_PUT, key="a", document=b"1" * (1 << 20) + b"1") == (
        invalid,
        "too_large",
    )


def test_what_is_audited(served: tuple[str, str], channel: grpc.Channel, events) -> None:
    admin = Client(channel, ADMIN_KEY)
    common = {"address": "127.0.0.1", "route": "MainWorker.Process"}
    admin(types_pb2.OP_SCHEMA_PUT, "audited", document=b"{}")
    admin(types_pb2.OP_PUT, "audited", "k", document=b"1")
    admin(types_pb2.OP_GET, "audited", "k")
    admin.refused(types_pb2.OP_GET, "audited", "absent")
    admin(types_pb2.OP_SCHEMA_DELETE, "audited")
    ok = common | {"outcome": "ok", "principal": "admin", "key_id": "admin", "schema_id": "audited"}
    assert events() == [ok | {"action": action} for action in ("schema_put", "schema_deleted")]
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    body = {"name": "reader", "permissions": ["read"]}
    key = httpx.post(f"{served[0]}/api/keys", json=body, headers=headers).json()
    events()
    Client(channel, key["secret"]).refused(types_pb2.OP_DELETE, "audited", "k")
    Client(channel, "wrong").refused(types_pb2.OP_GET, "../x", "k")
    refused = common | {"action": "request_refused", "outcome": "refused"}
    who = {"principal": "reader", "key_id": key["id"], "schema_id": "audited"}
    assert events() == [
        refused | who | {"method": "DELETE", "code": "denied"},
        refused | {"code": "unauthenticated"},  # Before its message was read, which names the method.
    ]


def test_a_keys_rate_holds_over_both_protocols_and_its_end_too(
    served: tuple[str, str], channel: grpc.Channel
) -> None:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    body = {"name": "slow", "permissions": ["read"], "rate_per_s": 1}
    key = httpx.post(f"{served[0]}/api/keys", json=body, headers=headers).json()
    slow = Client(channel, key["secret"])
    exhausted = (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limited")
    # One call in a second is served, over whichever protocol it comes.
    assert httpx.get(f"{served[0]}/api/me", headers={"authorization": f"Bearer {key['secret']}"}).is_success
    assert exhausted in [slow.refused(types_pb2.OP_GET, "notes", "absent") for _ in range(3)]
    assert httpx.delete(f"{served[0]}/api/keys/{key['id']}", headers=headers).is_success
    assert slow.refused(types_pb2.OP_GET, "notes", "absent")[0] is grpc.StatusCode.UNAUTHENTICATED


def test_a_damaged_entity_is_an_event_of_both_programs(folder: Path, channel: grpc.Channel, events) -> None:
    admin = Client(channel, ADMIN_KEY)
    admin(types_pb2.OP_PUT, "damaged", "secret-name", document=b"1")
    (stored,) = (folder / "db" / "files" / "damaged").glob("*.json.enc")
    (stored.parent / "other.json.enc").write_bytes(stored.read_bytes())
    for _ in range(2):
        assert admin.refused(types_pb2.OP_GET, "damaged", "other")[0] is grpc.StatusCode.DATA_LOSS
    failed = {"action": "integrity_failure", "outcome": "failed", "code": "integrity", "schema_id": "damaged"}
    seen = events()
    by_worker = [event for event in seen if "shard" in event]
    by_main = [event for event in seen if "shard" not in event]
    assert [{**event, "shard": 0} for event in by_worker] == [failed | {"shard": 0}]
    client = {"principal": "admin", "key_id": "admin", "address": "127.0.0.1"}
    assert by_main == [failed | client | {"route": "MainWorker.Process", "method": "GET"}] * 2
    assert "secret-name" not in (folder / "audit.jsonl").read_text()
