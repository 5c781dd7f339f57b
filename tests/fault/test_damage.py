"""A running system whose stored objects are damaged, swapped or replaced by others.

On a directory with the embedded worker and with two workers, and on SeaweedFS with two workers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from integration.cluster import (
    MARKER,
    MASTER_KEY,
    Cluster,
    discreet_programs,
    get,
    probe,
    put,
    s3_arguments,
    s3_client,
    secrets_in,
)
from support.journal import wait_until_written
from support.programs import Program, Programs, free_port, wait_for, wait_until_ready
from support.weed import S3Server

from deltadatabase.storage.paths import DATABASE_PATH, entity_path, template_path

pytestmark = pytest.mark.integration

COLD = "-cache-bytes=0"
NAMES = ("victim", "other", "third")


@dataclass
class Running:
    """A running system and a way to its objects that is not ours.

    Attributes:
        url: of its REST API.
        read, write: one object's bytes; writing None removes it.
        logs: all that its programs have logged.
    """

    url: str
    read: Callable[[str], bytes]
    write: Callable[[str, bytes | None], None]
    logs: Callable[[], str]


def in_directory(root: Path) -> tuple[Callable[[str], bytes], Callable[[str, bytes | None], None]]:
    def read(path: str) -> bytes:
        wait_until_written(root)
        return (root / path).read_bytes()

    def write(path: str, data: bytes | None) -> None:
        wait_until_written(root)
        if data is None:
            (root / path).unlink()
        else:
            (root / path).write_bytes(data)

    return read, write


def in_bucket(
    server: S3Server, bucket: str
) -> tuple[Callable[[str], bytes], Callable[[str, bytes | None], None]]:
    client: Any = s3_client(server)

    def write(path: str, data: bytes | None) -> None:
        if data is None:
            client.delete_object(Bucket=bucket, Key=path)
        else:
            client.put_object(Bucket=bucket, Key=path, Body=data)

    return lambda path: client.get_object(Bucket=bucket, Key=path)["Body"].read(), write


def logs_of(started: Programs) -> Callable[[], str]:
    return lambda: "".join(program.output for program in started.started)


@contextlib.contextmanager
def serving(tmp_path: Path) -> Iterator[Running]:
    """``deltadb serve`` with the embedded worker on a directory."""
    with discreet_programs(tmp_path) as started:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        program: Program = started.start(
            "deltadb",
            "serve",
            f"-shared-fs={tmp_path / 'db'}",
            f"-state-dir={tmp_path / 'state'}",
            f"-rest-addr=127.0.0.1:{port}",
            "-dev",
            COLD,
            environ={"MASTER_KEY": MASTER_KEY},
        )
        wait_until_ready(url, program)
        yield Running(url, *in_directory(tmp_path / "db"), logs_of(started))


@contextlib.contextmanager
def cluster_on(tmp_path: Path, server: S3Server | None) -> Iterator[Running]:
    """A main worker and two workers on a directory, or on a bucket of ``server``."""
    with discreet_programs(tmp_path) as started:
        bucket = "damage"
        flags = [f"-shared-fs={tmp_path / 'db'}"] if server is None else s3_arguments(server, bucket)
        token = "the-join-token-of-the-tests"
        cluster = Cluster(
            started,
            [*flags, f"-join-token={token}", COLD],
            tmp_path / "state",
            {"MASTER_KEY": MASTER_KEY, "JOIN_TOKEN": token},
        ).start("one", "two")
        objects = in_directory(tmp_path / "db") if server is None else in_bucket(server, bucket)
        yield Running(cluster.url, *objects, logs_of(started))


@pytest.fixture(params=["serve", "directory", "s3"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    if request.param == "serve":
        started = serving(tmp_path)
    else:
        server = request.getfixturevalue("weed") if request.param == "s3" else None
        started = cluster_on(tmp_path, server)
    with started as system:
        yield system


def document(name: str) -> str:
    return json.dumps([MARKER, name])


def calls(running: Running, key: str) -> list[httpx.Response]:
    where = f"{running.url}/entity/notes"
    return [
        get(running.url, key),
        put(running.url, key, '"new"'),
        httpx.delete(where, params={"key": key}, timeout=20.0),
        httpx.head(where, params={"key": key}, timeout=20.0),
    ]


def test_a_damaged_object_fails_its_own_entity_alone(running: Running) -> None:
    for name in NAMES:
        assert put(running.url, name, document(name)).status_code == 200
    path = entity_path("notes", "victim")
    good, other = running.read(path), running.read(entity_path("notes", "other"))
    damages = {
        "flipped header": good[:75] + bytes((good[75] ^ 1,)) + good[76:],
        "flipped ciphertext": good[:-20] + bytes((good[-20] ^ 1,)) + good[-19:],
        "truncated": good[: len(good) // 2],
        "empty": b"",
        "extended": good + b"\0\0",
        "swapped": other,
        "foreign": b'{"plain":"json"}',
    }
    for what, data in damages.items():
        running.write(path, data)
        for _ in range(2):
            for answer in calls(running, "victim"):
                assert answer.status_code == 500, (what, answer.request.method, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"
                if answer.request.method != "HEAD":
                    assert answer.json()["error"] == "integrity", what
                assert secrets_in(answer.text) == [] and "victim" not in answer.text
        assert running.read(path) == data, what
        for name in NAMES[1:]:
            assert get(running.url, name).json() == [MARKER, name], what
        assert put(running.url, "third", document("third")).status_code == 200
    said = running.logs()
    assert "security event" in said and "integrity" in said
    # The genuine object back in its place is served again: nothing of the others was kept.
    running.write(path, good)
    assert get(running.url, "victim").json() == [MARKER, "victim"]
    assert put(running.url, "victim", document("newer")).status_code == 200
    assert probe(running.url, "/livez")[0] == 200


def test_a_damaged_template_refuses_writes_of_its_schema_alone(running: Running) -> None:
    assert put(running.url, "kept", document("kept")).status_code == 200
    schema = {"type": "array"}
    assert httpx.put(f"{running.url}/schema/notes", json=schema, timeout=20.0).status_code in (200, 201)
    assert put(running.url, "kept", '"no array"').status_code == 400
    running.write(template_path("notes"), b'{"type": "arr')
    wait_for(lambda: put(running.url, "kept", document("x")).status_code != 200, "the damage is noticed")
    refused = put(running.url, "kept", document("x"))
    assert 400 <= refused.status_code < 600 and refused.json()["error"] != "internal", refused.text
    assert put(running.url, "kept", document("kept"), "others").status_code == 200
    assert get(running.url, "kept").status_code == 200
    running.write(template_path("notes"), json.dumps(schema).encode())
    wait_for(lambda: put(running.url, "kept", document("y")).status_code == 200, "the repair is noticed")
    assert put(running.url, "kept", '"no array"').status_code == 400


def test_a_damaged_description_is_said_and_does_no_harm(running: Running) -> None:
    assert put(running.url, "kept", document("kept")).status_code == 200
    good = running.read(DATABASE_PATH)
    for damage in (b"", b"{", good[:-10], b'{"format":9}'):
        running.write(DATABASE_PATH, damage)
        wait_for(lambda: "description in the store is damaged" in running.logs(), "it is said", 10.0)
        assert get(running.url, "kept").json() == [MARKER, "kept"]
        assert put(running.url, "kept", document("kept")).status_code == 200
    running.write(DATABASE_PATH, good)
    assert probe(running.url, "/readyz")[0] == 200


def test_an_emptied_store_is_no_database_in_which_all_was_deleted(running: Running) -> None:
    assert put(running.url, "kept", document("kept")).status_code == 200
    path = entity_path("notes", "kept")
    kept = {name: running.read(name) for name in (DATABASE_PATH, path)}
    for name in kept:
        running.write(name, None)
    wait_for(lambda: get(running.url, "kept").json().get("error") == "store_gone", "it is noticed", 10.0)
    for answer in calls(running, "kept")[:3]:
        assert (answer.status_code, answer.json()["error"]) == (503, "store_gone")
        assert int(answer.headers["retry-after"]) >= 1
    assert probe(running.url, "/livez")[0] == 200
    status, body = probe(running.url, "/readyz")
    assert (status, body["error"]) == (503, "store_gone")
    # The description of another database is not what was lost.
    other = json.loads(kept[DATABASE_PATH]) | {"database_id": "0" * 32}
    running.write(DATABASE_PATH, json.dumps(other).encode())
    with pytest.raises(AssertionError):
        wait_for(lambda: get(running.url, "kept").status_code != 503, "served again", 5.0)
    for name in reversed(kept):
        running.write(name, kept[name])
    wait_for(lambda: get(running.url, "kept").status_code == 200, "served again", 10.0)
    assert get(running.url, "kept").json() == [MARKER, "kept"]
    assert put(running.url, "kept", document("newer")).status_code == 200
    assert get(running.url, "kept").json() == [MARKER, "newer"]
    assert probe(running.url, "/readyz")[0] == 200
