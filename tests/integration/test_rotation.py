"""The master key is exchanged under load, and workers prove themselves again and again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from support.listing import directory_listing
from support.programs import Programs, wait_for
from support.weed import S3Server

from deltadatabase.clock import system_random
from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.format import parse
from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.model import Header
from integration.cluster import (
    MARKER,
    MASTER_KEY,
    Cluster,
    discreet_programs,
    get,
    load,
    put,
    s3_arguments,
    s3_client,
)

pytestmark = pytest.mark.integration

NEW_KEY = "a7" * 32
KEYS = [f"k{number:03}" for number in range(120)]
DELETED = KEYS[:20]
QUICK = Path(__file__).with_name("quick_main.py")


@pytest.fixture
def started(tmp_path) -> Iterator[Programs]:
    with discreet_programs(tmp_path) as programs:
        yield programs


@pytest.fixture
def quick(started) -> Programs:
    """Main workers that do not wait for late puts: there are none here."""
    started.commands = {"main-worker": (sys.executable, str(QUICK))}
    return started


def rotate(cluster: Cluster, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; the main worker is in dev mode."""
    return subprocess.run(
        [*cluster.programs._command("deltadb"), "rotate", f"-url={cluster.url}", *flags],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def fill(url: str) -> dict[str, tuple[str, str]]:
    """Write entities, delete some; the ETag and time of each that is left."""
    for _ in range(2):
        answer = httpx.put(f"{url}/entity/notes", content=json.dumps(dict.fromkeys(KEYS, MARKER)), timeout=60)
        assert answer.status_code == 200, answer.text
    with httpx.Client(timeout=20.0) as client:
        for key in DELETED:
            assert client.delete(f"{url}/entity/notes", params={"key": key}).status_code == 200
    return seen(url)


def seen(url: str) -> dict[str, tuple[str, str]]:
    """What clients see of each entity."""
    found = {}
    with httpx.Client(timeout=20.0) as client:
        for key in KEYS:
            answer = client.get(f"{url}/entity/notes", params={"key": key})
            assert answer.status_code == (404 if key in DELETED else 200), answer.text
            if answer.status_code == 200:
                assert answer.json() == MARKER
                found[key] = (answer.headers["etag"], answer.headers["last-modified"])
    return found


def sealing_keys(objects: Mapping[str, bytes]) -> set[bytes]:
    """Ids of the master keys that objects are sealed with, tombstones among them."""
    sealed = [data for name, data in objects.items() if name.endswith(".json.enc") and "notes" in name]
    assert len(sealed) == len(KEYS)
    return {bytes(parse(data).header.key_id) for data in sealed}


def forged(key: str) -> bytes:
    """An object sealed with a key that somebody has seen."""
    header = Header(schema_id="notes", key="forged", version=1, term=1, updated_ms=1, write_id=b"w" * 16)
    return Sealer(Keyring(MasterKey.from_hex(key)), system_random).seal(header, f'"{MARKER}"'.encode())


def directory_objects(root: Path) -> dict[str, bytes]:
    return {name: data for name, (_, data) in directory_listing(root / "files").items()}


def bucket_objects(server: S3Server, bucket: str) -> dict[str, bytes]:
    client = s3_client(server)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="files/notes/")
    names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {
        name: client.get_object(Bucket=bucket, Key=name)["Body"].read()
        for name in names
        if name.endswith(".json.enc")
    }


def test_a_kept_key_is_exchanged_under_load(started, tmp_path):
    """Beside it a worker joins, one drains and the main worker's command is broken off and begun again."""
    root = tmp_path / "db"
    cluster = Cluster(started, (f"-shared-fs={root}",), tmp_path / "state", {}).start("one", "two")
    before = fill(cluster.url)
    (old,) = sealing_keys(directory_objects(root))
    assert rotate(cluster, "-dry-run", "-json").returncode == 0
    with load(cluster.url) as statuses:
        result: list[subprocess.CompletedProcess[str]] = []
        rotating = threading.Thread(target=lambda: result.append(rotate(cluster)))
        rotating.start()
        wait_for(lambda: (tmp_path / "state" / "rotation.json").exists(), "it begins")
        cluster.start_worker("three")
        cluster.ready(3)
        assert cluster.workers.pop("one").stop() == 0
        rotating.join()
        assert result[0].returncode == 0, result[0].stderr
    assert set(statuses) == {200}, statuses
    (new,) = sealing_keys(directory_objects(root))
    assert new != old
    assert seen(cluster.url) == before
    assert f"can be retired now: {old.hex()}" in result[0].stdout
    # Who saw the old key forges nothing with it any more.
    retired = tmp_path / "state" / f"master-key-retired-{old.hex()}"
    (root / "files" / "notes" / "forged.json.enc").write_bytes(forged(retired.read_text()))
    assert get(cluster.url, "forged").status_code == 503
    # After a restart, and without the old key's file.
    assert cluster.stop() == [0, 0, 0]
    retired.unlink()
    cluster.start("one")
    assert get(cluster.url, "forged").status_code == 503
    assert seen(cluster.url) == before
    assert put(cluster.url, "k000", "1").json()["versions"]["k000"] == 4, "its tombstone has version 3"


def test_a_main_worker_that_is_killed_goes_on_with_the_rotation(quick, tmp_path, weed):
    store = s3_arguments(weed, "delta-rotation")
    cluster = Cluster(quick, store, tmp_path / "state", {}).start("one")
    before = fill(cluster.url)
    (old,) = sealing_keys(bucket_objects(weed, "delta-rotation"))
    progress = tmp_path / "state" / "rotation.json"
    rotating = subprocess.Popen(
        [*quick._command("deltadb"), "rotate", f"-url={cluster.url}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(lambda: progress.exists() and '"settling"' in progress.read_text(), "the key is exchanged", 60)
    cluster.main.kill()
    cluster.workers["one"].kill()
    cluster.start_main()
    cluster.start_worker("one")
    cluster.ready(1)
    output, _ = rotating.communicate(timeout=90)
    assert rotating.returncode == 0, output
    (new,) = sealing_keys(bucket_objects(weed, "delta-rotation"))
    assert new != old and seen(cluster.url) == before


def test_given_keys_are_exchanged_and_the_old_one_opens_nothing_afterwards(quick, tmp_path):
    root = tmp_path / "db"
    both = {"MASTER_KEY": NEW_KEY, "MASTER_KEY_PREVIOUS": MASTER_KEY}
    cluster = Cluster(quick, (f"-shared-fs={root}",), tmp_path / "state").start("one")
    before = fill(cluster.url)
    alone = rotate(cluster)
    assert alone.returncode == 2 and "MASTER_KEY_PREVIOUS" in alone.stderr
    cluster.stop()
    refused_with(cluster, {"MASTER_KEY": NEW_KEY})
    cluster.environ = both
    cluster.start("one")
    put(cluster.url, "k060", f'"{MARKER}"')
    # The new key seals already: from here on both are needed.
    cluster.stop()
    for environ in ({"MASTER_KEY": NEW_KEY}, {"MASTER_KEY": MASTER_KEY}):
        refused_with(cluster, environ)
    cluster.environ = both
    cluster.start("one")
    done = rotate(cluster)
    assert done.returncode == 0, done.stderr
    assert "Do not give it as -master-key-previous" in done.stdout
    assert sealing_keys(directory_objects(root)) == {MasterKey.from_hex(NEW_KEY).key_id}
    cluster.stop()
    refused_with(cluster, {"MASTER_KEY": MASTER_KEY})
    cluster.environ = {"MASTER_KEY": NEW_KEY}
    cluster.start("one")
    after = seen(cluster.url)
    assert {key: after[key] for key in after if key != "k060"} == {
        key: before[key] for key in before if key != "k060"
    }


def refused_with(cluster: Cluster, environ: Mapping[str, str]) -> None:
    """A worker does not serve with these keys."""
    cluster.environ = environ
    cluster.start_main()
    worker = cluster.start_worker("one")
    assert worker.wait() == 2
    assert "master key" in worker.output
    cluster.stop()


def test_a_damaged_object_keeps_the_old_key(quick, tmp_path):
    root = tmp_path / "db"
    primary, previous = tmp_path / "primary", tmp_path / "previous"
    primary.write_text(MASTER_KEY)
    cluster = Cluster(quick, (f"-shared-fs={root}", "-cache-bytes=0"), tmp_path / "state", {})
    previous.write_text(NEW_KEY)
    cluster.start_main(f"-master-key-file={primary}", f"-master-key-previous-file={previous}")
    cluster.start_worker("one")
    cluster.ready(1)
    fill(cluster.url)
    path = root / "files" / "notes" / "k100.json.enc"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    # The files are exchanged while the service runs.
    primary.write_text(NEW_KEY)
    previous.write_text(MASTER_KEY)
    blocked = rotate(cluster)
    assert blocked.returncode == 1 and "1 objects fail their integrity check" in blocked.stdout
    path.write_bytes(whole)
    assert rotate(cluster).returncode == 0
    assert sealing_keys(directory_objects(root)) == {MasterKey.from_hex(NEW_KEY).key_id}


def test_workers_are_admitted_for_a_time_and_prove_themselves_again(started, tmp_path):
    root = tmp_path / "db"
    cluster = Cluster(started, (f"-shared-fs={root}",), tmp_path / "state")
    cluster.start_main("-worker-ttl=5s")
    for worker_id in ("one", "two"):
        cluster.start_worker(worker_id)
    cluster.ready(2)
    with load(cluster.url) as statuses:
        wait_for(lambda: cluster.main.output.count("worker_renewed") >= 6, "renewals")
        assert set(statuses) == {200}
        # Who does not know the token any more is out.
        token = root / "cluster" / "join-token"
        token.write_text("another-token-than-the-main-workers")
        for worker in cluster.workers.values():
            assert worker.wait(15) == 2
            assert "join token" in worker.output.splitlines()[-1]
