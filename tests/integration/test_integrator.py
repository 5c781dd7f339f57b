"""Calls as an existing integrator makes them, against one process and against three on S3."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Protocol

import httpx
import pytest
from support.programs import Program, Programs, free_port, wait_until_ready
from support.weed import S3Server

from integration.cluster import ADMIN_KEY, MARKER, MASTER_KEY, Cluster, discreet_programs, s3_arguments

pytestmark = pytest.mark.integration

ENVIRON = {"ADMIN_KEY": ADMIN_KEY, "MASTER_KEY": MASTER_KEY, "DELTADB_LOG_LEVEL": "debug"}
TASK = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["title", "status"],
    "properties": {"title": {"type": "string"}, "status": {"enum": ["open", "done"]}},
}


class System(Protocol):
    """The database as its integrator has it: a URL, and somebody who restarts it."""

    url: str
    worker_ids: list[str]

    def restart(self) -> None: ...


@dataclass
class Serve:
    """``deltadb serve`` on a directory."""

    programs: Programs
    program: Program | None = None

    def __post_init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.worker_ids = ["embedded"]

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.program = self.programs.start(
            "deltadb", "serve", f"-rest-addr=127.0.0.1:{self.port}", "-data=db"
        )
        wait_until_ready(self.url, self.program)

    def restart(self) -> None:
        """Stop it and start it again."""
        assert self.program is not None
        assert self.program.stop() == 0
        self.start()


@dataclass
class OnS3:
    """A main worker and two proc workers on a bucket."""

    cluster: Cluster

    def __post_init__(self) -> None:
        self.url = self.cluster.url
        self.worker_ids = ["proc-1", "proc-2"]

    def restart(self) -> None:
        """Stop all three and start them again."""
        assert self.cluster.stop() == [0, 0, 0]
        self.cluster.start(*self.worker_ids)


@pytest.fixture(scope="module", params=["serve", "s3"])
def system(request, tmp_path_factory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp(request.param)
    with discreet_programs(folder, ENVIRON) as started:
        if request.param == "serve":
            serve = Serve(started)
            serve.start()
            yield serve
        else:
            weed: S3Server = request.getfixturevalue("weed")
            store = s3_arguments(weed, "delta-integrator")
            cluster = Cluster(started, store, folder / "state", ENVIRON).start("proc-1", "proc-2")
            yield OnS3(cluster)


Clients = Callable[[str], httpx.Client]


@pytest.fixture
def client_of(system) -> Iterator[Clients]:
    """Gives a client that presents this token."""
    with httpx.Client(base_url=system.url, timeout=20.0) as shared:
        opened: list[httpx.Client] = [shared]

        def open_client(token: str) -> httpx.Client:
            client = httpx.Client(
                base_url=system.url, timeout=20.0, headers={"authorization": f"Bearer {token}"}
            )
            opened.append(client)
            return client

        yield open_client
        for client in opened:
            client.close()


@pytest.fixture
def admin(client_of) -> httpx.Client:
    """A session of the admin key, as the integrator opens one first."""
    answer = client_of("nothing").post("/api/login", json={"key": ADMIN_KEY})
    assert answer.status_code == 200, answer.text
    return client_of(answer.json()["token"])


_numbers = count(1)


@pytest.fixture
def schema_id() -> str:
    """A schema id that no other test uses."""
    return f"task-{next(_numbers)}.v1"


def ok(answer: httpx.Response) -> Any:
    """The body of an answer that must be a success."""
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(answer: httpx.Response, status: int) -> Any:
    """The body of an answer that must be this refusal, and a proper one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "detail", "error", "request_id"} <= body.keys()
    assert body["status"] == status
    assert MARKER not in answer.text
    return body


def new_key(admin: httpx.Client, *permissions: str, **more: Any) -> Any:
    """Make an API key."""
    answer = admin.post("/api/keys", json={"name": "-".join(permissions), "permissions": permissions, **more})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def put(client: httpx.Client, schema_id: str, **documents: Any) -> httpx.Response:
    """Put entities, as the integrator does: one object of key and document."""
    return client.put(f"/entity/{schema_id}", json=documents)


def get(client: httpx.Client, schema_id: str, key: str, **headers: str) -> httpx.Response:
    """Get one entity."""
    return client.get(f"/entity/{schema_id}", params={"key": key}, headers=headers)


# Who calls


def test_a_login_gives_a_session(client_of):
    nobody = client_of("nothing")
    session = ok(nobody.post("/api/login", json={"key": ADMIN_KEY}))
    assert session["client_id"] == "admin"
    assert set(session["permissions"]) == {"read", "write", "admin"}
    ends = datetime.fromisoformat(session["expires_at"])
    assert timedelta(hours=23) < ends - datetime.now(UTC) <= timedelta(hours=24)
    me = ok(client_of(session["token"]).get("/api/me"))
    assert me["client_id"] == "admin" and me["is_admin"] is True
    refusal(nobody.get("/api/me"), 401)
    refusal(nobody.post("/api/login", json={"key": "wrong"}), 401)
    refusal(nobody.post("/api/login", json={"client_id": "somebody"}), 401)
    refusal(nobody.post("/api/login", json={}), 400)


def test_each_key_may_do_what_it_says(admin, client_of, schema_id):
    calls = {
        "write": lambda client: put(client, schema_id, a={"title": MARKER, "status": "open"}),
        "read": lambda client: get(client, schema_id, "a"),
        "admin": lambda client: client.get("/api/keys"),
    }
    for right in calls:
        key = new_key(admin, right)
        assert key["secret"].startswith("dk_")
        assert key["permissions"] == [right]
        session = ok(client_of("nothing").post("/api/login", json={"key": key["secret"]}))
        assert session["client_id"] == right
        for token in (key["secret"], session["token"]):
            client = client_of(token)
            me = ok(client.get("/api/me"))
            assert me["client_id"] == right and me["is_admin"] is (right == "admin")
            for needed, call in calls.items():
                answer = call(client)
                if right in (needed, "admin"):
                    assert answer.status_code == 200, (right, needed, answer.text)
                else:
                    refusal(answer, 403)


def test_keys_are_listed_without_their_secrets(admin):
    key = new_key(admin, "read", expires_in="7d")
    listed = ok(admin.get("/api/keys"))
    assert key["secret"] not in json.dumps(listed)
    mine = next(each for each in listed if each["id"] == key["id"])
    assert {"id", "name", "key_hash", "permissions", "created_at", "expires_at", "enabled"} <= mine.keys()
    assert mine["enabled"] is True
    lives = datetime.fromisoformat(mine["expires_at"]) - datetime.fromisoformat(mine["created_at"])
    assert lives == timedelta(days=7)


@pytest.mark.parametrize(
    "body",
    [
        {"permissions": ["read"]},
        {"name": "x", "permissions": []},
        {"name": "x", "permissions": ["own"]},
        {"name": "x", "permissions": ["read"], "expires_in": "0s"},
        {"name": "x", "permissions": ["read"], "expires_in": "-1h"},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(admin, body):
    refusal(admin.post("/api/keys", json=body), 400)


def test_a_key_may_be_limited_to_schemas(admin, client_of, schema_id):
    put(admin, schema_id, a={"n": 1})
    put(admin, f"other.{schema_id}", a={"n": 1})
    limited = client_of(new_key(admin, "read", "write", schemas=[f"{schema_id[:-3]}*"])["secret"])
    assert ok(get(limited, schema_id, "a")) == {"n": 1}
    ok(put(limited, schema_id, a={"n": 2}))
    refusal(get(limited, f"other.{schema_id}", "a"), 403)
    refusal(put(limited, f"other.{schema_id}", a={"n": 2}), 403)
    refusal(limited.put(f"/schema/other.{schema_id}", json=TASK), 403)
    assert ok(limited.get("/api/schemas")) == [schema_id]


def test_a_revoked_key_is_refused_at_once_and_so_are_its_sessions(admin, client_of, schema_id):
    put(admin, schema_id, a={"n": 1})
    key = new_key(admin, "read")
    session = ok(client_of("nothing").post("/api/login", json={"key": key["secret"]}))["token"]
    clients = [client_of(token) for token in (key["secret"], session)]
    for client in clients:
        ok(get(client, schema_id, "a"))
    assert ok(admin.delete(f"/api/keys/{key['id']}")) == {"status": "ok"}
    for client in clients:
        refusal(get(client, schema_id, "a"), 401)
        refusal(client.get("/api/me"), 401)
    refusal(client_of("nothing").post("/api/login", json={"key": key["secret"]}), 401)
    refusal(admin.delete(f"/api/keys/{key['id']}"), 404)


# Schemas


@pytest.mark.parametrize(("method", "path"), [("PUT", "/schema/"), ("POST", "/schemas/")])
def test_a_schema_is_in_force_for_the_next_write(admin, schema_id, method, path):
    assert ok(admin.request(method, path + schema_id, json=TASK))["status"] == "ok"
    ok(put(admin, schema_id, good={"title": MARKER, "status": "open"}))
    body = refusal(put(admin, schema_id, bad={"title": MARKER, "status": MARKER}), 400)
    assert [(each["pointer"], each["keyword"]) for each in body["errors"]] == [("/status", "enum")]
    body = refusal(put(admin, schema_id, bad={"title": MARKER}), 400)
    assert [each["keyword"] for each in body["errors"]] == ["required"]
    refusal(get(admin, schema_id, "bad"), 404)
    assert ok(admin.get(f"/schema/{schema_id}")) == TASK
    assert schema_id in ok(admin.get("/admin/schemas"))
    assert ok(admin.delete(f"/schema/{schema_id}")) == {"status": "ok"}
    ok(put(admin, schema_id, bad={"title": MARKER}))
    refusal(admin.get(f"/schema/{schema_id}"), 404)
    refusal(admin.delete(f"/schema/{schema_id}"), 404)
    assert schema_id not in ok(admin.get("/admin/schemas"))
    assert schema_id in ok(admin.get("/api/schemas"))


def test_what_is_no_schema_is_refused(admin, schema_id):
    refusal(admin.put(f"/schema/{schema_id}", json={"type": "no such type"}), 400)
    refusal(admin.put(f"/schema/{schema_id}", content=b"{"), 400)
    for bad_id in ("-bad", "a..b", "a%20b", "a" * 101):
        refusal(admin.put(f"/schema/{bad_id}", json=TASK), 400)
    refusal(admin.get(f"/schema/{schema_id}"), 404)


# Entities


def test_entities_are_inserted_read_updated_and_deleted(admin, schema_id):
    ok(admin.put(f"/schema/{schema_id}", json=TASK))
    tasks = {f"task:{number}": {"title": f"{MARKER} {number}", "status": "open"} for number in range(20)}
    answer = ok(put(admin, schema_id, **tasks))
    assert answer == {"status": "ok", "versions": dict.fromkeys(tasks, 1)}
    for key, task in tasks.items():
        assert ok(get(admin, schema_id, key)) == task
    changed = {"title": MARKER, "status": "done"}
    assert ok(put(admin, schema_id, **{"task:3": changed}))["versions"] == {"task:3": 2}
    assert ok(get(admin, schema_id, "task:3")) == changed
    for _ in range(2):
        deleted = admin.delete(f"/entity/{schema_id}", params={"key": "task:4"})
        assert ok(deleted) == {"status": "ok"}
        refusal(get(admin, schema_id, "task:4"), 404)
    refusal(admin.get(f"/entity/{schema_id}"), 400)


def test_one_bad_document_and_nothing_is_written(admin, schema_id):
    ok(admin.put(f"/schema/{schema_id}", json=TASK))
    good = {f"good-{number}": {"title": "x", "status": "open"} for number in range(10)}
    refusal(put(admin, schema_id, **good, bad={"title": 1}), 400)
    for key in good:
        refusal(get(admin, schema_id, key), 404)
    refusal(put(admin, schema_id), 400)


def test_index_documents_stand_beside_the_entities(admin, schema_id):
    """The integrator's own indexes: lists of keys, which the template does not speak of."""
    ok(admin.put(f"/schema/{schema_id}", json=TASK))
    tasks = {f"t{number}": {"title": MARKER, "status": ("open", "done")[number % 2]} for number in range(6)}
    ok(put(admin, schema_id, **tasks, _index=sorted(tasks)))
    for status in ("open", "done"):
        keys = [key for key, task in tasks.items() if task["status"] == status]
        ok(put(admin, schema_id, **{f"_idx:status:{status}": {"keys": keys}}))
    assert ok(get(admin, schema_id, "_index")) == sorted(tasks)
    found = ok(get(admin, schema_id, "_idx:status:open"))["keys"]
    assert [ok(get(admin, schema_id, key))["status"] for key in found] == ["open"] * 3
    # One task moves from one list to the other; task and both lists in one call.
    ok(
        put(
            admin,
            schema_id,
            t0={"title": MARKER, "status": "done"},
            **{
                "_idx:status:open": {"keys": ["t2", "t4"]},
                "_idx:status:done": {"keys": ["t0", "t1", "t3", "t5"]},
            },
        )
    )
    found = ok(get(admin, schema_id, "_idx:status:done"))["keys"]
    assert {ok(get(admin, schema_id, key))["status"] for key in found} == {"done"}
    refusal(put(admin, schema_id, idx={"keys": []}), 400)
    ok(admin.delete(f"/entity/{schema_id}", params={"key": "_idx:status:open"}))
    refusal(get(admin, schema_id, "_idx:status:open"), 404)


def test_a_template_may_ask_for_its_metadata_to_be_validated(admin, schema_id):
    ok(admin.put(f"/schema/{schema_id}", json={**TASK, "x-validate-metadata": True}))
    refusal(put(admin, schema_id, _index=[]), 400)


@pytest.mark.parametrize(
    "document",
    [
        '{"a":1}',
        ' \t{ "a" :\n  1.50e0 ,\r\n"b":[ ] }  ',
        '{"text": "\\u00e9\\u0000\\/ \\ud83d\\ude00 é 😀"}',
        '{"big": 123456789012345678901234567890, "small": 1e-400, "minus": -0.0, "huge": 1.0E+300}',
        '{"b": 1, "a": 2, "": {"b": [1, 2.0, 2.00]}}',
        '"just a string"',
        "null",
        "[[[[[]]]]]",
    ],
    ids=["compact", "white space", "escapes", "numbers", "order", "string", "null", "nested"],
)
def test_a_document_comes_back_byte_for_byte(admin, schema_id, document):
    body = f'{{ "first" :{document}, "second":\n{document}}}'.encode()
    answer = admin.put(f"/entity/{schema_id}", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 200, answer.text
    for key in ("first", "second"):
        assert get(admin, schema_id, key).content == document.strip(" \t\r\n").encode()


@pytest.mark.parametrize(
    "key",
    [
        "user:42",
        "a_b",
        "with space",
        " ",
        "😀",
        "a%2Fb",
        "a+b",
        "?&=#",
        '"quoted"',
        ".hidden",
        "=41",
        "é",
        "e\u0301",
    ],
)
def test_any_key_is_its_own_entity(admin, schema_id, key):
    ok(put(admin, schema_id, **{key: {"key": key}, "a": 0}))
    answer = get(admin, schema_id, key)
    assert ok(answer) == {"key": key}
    ok(admin.delete(f"/entity/{schema_id}", params={"key": key}))
    refusal(get(admin, schema_id, key), 404)
    assert ok(get(admin, schema_id, "a")) == 0


def test_keys_that_look_alike_stay_apart(admin, schema_id):
    keys = ["a_b", "a b", "a+b", "A_B", "a%5Fb", "a=5Fb", "\u00e9", "e\u0301"]
    ok(put(admin, schema_id, **{key: number for number, key in enumerate(keys)}))
    assert [ok(get(admin, schema_id, key)) for key in keys] == list(range(len(keys)))
    ok(put(admin, f"{schema_id}_a", b=1))
    ok(put(admin, schema_id, a_b=2))
    assert ok(get(admin, f"{schema_id}_a", "b")) == 1


@pytest.mark.parametrize("key", ["a/b", "a\\b", "..", "a..b", "tab\t", "k" * 241, ""])
def test_keys_that_are_refused(admin, schema_id, key):
    refusal(put(admin, schema_id, **{key: 1}), 400)
    refusal(get(admin, schema_id, key), 400)
    refusal(admin.delete(f"/entity/{schema_id}", params={"key": key}), 400)


def test_an_unchanged_document_is_not_sent_again(admin, schema_id):
    ok(put(admin, schema_id, a={"n": 1}))
    first = get(admin, schema_id, "a")
    etag = first.headers["etag"]
    assert "last-modified" in first.headers
    again = get(admin, schema_id, "a", **{"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    ok(put(admin, schema_id, a={"n": 1}))
    changed = get(admin, schema_id, "a", **{"if-none-match": etag})
    assert ok(changed) == {"n": 1}
    seen = {etag, changed.headers["etag"]}
    ok(admin.delete(f"/entity/{schema_id}", params={"key": "a"}))
    ok(put(admin, schema_id, a={"n": 1}))
    seen.add(get(admin, schema_id, "a").headers["etag"])
    assert len(seen) == 3


# The operator


def test_workers_and_the_store_are_shown_to_admins(system, admin, client_of):
    workers = ok(admin.get("/admin/workers"))
    assert [worker["worker_id"] for worker in workers] == system.worker_ids
    for worker in workers:
        assert worker["status"] == "Available"
        assert len(worker["key_id"]) == 16
        assert datetime.now(UTC) - datetime.fromisoformat(worker["last_seen"]) < timedelta(seconds=60)
        assert "grpc_addr" in worker["tags"]
    assert set(ok(admin.get("/admin/store"))["workers"]) == set(system.worker_ids)
    reader = client_of(new_key(admin, "read", "write")["secret"])
    for path in ("/admin/workers", "/admin/store", "/api/keys"):
        refusal(reader.get(path), 403)
        refusal(client_of("nothing").get(path), 401)


def test_what_needs_no_token(system):
    assert ok(httpx.get(f"{system.url}/health"))["status"] == "ok"
    assert httpx.get(f"{system.url}/livez").status_code == 200
    assert httpx.get(f"{system.url}/readyz").status_code == 200
    refusal(httpx.get(f"{system.url}/api/schemas"), 401)


def test_everything_survives_a_restart(system, admin, client_of, schema_id):
    ok(admin.put(f"/schema/{schema_id}", json=TASK))
    ok(put(admin, schema_id, a={"title": MARKER, "status": "open"}, b={"title": MARKER, "status": "open"}))
    ok(admin.delete(f"/entity/{schema_id}", params={"key": "b"}))
    etag = get(admin, schema_id, "a").headers["etag"]
    key, revoked = new_key(admin, "read"), new_key(admin, "read")
    session = ok(client_of("nothing").post("/api/login", json={"key": key["secret"]}))["token"]
    ok(admin.delete(f"/api/keys/{revoked['id']}"))
    system.restart()
    for client in (admin, client_of(key["secret"]), client_of(session)):
        answer = get(client, schema_id, "a")
        assert ok(answer) == {"title": MARKER, "status": "open"}
        assert answer.headers["etag"] == etag
        refusal(get(client, schema_id, "b"), 404)
    refusal(put(client_of(session), schema_id, a={"title": "x", "status": "open"}), 403)
    refusal(get(client_of(revoked["secret"]), schema_id, "a"), 401)
    refusal(put(admin, schema_id, a={"title": "x"}), 400)
    assert ok(put(admin, schema_id, a={"title": "x", "status": "done"}))["versions"] == {"a": 2}
    assert key["id"] in {each["id"] for each in ok(admin.get("/api/keys"))}
