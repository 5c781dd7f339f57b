"""``MainWorker.Process``: gRPC clients have the documents and rights that REST clients have."""

from __future__ import annotations

from collections.abc import Iterator
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
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder: Path = tmp_path_factory.mktemp("grpc")
    rest, control = free_port(), free_port()
    url = f"http://127.0.0.1:{rest}"
    with programs(folder) as started:
        main = started.start(
            "main-worker",
            f"-rest-addr=127.0.0.1:{rest}",
            f"-grpc-addr=127.0.0.1:{control}",
            "-shared-fs=db",
            environ={"ADMIN_KEY": ADMIN_KEY},
        )
        started.start("proc-worker", f"-main-addr=127.0.0.1:{control}", "-worker-id=p", "-shared-fs=db")
        wait_until_ready(url, main)
        yield url, f"127.0.0.1:{control}"


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
