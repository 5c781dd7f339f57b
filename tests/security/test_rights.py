"""Callers with a key who want more than it opens."""

from __future__ import annotations

import time

import grpc
import httpx
import pytest

from deltadatabase.auth.throttle import FAILURES_MAX
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc
from deltadatabase.rpc.pb import types_pb2
from security.attacker import ADMIN, ANSWER_S, code_of

pytestmark = pytest.mark.integration


def key(url: str, *permissions: str, **more: object) -> str:
    body = {"name": "k", "permissions": permissions, **more}
    return str(httpx.post(f"{url}/api/keys", json=body, headers=ADMIN).raise_for_status().json()["secret"])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_guessing_keys_at_login_is_slowed_down(guarded):
    good = key(guarded.url, "read")
    statuses = [
        httpx.post(f"{guarded.url}/api/login", json={"key": f"dk_{number:040}"}).status_code
        for number in range(FAILURES_MAX + 5)
    ]
    assert statuses[:FAILURES_MAX] == [401] * FAILURES_MAX
    assert statuses[FAILURES_MAX:] == [429] * 5
    # Whoever holds a good key is not locked out by it.
    assert httpx.get(f"{guarded.url}/api/me", headers=bearer(good)).status_code == 200


def test_a_key_for_some_schemas_reaches_no_other_by_any_spelling(guarded):
    for schema_id in ("chat.a", "chatter", "notes"):
        httpx.put(f"{guarded.url}/entity/{schema_id}", json={"k": 1}, headers=ADMIN).raise_for_status()
    limited = bearer(key(guarded.url, "read", "write", schemas=["chat.*"]))
    with httpx.Client(base_url=guarded.url, headers=limited, timeout=ANSWER_S) as client:
        assert client.get("/entity/chat.a", params={"key": "k"}).status_code == 200
        for target in (
            "chatter",
            "notes",
            "chat.a/../notes",
            "chat.a%2f..%2fnotes",
            "CHAT.A",
            "chat.a%00",
            "%63hatter",
            "chat.*",
            "chat",
            "./notes",
        ):
            for method in ("GET", "DELETE"):
                answer = client.request(method, f"/entity/{target}?key=k")
                assert answer.status_code in (400, 403, 404), (method, target, answer.text)
            assert client.put(f"/entity/{target}", json={"k": 2}).status_code in (400, 403, 404), target
        assert set(client.get("/api/schemas").json()) <= {"chat.a"}
    for schema_id in ("chatter", "notes"):
        answer = httpx.get(f"{guarded.url}/entity/{schema_id}", params={"key": "k"}, headers=ADMIN)
        assert answer.json() == 1


def test_a_key_cannot_give_itself_more(guarded):
    for permissions in (("read",), ("write",), ("read", "write")):
        headers = bearer(key(guarded.url, *permissions))
        for method, path, body in (
            ("POST", "/api/keys", {"name": "x", "permissions": ["admin"]}),
            ("GET", "/api/keys", None),
            ("GET", "/admin/workers", None),
            ("GET", "/admin/store", None),
        ):
            answer = httpx.request(method, guarded.url + path, json=body, headers=headers)
            assert answer.status_code == 403, (permissions, path)


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_key_that_ends_opens_nothing_more_on_connections_that_are_open(guarded, end):
    token = key(guarded.url, "read", "write", **({"expires_in": "2s"} if end == "expired" else {}))
    session = httpx.post(f"{guarded.url}/api/login", json={"key": token}).json()["token"]
    made = httpx.get(f"{guarded.url}/api/keys", headers=ADMIN).json()[-1]
    asked = pb.ProcessRequest(op=types_pb2.OP_SCHEMA_LIST)
    with (
        httpx.Client(base_url=guarded.url) as client,
        grpc.insecure_channel(f"127.0.0.1:{guarded.grpc_port}") as channel,
    ):
        process = pb_grpc.MainWorkerStub(channel).Process
        for each in (token, session):
            assert client.put("/entity/notes", json={"a": 1}, headers=bearer(each)).status_code == 200
            process(asked, metadata=[("authorization", f"Bearer {each}")], timeout=ANSWER_S)
        if end == "revoked":
            gone = client.delete(f"/api/keys/{made['id']}", headers=ADMIN)
            assert gone.status_code < 300
        else:
            time.sleep(2.2)
        for each in (token, session):
            assert client.get("/entity/notes", params={"key": "a"}, headers=bearer(each)).status_code == 401
            code = code_of(
                lambda: process(asked, metadata=[("authorization", f"Bearer {each}")], timeout=ANSWER_S)  # noqa: B023
            )
            assert code is grpc.StatusCode.UNAUTHENTICATED
