"""``deltadb scrub`` and ``deltadb doctor`` as processes, on a directory and on a real S3 server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.listing import directory_listing
from support.programs import Program, Programs, free_port, wait_for, wait_until_ready
from support.scrubbing import Scrubbed
from support.weed import S3Server

from deltadatabase.errors import StartupError
from deltadatabase.maintenance.offline import Rules
from deltadatabase.storage.base import When
from deltadatabase.storage.bucket import ensure_bucket
from deltadatabase.storage.database import read_database
from deltadatabase.storage.objects import S3Objects
from deltadatabase.storage.paths import entity_path, meta_path, presence_path
from integration.cluster import (
    MARKER,
    MASTER_KEY,
    bucket_listing,
    discreet_programs,
    get,
    put,
    s3_arguments,
    s3_client,
    secrets_in,
)

pytestmark = pytest.mark.integration

HOUR_S = 3600


class Place:
    """A database's store, seen past the database."""

    def __init__(self, root: Path | None, server: S3Server | None, bucket: str, work: Path) -> None:
        self.root = root
        self.server = server
        self.bucket = bucket
        self.state = work / "state"

    @property
    def flags(self) -> tuple[str, ...]:
        if self.server is not None:
            return (*s3_arguments(self.server, self.bucket), f"-state-dir={self.state}")
        return (f"-data={self.root}", f"-state-dir={self.state}")

    def read(self, path: str) -> bytes | None:
        if self.root is not None:
            file = self.root / path
            return file.read_bytes() if file.exists() else None
        client = s3_client(self.server)
        if path not in self.names():
            return None
        return client.get_object(Bucket=self.bucket, Key=path)["Body"].read()

    def write(self, path: str, data: bytes) -> None:
        if self.root is not None:
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_bytes(data)
        else:
            s3_client(self.server).put_object(Bucket=self.bucket, Key=path, Body=data)

    def remove(self, path: str) -> None:
        if self.root is not None:
            (self.root / path).unlink()
        else:
            s3_client(self.server).delete_object(Bucket=self.bucket, Key=path)

    def names(self) -> set[str]:
        if self.root is not None:
            return set(directory_listing(self.root))
        return set(bucket_listing(self.server, self.bucket))

    def objects(self) -> set[str]:
        """All names but those of a directory's lock files, which are made by use and hold nothing."""
        return {name for name in self.names() if not name.startswith("cluster/.locks/")}

    def everything(self) -> dict[str, object]:
        if self.root is not None:
            return dict(directory_listing(self.root))
        return dict(bucket_listing(self.server, self.bucket))

    def flip(self, path: str, offset: int = -1) -> None:
        data = bytearray(self.read(path) or b"")
        data[offset] ^= 1
        self.write(path, bytes(data))


@pytest.fixture(params=["directory", "s3"])
def place(request, tmp_path) -> Place:
    if request.param == "directory":
        return Place(tmp_path / "db", None, "", tmp_path)
    server: S3Server = request.getfixturevalue("weed")
    return Place(None, server, f"scrub-{os.urandom(4).hex()}", tmp_path)


@pytest.fixture
def on_directory(tmp_path) -> Place:
    return Place(tmp_path / "db", None, "", tmp_path)


@pytest.fixture
def started(tmp_path) -> Iterator[Programs]:
    with discreet_programs(tmp_path, {"MASTER_KEY": MASTER_KEY}) as programs:
        yield programs


def serve(started: Programs, place: Place, *flags: str, workers: int = 1) -> tuple[str, Program]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    program = started.start("deltadb", "serve", f"-rest-addr=127.0.0.1:{port}", *place.flags, *flags)
    wait_until_ready(url, program, workers=workers)
    return url, program


def scrub(started: Programs, place: Place, *flags: str, code: int = 0) -> dict[str, Any]:
    done = started.run("deltadb", "scrub", "-json", *place.flags, *flags)
    assert done.returncode == code, done
    assert secrets_in(done.stdout + done.stderr) == [] and "Traceback" not in done.stderr
    return json.loads(done.stdout) if done.stdout else {"message": done.stderr}


def found(report: dict[str, Any]) -> dict[str, int]:
    return dict(report["counts"]["found"])


def test_every_kind_of_damage_is_found_set_aside_and_written_again(started, place):
    url, program = serve(started, place)
    keys = ("flipped", "short", "swapped a", "swapped/b", "foreign", "fine", "no meta", "old meta", "orphan")
    names = {key: ("notes", f"k-{key.replace('/', '-')}") for key in keys}
    for key in keys:
        assert put(url, names[key][1], json.dumps({"text": MARKER})).status_code == 200
    assert scrub(started, place)["clean"]
    old = place.read(meta_path(*names["old meta"]))
    assert put(url, names["old meta"][1], '{"text": "new"}').status_code == 200
    assert program.stop() == 0

    entity = {key: entity_path(*name) for key, name in names.items()}
    place.flip(entity["flipped"])
    place.write(entity["short"], place.read(entity["short"])[:-70])
    one, other = place.read(entity["swapped a"]), place.read(entity["swapped/b"])
    place.write(entity["swapped a"], other)
    place.write(entity["swapped/b"], one)
    place.write(entity["foreign"], b"\x89PNG")
    place.write("files/notes/readme.txt", b"not ours")
    place.remove(meta_path(*names["no meta"]))
    place.write(meta_path(*names["old meta"]), old)
    place.remove(entity["orphan"])
    before = place.everything()

    wanted = {
        "integrity/none": 1,
        "truncated/none": 1,
        "misplaced/none": 2,
        "foreign/none": 1,
        "unknown_file/none": 1,
        "meta_missing/none": 1,
        "meta_wrong/none": 1,
        "meta_orphan/none": 1,
    }
    report = scrub(started, place, "-dry-run", code=1)
    assert found(report) == wanted
    assert place.everything() == before
    told = {(finding.get("schema_id"), finding.get("key")) for finding in report["findings"]}
    assert {names[key] for key in keys if key != "fine"} <= told

    url, _ = serve(started, place)
    for key in ("flipped", "short", "swapped a", "swapped/b", "foreign"):
        assert get(url, names[key][1]).status_code == 500, key
    report = scrub(started, place, "-quarantine", "-remove-orphans", code=1)
    assert found(report) == {
        "integrity/quarantined": 1,
        "truncated/quarantined": 1,
        "misplaced/quarantined": 2,
        "foreign/quarantined": 1,
        "unknown_file/none": 1,
        "meta_missing/rebuilt": 1,
        "meta_wrong/rebuilt": 1,
        "meta_orphan/removed": 1,
        "quarantined/none": 5,
    }
    for key in ("flipped", "short", "swapped a", "swapped/b", "foreign"):
        assert get(url, names[key][1]).status_code == 404, key
        assert put(url, names[key][1], f'["{key}"]').status_code == 200, key
        assert get(url, names[key][1]).json() == [key]
    # The header of the flipped one was sound, so its versions go on: damaged 1, tombstone 2, this 3.
    assert get(url, names["flipped"][1]).headers["etag"].startswith('"3-')
    assert get(url, names["fine"][1]).json() == {"text": MARKER}
    place.remove("files/notes/readme.txt")
    assert scrub(started, place)["clean"]
    assert {one, other} <= {place.read(name) for name in place.names() if name.startswith("quarantine/")}


def test_while_clients_write_nothing_is_lost_and_no_meta_file_is_old(started, place):
    many = place.server is None
    url, program = serve(started, place, *(["-workers=2"] if many else []), workers=2 if many else 1)
    acknowledged: dict[str, int] = {}
    failures: list[str] = []
    ends = threading.Event()

    def write(thread: int) -> None:
        count = 0
        with httpx.Client(base_url=url, timeout=20.0) as client:
            while not ends.is_set():
                count += 1
                key = f"k{thread}-{count % 20}"
                answer = client.put("/entity/notes", content=json.dumps({key: {"n": count}}))
                if answer.status_code != 200:
                    failures.append(answer.text)
                    continue
                acknowledged[key] = count

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(acknowledged) >= 60, "all keys are written")
        for _ in range(3):
            report = scrub(started, place, "-quarantine", "-remove-orphans")
            damage = {
                name for name in found(report) if name.split("/")[0] not in ("meta_missing", "meta_wrong")
            }
            assert damage == set(), report
    finally:
        ends.set()
        for thread in threads:
            thread.join()
    assert failures == []
    for key, count in acknowledged.items():
        assert get(url, key).json() == {"n": count}
    assert program.stop() == 0
    report = scrub(started, place)
    assert found(report) == {} and report["counts"]["entities"] == 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_scrub_goes_on_where_it_ended(started, on_directory, number):
    place = on_directory
    url, program = serve(started, place)
    documents = {f"k{count:04}": count for count in range(3000)}
    keys = sorted(documents)
    for start in range(0, len(keys), 500):
        body = json.dumps({key: documents[key] for key in keys[start : start + 500]})
        assert httpx.put(f"{url}/entity/notes", content=body, timeout=60.0).status_code == 200
    assert program.stop() == 0
    for key in keys:
        (place.root / meta_path("notes", key)).unlink(missing_ok=True)
    place.flip(entity_path("notes", keys[0]))
    place.flip(entity_path("notes", keys[-1]))
    position = place.state / "scrub.json"

    running = started.start("deltadb", "scrub", *place.flags)
    # It rebuilds 3,000 files, each made durable; the position is saved every two seconds.
    wait_for(
        lambda: (
            running.process.poll() is not None
            or (position.exists() and json.loads(position.read_bytes())["after"])
        ),
        "a position is saved",
    )
    assert running.process.poll() is None, running.output
    running.signal(number)
    code = running.wait()
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 2 and "deltadb scrub -resume" in running.output
    saved = json.loads(position.read_bytes())
    done = saved["ledger"]["counts"]["objects"]
    assert 0 < done < 3000 + 500

    other = scrub(started, place, "-resume", "-remove-orphans", code=2)
    assert "other flags" in other["message"]
    report = scrub(started, place, "-resume", code=1)
    assert report["complete"] and found(report)["integrity/none"] == 2
    assert report["counts"]["entities"] == 2998
    assert not position.exists()
    again = scrub(started, place, "-resume", code=2)
    assert "no interrupted scrub" in again["message"]
    assert found(scrub(started, place, code=1)) == {"integrity/none": 2}


def aged(place: Place, *paths: str, by_s: float) -> None:
    """Let objects of a directory be older."""
    assert place.root is not None
    for path in paths:
        file = place.root / path
        then = file.stat().st_mtime - by_s
        os.utime(file, (then, then))


def test_tombstones_are_removed_offline_only(started, on_directory):
    place = on_directory
    url, program = serve(started, place)
    for key in ("gone", "young", "kept"):
        assert put(url, key, "1").status_code == 200
    for key in ("gone", "young"):
        assert httpx.delete(f"{url}/entity/notes", params={"key": key}).status_code == 200
    mark = presence_path("embedded")
    gone = entity_path("notes", "gone")
    assert mark in place.names()

    refused = scrub(started, place, "-remove-tombstones", code=2)["message"]
    assert "embedded 0 min ago" in refused
    assert program.stop() == 0
    aged(place, gone, by_s=2 * HOUR_S)
    assert "embedded" in scrub(started, place, "-remove-tombstones", code=2)["message"]
    aged(place, mark, by_s=1.2 * HOUR_S)
    assert "embedded" in scrub(started, place, "-remove-tombstones", code=2)["message"]
    assert gone in place.names()
    assert json.loads(place.read("cluster/database.json"))["maintenance"] == ""

    aged(place, mark, by_s=0.2 * HOUR_S)
    report = scrub(started, place, "-remove-tombstones")
    assert found(report) == {"tombstone/removed": 1}
    assert gone not in place.names() and meta_path("notes", "gone") not in place.names()
    assert entity_path("notes", "young") in place.names()
    assert json.loads(place.read("cluster/database.json"))["maintenance"] == ""

    url, _ = serve(started, place)
    assert get(url, "gone").status_code == 404 and get(url, "kept").json() == 1
    assert put(url, "gone", "2").status_code == 200


def test_on_s3_a_removal_within_the_hour_is_refused(started, weed, tmp_path):
    place = Place(None, weed, f"scrub-{os.urandom(4).hex()}", tmp_path)
    url, program = serve(started, place)
    assert put(url, "gone", "1").status_code == 200
    assert httpx.delete(f"{url}/entity/notes", params={"key": "gone"}).status_code == 200
    assert "embedded" in scrub(started, place, "-remove-tombstones", code=2)["message"]
    assert program.stop() == 0
    before = place.names()
    assert "embedded" in scrub(started, place, "-remove-tombstones", code=2)["message"]
    assert place.names() == before and entity_path("notes", "gone") in before


async def test_on_s3_tombstones_go_by_the_stores_own_times(weed):
    """In this process, where the ages can be others than the product's."""
    store = S3Objects(weed.settings(f"scrub-{os.urandom(4).hex()}"))
    await ensure_bucket(store)
    world = Scrubbed(store=store)
    await world.create()
    await world.entity("notes", "gone", tombstone=True)
    await world.entity("notes", "kept")
    await store.put(presence_path("proc-1"), b"mark", When.ALWAYS)
    patient = Rules(tombstone_age_s=2, presence_age_s=4)
    with pytest.raises(StartupError, match="proc-1"):
        await world.scrub(remove_tombstones=True, rules=patient)
    await asyncio.sleep(5.1)
    await world.entity("notes", "young", tombstone=True)
    found = await world.found(remove_tombstones=True, rules=patient)
    assert found == {"tombstone/removed": 1}
    left = {info.path for info in await store.list("files/notes/")}
    assert left == {
        path for key in ("kept", "young") for path in (entity_path("notes", key), meta_path("notes", key))
    }
    assert await store.list("cluster/presence/") == []
    assert (await read_database(store)).maintenance == ""


@pytest.mark.parametrize("program", ["serve", "workers", "proc-worker"])
def test_no_worker_starts_during_maintenance(started, place, program):
    _, server = serve(started, place)
    assert server.stop() == 0
    info = json.loads(place.read("cluster/database.json"))
    place.write("cluster/database.json", json.dumps({**info, "maintenance": "a-killed-scrub"}).encode())
    store = place.flags[:-1]
    if program == "proc-worker":
        grpc, rest = free_port(), free_port()
        unused = f"-shared-fs={place.state.parent / 'unused'}"
        main = started.start(
            "main-worker",
            f"-grpc-addr=127.0.0.1:{grpc}",
            f"-rest-addr=127.0.0.1:{rest}",
            f"-state-dir={place.state}",
            *(store if place.root else (unused,)),
            "-join-token=the-join-token-of-the-tests",
        )
        flags = ("-worker-id=w1", f"-main-addr=127.0.0.1:{grpc}", "-join-token=the-join-token-of-the-tests")
        flags = tuple(flag.replace("-data=", "-shared-fs=") for flag in (*flags, *store))
        refused = started.start("proc-worker", *flags)
        assert refused.wait() == 2
        assert main.stop() == 0
    else:
        many = ["-workers=1"] if program == "workers" else []
        refused = started.start(
            "deltadb", "serve", f"-rest-addr=127.0.0.1:{free_port()}", *place.flags, *many
        )
        assert refused.wait() == 2
    assert "deltadb scrub -end-maintenance" in refused.output, refused.output

    doctor = started.run("deltadb", "doctor", *place.flags)
    assert doctor.returncode == 1 and "-end-maintenance" in doctor.stdout
    # A scrub that needs no flag works meanwhile.
    assert scrub(started, place)["clean"]
    cleared = started.run("deltadb", "scrub", "-end-maintenance", *place.flags)
    assert cleared.returncode == 0 and "cleared" in cleared.stdout, cleared
    url, _ = serve(started, place)
    assert put(url, "k", "1").status_code == 200


def test_every_worker_marks_its_presence(started, place):
    serve(started, place, "-workers=2", workers=2)
    wait_for(
        lambda: {presence_path("proc-1"), presence_path("proc-2")} <= place.names(), "both have their marks"
    )


def test_what_cannot_be_scrubbed_is_said_in_a_line_and_nothing_is_made(started, place, tmp_path):
    _, server = serve(started, place)
    assert server.stop() == 0
    before = place.everything()
    wrong = started.run("deltadb", "scrub", *place.flags, environ={"MASTER_KEY": "ab" * 32})
    assert wrong.returncode == 2 and "master key" in wrong.stderr
    none = started.run("deltadb", "scrub", *place.flags, environ={"MASTER_KEY": ""})
    assert none.returncode == 2 and "no master key" in none.stderr
    assert place.everything() == before
    empty = tmp_path / "empty"
    empty.mkdir()
    missing = started.run("deltadb", "scrub", f"-data={empty}")
    assert missing.returncode == 2 and "no database" in missing.stderr and not list(empty.iterdir())
    flags = started.run("deltadb", "scrub", *place.flags, "-dry-run", "-remove-tombstones")
    assert flags.returncode == 2 and len(flags.stderr.splitlines()) == 1


def test_leftovers_of_interrupted_commits_are_told(started, on_directory):
    place = on_directory
    _, server = serve(started, place)
    assert server.stop() == 0
    place.write("cluster/.tmp/5a/old", b"x")
    aged(place, "cluster/.tmp/5a/old", by_s=2 * HOUR_S)
    place.write("cluster/.tmp/5a/young", b"x")
    assert found(scrub(started, place)) == {"leftover/removed": 1}
    assert (place.root / "cluster/.tmp/5a/young").exists()


# -- doctor ------------------------------------------------------------------------------


def doctor(started: Programs, *flags: str, code: int, **environ: str) -> dict[str, Any]:
    done = started.run("deltadb", "doctor", "-json", *flags, environ=environ)
    assert done.returncode == code, done
    assert secrets_in(done.stdout + done.stderr) == []
    return json.loads(done.stdout)


def statuses(diagnosis: dict[str, Any]) -> dict[str, str]:
    return {f"{check['area']}/{check['name']}": check["status"] for check in diagnosis["checks"]}


def test_the_doctor_finds_a_healthy_database_healthy_while_it_runs(started, place):
    serve(started, place)
    before = place.objects()
    diagnosis = doctor(started, *place.flags, code=0)
    assert diagnosis["healthy"] and diagnosis["database"]["shards"] == 1024
    seen = statuses(diagnosis)
    assert seen["keys/master key"] == "ok" and seen["guarantees/racing_updates"] == "ok"
    assert seen["clock/skew"] == "ok"
    texts = {f"{check['area']}/{check['name']}": check["text"] for check in diagnosis["checks"]}
    assert "embedded" in texts["database/workers"]
    assert "a main worker runs with it" in texts["state directory/in use"]
    assert "samples=50" in texts["speed/put"]
    assert place.objects() == before and not [name for name in before if name.startswith("cluster/probe/")]


def test_the_doctor_writes_nothing_for_good_with_a_wrong_key(started, place):
    _, server = serve(started, place)
    assert server.stop() == 0
    before = place.everything()
    diagnosis = doctor(started, *place.flags, code=1, MASTER_KEY="ab" * 32)
    assert statuses(diagnosis)["keys/master key"] == "failed"
    after = place.everything()
    objects = place.objects()
    assert {name: after[name] for name in objects} == {
        name: content for name, content in before.items() if name in objects or "/.locks/" not in name
    }


def test_the_doctor_makes_no_database(started, tmp_path, weed):
    empty = tmp_path / "empty"
    empty.mkdir()
    diagnosis = doctor(started, f"-data={empty}", code=0)
    assert diagnosis["database"] is None and not list(empty.iterdir())
    nowhere = started.run("deltadb", "doctor", f"-data={tmp_path / 'nowhere'}")
    assert nowhere.returncode == 2 and not (tmp_path / "nowhere").exists()
    bucket = f"none-{os.urandom(4).hex()}"
    missing = started.run("deltadb", "doctor", *s3_arguments(weed, bucket))
    assert missing.returncode == 2 and "bucket" in missing.stderr
    assert bucket not in {each["Name"] for each in s3_client(weed).list_buckets()["Buckets"]}


def test_the_doctor_sees_open_secrets(started, on_directory):
    place = on_directory
    _, server = serve(started, place)
    assert server.stop() == 0
    (place.state / "accounts.db").chmod(0o644)
    (place.root / "cluster" / "join-token").write_text("a-token-of-32-characters-or-more\n")
    (place.root / "cluster" / "join-token").chmod(0o644)
    seen = statuses(doctor(started, *place.flags, code=1))
    assert seen["state directory/accounts.db"] == "warning" and seen["joining/join token"] == "warning"


def test_both_show_themselves_on_a_terminal(started, on_directory):
    """Through a terminal: bars and colours there, plain text and no bar in a pipe."""
    place = on_directory
    url, _ = serve(started, place)
    for count in range(20):
        put(url, f"k{count}", "1")
    wait_for(lambda: len(list(place.root.rglob("*.meta.json"))) == 20, "all files are written")
    leader, follower = os.openpty()
    done = subprocess.run(
        [*_python(), "deltadb", "scrub", *place.flags],
        env={**os.environ, "MASTER_KEY": MASTER_KEY, "TERM": "xterm"},
        stderr=follower,
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    os.close(follower)
    time.sleep(0.1)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.returncode == 0 and "40/40" in shown and "100%" in shown
    assert b"\x1b" not in done.stdout and b"Nothing remains" in done.stdout
    piped = started.run("deltadb", "doctor", *place.flags)
    assert "\x1b" not in piped.stdout and "Nothing needs attention" in piped.stdout and piped.stderr == ""


def _python() -> list[str]:
    import sys

    return [sys.executable, "-m", "deltadatabase.cli"]
