"""Attacks on a running system over raw sockets, gRPC and its files; each must stay refused."""

from __future__ import annotations

import itertools
import json
import secrets

import grpc
import httpx
import pytest
from integration.cluster import (
    ADMIN_KEY,
    MARKER,
    get,
    put,
)

from deltadatabase.crypto.wrap import WrapKey
from deltadatabase.limits import GRPC_MESSAGE_BYTES_MAX_DEFAULT
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc
from deltadatabase.rpc.pb import proc_worker_pb2 as data_pb
from deltadatabase.rpc.pb import types_pb2
from security.attacker import (
    ADMIN,
    ANSWER_S,
    LOCAL,
    code_of,
    heard,
    join_message,
    proof_for,
    raw,
    request,
    serve,
)

pytestmark = pytest.mark.integration

# Requests that are no requests

FRAMINGS = (
    ("Content-Length: -1",),
    ("Content-Length: 5", "Content-Length: 6"),
    ("Content-Length: 99999999999999999999",),
    ("Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked"),
    ("Transfer-Encoding : chunked",),
    (" folded: value",),
    ("X-Nul: a\0b",),
)
TARGETS = (
    "/entity/a%",
    "/entity/a%zz?key=k",
    "/entity/%ff?key=k",
    "/entity/%00?key=k",
    "/entity/..%2f..%2f_state%2fmaster-key?key=k",
    "/entity/a%2fb?key=k",
    "/entity/a?key=%ff",
    "/entity/a?key=%00",
    "/entity/a?key=..%2fb",
    "/entity/a?key=b%5Cc",
    "/entity/a?key=" + "k" * 241,
    "/entity/a?key=b&key=c",
    "/entity/a",
    "/schema/..",
    "/schema/%2e%2e%2fcluster%2fdatabase",
)
BODIES = (
    b"",
    b"{",
    b"[]",
    b"{}",
    b"{} {}",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe",
    b'{"k": NaN}',
    b'{"k": 1e999}',
    b'{"k": 1' + b"0" * 400_000 + b"}",
    b'{"k": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"k": "\xed\xa0\x80"}',
    b'{"k\\u0000": 1}',
    b'{"": 1}',
    b'{"../k": 1}',
    b"[" * 1_000_000,
    b'{"k":' * 130 + b"1" + b"}" * 130,
)
SCHEMAS = (
    b"",
    b"[]",
    b'"string"',
    b'{"type": 5}',
    b'{"$ref": "http://127.0.0.1:1/"}',
    b'{"$ref": "file:///etc/passwd"}',
    b'{"$ref": "#"}',
    b'{"allOf": [{"$ref": "#"}]}',
    b'{"$schema": "http://127.0.0.1:1/"}',
    b'{"pattern": "("}',
    b'{"pattern": "(a{1000}){1000}"}',
    b'{"enum": [' + b"[" * 126 + b"]" * 126 + b", 1e999]}",
    json.dumps(
        {"$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)} | {"d30": {}}}
        | {"$ref": "#/$defs/d0"}
    ).encode(),
)


def test_what_is_no_request_is_refused_and_harms_nobody(started):
    program, port = serve(started)
    url = f"http://127.0.0.1:{port}"
    put(url, "kept", f'"{MARKER}"')
    for lines in FRAMINGS:
        for method, target in (("GET", "/health"), ("PUT", "/entity/a"), ("POST", "/api/login")):
            status = raw(port, request(method, target, LOCAL, *lines) + b"0\r\n\r\n")
            assert status in (0, 400, 413), (lines, method, status)
    for target, method in itertools.product(TARGETS, ("GET", "DELETE")):
        # No route has a slash in a schema id, so there it is a 404.
        status = raw(port, request(method, target, LOCAL))
        assert status == (404 if target.startswith("/schema/") and "2f" in target else 400), (target, method)
    for body in BODIES:
        assert raw(port, request("PUT", "/entity/a", LOCAL, body=body)) == 400, body[:40]
    for body in SCHEMAS:
        assert raw(port, request("PUT", "/schema/a", LOCAL, body=body)) == 400, body[:40]
    many = json.dumps(dict.fromkeys(map(str, range(10_001)), 1)).encode()
    assert raw(port, request("PUT", "/entity/a", LOCAL, body=many)) == 413
    assert httpx.get(f"{url}/api/schemas").json() == ["notes"], "a refused request left something behind"
    assert get(url, "kept").json() == MARKER
    assert program.process.poll() is None


# Dev mode

FOREIGN = (
    ("Host: evil.example",),
    ("Host: localhost.evil.example",),
    ("Host: 127.0.0.1.evil.example",),
    ("Host: evil.example@localhost",),
    ("Host: foo.localhost",),
    ("Host: 0.0.0.0",),
    ("Host: 127.1",),
    ("Host: localhost:1:2",),
    ("Host:",),
    (),
    (LOCAL, "Origin: null"),
    (LOCAL, "Origin: http://evil.example"),
    (LOCAL, "Origin: http://localhost.evil.example"),
    (LOCAL, "Origin: http://localhost@evil.example"),
    (LOCAL, "Origin: file://"),
    (LOCAL, "Origin:"),
    (LOCAL, "Host: evil.example"),
)


def test_dev_mode_answers_no_foreign_page(started):
    _, port = serve(started)
    for lines in FOREIGN:
        for method, target, body in (("PUT", "/entity/a", b'{"k": 1}'), ("GET", "/health", b"")):
            status = raw(port, request(method, target, *lines, body=body))
            assert status in (400, 403), (lines, method, status)
    assert raw(port, request("GET", "http://localhost/health", "Host: evil.example")) == 403
    assert httpx.get(f"http://127.0.0.1:{port}/api/schemas").json() == []


# Rights

READ, WRITE, ADMINISTER = "read", "write", "admin"
CALLS = (
    (READ, "GET", "/entity/notes?key=a", None),
    (READ, "HEAD", "/entity/notes?key=a", None),
    (WRITE, "PUT", "/entity/notes", '{"a": 1}'),
    (WRITE, "DELETE", "/entity/notes?key=b", None),
    (READ, "GET", "/schema/notes", None),
    (WRITE, "PUT", "/schema/notes", "{}"),
    (WRITE, "POST", "/schemas/notes", "{}"),
    (WRITE, "DELETE", "/schema/other", None),
    (ADMINISTER, "GET", "/api/keys", None),
    (ADMINISTER, "POST", "/api/keys", '{"name": "x", "permissions": ["admin"]}'),
    (ADMINISTER, "DELETE", "/api/keys/x", None),
    (ADMINISTER, "GET", "/admin/workers", None),
    (ADMINISTER, "GET", "/admin/store", None),
    (ADMINISTER, "GET", "/admin/log-level", None),
    (ADMINISTER, "PUT", "/admin/log-level", '{"level": "info"}'),
)


def test_a_token_opens_exactly_what_it_is_for(guarded):
    def key(*permissions: str, schemas: list[str] | None = None) -> str:
        body = {"name": "k", "permissions": permissions, "schemas": schemas}
        return str(httpx.post(f"{guarded.url}/api/keys", json=body, headers=ADMIN).json()["secret"])

    def status(method: str, path: str, body: str | None, authorization: str | None) -> int:
        headers = {} if authorization is None else {"Authorization": authorization}
        return httpx.request(method, guarded.url + path, content=body, headers=headers).status_code

    reader, writer, chats = key(READ), key(WRITE), key(READ, WRITE, schemas=["chat.*"])
    session = httpx.post(f"{guarded.url}/api/login", json={"key": reader}).json()["token"]
    digest = httpx.get(f"{guarded.url}/api/keys", headers=ADMIN).json()[0]["key_hash"]
    for name, body in (("entity", f'{{"a": "{MARKER}"}}'), ("schema", "{}")):
        assert httpx.put(f"{guarded.url}/{name}/notes", content=body, headers=ADMIN).status_code == 200
    no_tokens = (None, "", "Bearer", "Bearer wrong", f"Basic {ADMIN_KEY}", ADMIN_KEY, f"Bearer {digest}")
    for right, method, path, body in CALLS:
        for nothing in no_tokens:
            assert status(method, path, body, nothing) == 401, (method, path, nothing)
        for token, rights in ((reader, READ), (session, READ), (writer, WRITE), (chats, "")):
            allowed = status(method, path, body, f"Bearer {token}") not in (401, 403)
            assert allowed == (right == rights), (method, path, rights)
    assert httpx.post(f"{guarded.url}/api/login", json={"key": session}).status_code == 401
    lines = (LOCAL, "Authorization: Bearer wrong", f"Authorization: Bearer {reader}")
    assert raw(guarded.rest_port, request("GET", "/api/me", *lines)) == 400


# gRPC


def test_grpc_calls_need_the_rights_that_rest_needs(guarded):
    unknown = (None, [("authorization", "Bearer wrong")], [("authorization", ADMIN_KEY)])
    body = {"name": "k", "permissions": [READ], "schemas": ["chat.*"]}
    chats = httpx.post(f"{guarded.url}/api/keys", json=body, headers=ADMIN).json()["secret"]
    with grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}") as channel:
        process = pb_grpc.MainWorkerStub(channel).Process
        for op in types_pb2.Op.values():
            asked = pb.ProcessRequest(op=op, schema_id="notes", key="a", document=b"1")
            for metadata in unknown:
                code = code_of(lambda: process(asked, metadata=metadata, timeout=ANSWER_S))  # noqa: B023
                assert code is grpc.StatusCode.UNAUTHENTICATED, (op, metadata)
            if op != types_pb2.OP_SCHEMA_LIST:
                limited = [("authorization", f"Bearer {chats}")]
                code = code_of(lambda: process(asked, metadata=limited, timeout=ANSWER_S))  # noqa: B023
                assert code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT), op


def test_the_data_stream_serves_nobody_without_the_link_key(guarded):
    members = httpx.get(f"{guarded.url}/admin/workers", headers=ADMIN).json()
    hello = data_pb.RequestBatch(hello=data_pb.Hello(nonce_main=b"n" * 32))
    proof = data_pb.RequestBatch(hello=data_pb.Hello(proof=b"p" * 32))
    asked = data_pb.Request(id=1, op=types_pb2.OP_GET, schema_id="notes", key="a", term=1, timeout_ms=1000)
    command = data_pb.RequestBatch(requests=[asked])
    together = data_pb.RequestBatch(hello=hello.hello, requests=[asked])
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(members[0]["tags"]["grpc_addr"], options=options) as channel:
        exchange = channel.stream_stream("/deltadatabase.v1.ProcWorker/Exchange")
        for messages in (
            [command],
            [together],
            [hello, command],
            [hello, proof, command],
            [hello, data_pb.RequestBatch(hello=data_pb.Hello()), command],
        ):
            frames = [message.SerializeToString() for message in messages]
            code = code_of(lambda: list(exchange(iter(frames), timeout=ANSWER_S)))  # noqa: B023
            assert code is grpc.StatusCode.UNAUTHENTICATED, messages
        for frame in (b"", b"\xff" * 500, b"\x0a" * (GRPC_MESSAGE_BYTES_MAX_DEFAULT + 1)):
            code = code_of(lambda: list(exchange(iter([frame]), timeout=ANSWER_S)))  # noqa: B023
            assert code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert httpx.get(f"{guarded.url}/api/schemas", headers=ADMIN).json() == []


def test_a_rogue_is_not_admitted(guarded):
    asked = join_message()
    with grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}") as channel:
        seen: list[bytes] = []

        def remembered(nonce: bytes) -> bytes:
            # Right, but spoilt for this stream: what a listener could replay.
            seen.append(proof_for(asked, nonce))
            return b""

        other_key = WrapKey.generate().public_bytes
        for join, prove in (
            (None, lambda _: b""),
            (asked, remembered),
            (asked, lambda _: seen[0]),
            (asked, lambda _: secrets.token_bytes(32)),
            (join_message(public_key=other_key), lambda nonce: proof_for(asked, nonce)),
            (join_message(worker_id="one"), lambda nonce: proof_for(asked, nonce)),
            (join_message(grpc_addr="127.0.0.1:10"), lambda nonce: proof_for(asked, nonce)),
            (join_message(worker_id="x" * 254), lambda nonce: proof_for(asked, nonce)),
            (join_message(worker_id="a\nb"), lambda nonce: proof_for(asked, nonce)),
            (join_message(backend="other"), lambda nonce: proof_for(asked, nonce)),
            (join_message(nonce=b"short"), lambda nonce: proof_for(asked, nonce)),
        ):
            last = heard(channel, join, prove)[-1]
            assert last.refused.code in ("unauthenticated", "invalid"), last
            assert not last.refused.retry
        # The proof itself is right: without a change it opens the door.
        assert any(
            said.HasField("admitted") for said in heard(channel, asked, lambda nonce: proof_for(asked, nonce))
        )
    members = httpx.get(f"{guarded.url}/admin/workers", headers=ADMIN).json()
    assert [member["worker_id"] for member in members] == ["one"]


# The store


def test_a_changed_object_is_never_served(guarded, tmp_path):
    body = {"a": MARKER, "b": MARKER}
    for schema_id in ("notes", "other"):
        httpx.put(f"{guarded.url}/entity/{schema_id}", json=body, headers=ADMIN).raise_for_status()
    folder = tmp_path / "db" / "files"
    victim = folder / "notes" / "a.json.enc"
    good = victim.read_bytes()
    flips = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(0, len(good), 3)]
    swapped = [(folder / name).read_bytes() for name in ("notes/b.json.enc", "other/a.json.enc")]
    cut = [b"", good[:50], good[:-1], good + b"\0", good[:7] + b"\xff" * 4 + good[11:]]
    with httpx.Client(base_url=guarded.url, headers=ADMIN, timeout=ANSWER_S) as client:
        for data in (*flips, *swapped, *cut):
            victim.write_bytes(data)
            read = client.get("/entity/notes", params={"key": "a"})
            written = client.put("/entity/notes", content='{"a": 1}')
            for answer in (read, written):
                assert answer.json()["error"] in ("integrity", "key_unavailable"), answer.text
            assert victim.read_bytes() == data
        victim.write_bytes(good)
        assert client.get("/entity/notes", params={"key": "a"}).json() == MARKER
        assert client.get("/entity/notes", params={"key": "b"}).json() == MARKER
