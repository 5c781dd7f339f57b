"""An attacker who may write to the store but holds no key. ``tests/fault`` has every single bit."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import httpx
import pytest
from integration.cluster import MARKER
from support.programs import wait_for

from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.model import Header
from security.attacker import ADMIN, ANSWER_S, resident_bytes

pytestmark = pytest.mark.integration


@pytest.fixture
def attacked(guarded, tmp_path) -> tuple[httpx.Client, Path]:
    """A client with every right, and the folder of the documents."""
    client = httpx.Client(base_url=guarded.url, headers=ADMIN, timeout=ANSWER_S)
    client.put("/entity/notes", json={"a": MARKER, "b": MARKER}).raise_for_status()
    yield client, tmp_path / "db" / "files" / "notes"
    client.close()


def read(client: httpx.Client, key: str) -> httpx.Response:
    return client.get("/entity/notes", params={"key": key})


def test_the_pair_of_files_of_another_entity_is_refused(attacked):
    client, folder = attacked
    wait_for(lambda: len(list(folder.glob("*.meta.json"))) == 2, "the meta files are there")
    for suffix in ("json.enc", "meta.json"):
        (folder / f"a.{suffix}").write_bytes((folder / f"b.{suffix}").read_bytes())
    assert read(client, "a").json()["error"] == "integrity"
    assert read(client, "b").json() == MARKER


def test_an_object_sealed_with_another_key_is_refused(attacked):
    client, folder = attacked
    victim = folder / "a.json.enc"
    good = victim.read_bytes()
    header = Header(schema_id="notes", key="a", version=9, term=1, updated_ms=1, write_id=b"w" * 16)
    foreign = Sealer(Keyring(MasterKey(b"\x09" * 32)), os.urandom).seal(header, b'"forged"')
    # Under its own key id it names a key that nobody here holds; under ours it fails its check.
    for data, error in (
        (foreign, "key_unavailable"),
        (foreign[:11] + good[11:19] + foreign[19:], "integrity"),
        (good[:11] + foreign[11:19] + good[19:], "key_unavailable"),
    ):
        victim.write_bytes(data)
        assert read(client, "a").json()["error"] == error
        refused = client.put("/entity/notes", json={"a": 1})
        assert refused.json()["error"] == error
        assert victim.read_bytes() == data
    victim.write_bytes(good)
    assert read(client, "a").json() == MARKER


def test_an_older_version_that_is_put_back_is_served_and_only_its_etag_tells(attacked):
    """What encryption alone cannot prevent: the old object was sealed for exactly this entity."""
    client, folder = attacked
    victim = folder / "a.json.enc"
    old = victim.read_bytes()
    before = read(client, "a").headers["etag"]
    newer = client.put("/entity/notes", json={"a": "newer"}).json()["versions"]["a"]
    victim.write_bytes(old)
    answer = read(client, "a")
    assert answer.status_code == 200
    assert (answer.json(), answer.headers["etag"]) == (MARKER, before)
    # A client that remembers what it wrote notices: versions and ETags only rise without an attack.
    assert int(answer.headers["etag"].strip('"').partition("-")[0]) < newer


def test_an_object_of_absurd_size_is_refused_unread(attacked, guarded):
    client, folder = attacked
    with (folder / "a.json.enc").open("r+b") as file:
        file.truncate(1 << 40)
    pid = guarded.workers["one"].process.pid
    before = resident_bytes(pid)
    for answer in (read(client, "a"), client.put("/entity/notes", json={"a": 1})):
        assert (answer.status_code, answer.json()["error"]) == (500, "integrity")
    assert resident_bytes(pid) - before < 32 << 20
    assert read(client, "b").json() == MARKER


def test_a_pipe_or_a_device_in_the_place_of_an_object_holds_nobody_up(attacked):
    client, folder = attacked
    (folder / "a.json.enc").unlink()
    os.mkfifo(folder / "a.json.enc")
    (folder / "c.json.enc").symlink_to("/dev/zero")
    for _ in range(10):
        for key in ("a", "c"):
            assert read(client, key).json()["error"] == "integrity"
    assert read(client, "b").json() == MARKER


# Schemas, which may be put into the store by anybody who may write there


def test_no_reference_of_a_schema_is_ever_fetched(attacked, tmp_path):
    client, _ = attacked
    connections: list[object] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with listener:
            while True:
                try:
                    connections.append(listener.accept())
                except OSError:
                    return

    thread = threading.Thread(target=accept)
    thread.start()
    port = listener.getsockname()[1]
    secret = tmp_path / "secret.json"
    secret.write_text('{"type": "string"}')
    targets = (f"http://127.0.0.1:{port}/x", f"https://127.0.0.1:{port}/x", f"file://{secret}", str(secret))
    try:
        for number, target in enumerate(targets):
            for schema in ({"$ref": target}, {"$schema": target}, {"$id": target, "$ref": "other.json"}):
                text = json.dumps(schema)
                answer = client.put(f"/schema/s{number}", content=text)
                assert (answer.status_code, answer.json()["error"]) == (400, "invalid_schema"), schema
                # Past our API, straight into the store.
                (tmp_path / "db" / "templates").mkdir(exist_ok=True)
                (tmp_path / "db" / "templates" / f"t{number}.json").write_text(text)
                refused = client.put(f"/entity/t{number}", json={"k": "text"})
                assert refused.json()["error"] == "template_invalid", schema
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert connections == []


EVIL_PATTERNS = ("^(a+)+$", "^(a|aa)+$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(x+x+)+y", "^(.*?,){11}P")


@pytest.mark.parametrize("pattern", EVIL_PATTERNS)
def test_a_pattern_that_traps_backtracking_engines_costs_no_time(attacked, pattern):
    client, _ = attacked
    answer = client.put("/schema/traps", json={"type": "string", "pattern": pattern})
    assert answer.status_code in (200, 400)
    client.put("/entity/traps", json={"k": "a" * 100_000 + "!"})
    begun = httpx.get(f"{client.base_url}/livez", timeout=ANSWER_S)
    assert begun.elapsed.total_seconds() < 1.0
