"""Who belongs to a database: wrong keys, wrong tokens, taken names, two main workers, a lost one."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from support.listing import directory_listing
from support.programs import Program, Programs, wait_for
from support.weed import SECRET_KEY

from deltadatabase import limits
from deltadatabase.auth import join as joining
from deltadatabase.crypto.wrap import WrapKey
from deltadatabase.rpc.pb import main_worker_pb2 as pb
from deltadatabase.rpc.pb import main_worker_pb2_grpc as pb_grpc
from integration.cluster import (
    JOIN_TOKEN,
    MARKER,
    MASTER_KEY,
    Cluster,
    bucket_listing,
    discreet_programs,
    get,
    not_ready,
    probe,
    put,
    s3_arguments,
    secrets_in,
)

pytestmark = pytest.mark.integration

OTHER_KEY = "a7" * 32
REJOIN_S = 5.0
KEYS = [f"k{number}" for number in range(30)]


@pytest.fixture
def started(tmp_path) -> Iterator[Programs]:
    with discreet_programs(tmp_path) as programs:
        yield programs


def refused(program: Program, says: str) -> None:
    """The program, which logs errors only, ends with one line and exit code 2."""
    assert program.wait() == 2
    lines = program.output.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{program.name}: "), program.output
    assert says in lines[0]


def write_all(url: str) -> None:
    """Put a document for each of ``KEYS``."""
    answer = httpx.put(f"{url}/entity/notes", content=json.dumps(dict.fromkeys(KEYS, MARKER)), timeout=20.0)
    assert answer.status_code == 200, answer.text


def read_all(url: str) -> None:
    """Every document is there."""
    for key in KEYS:
        answer = get(url, key)
        assert (answer.status_code, answer.content) == (200, f'"{MARKER}"'.encode()), answer.text


# Keys


@pytest.mark.parametrize("backend", ["directory", "s3"])
def test_a_wrong_master_key_writes_nothing(started, tmp_path, request, backend):
    if backend == "s3":
        weed = request.getfixturevalue("weed")
        store = s3_arguments(weed, "delta-wrong-key")
    else:
        store = (f"-shared-fs={tmp_path / 'db'}",)

    def listing() -> object:
        return (
            bucket_listing(weed, "delta-wrong-key") if backend == "s3" else directory_listing(tmp_path / "db")
        )

    right = Cluster(started, store, tmp_path / "state").start("proc-1")
    write_all(right.url)
    assert right.stop() == [0, 0]
    before = listing()
    assert before
    wrong = Cluster(started, store, tmp_path / "wrong-state", {"MASTER_KEY": OTHER_KEY})
    wrong.start_main()
    refused(wrong.start_worker("proc-1", "-log-level=error"), "master key")
    assert not_ready(wrong.url) == "wrong_master_key"
    checks = {check["name"]: check["code"] for check in probe(wrong.url, "/readyz")[1]["checks"]}
    assert checks["store"] == "wrong_master_key"
    assert probe(wrong.url, "/livez")[0] == 200
    assert get(wrong.url, "k1").status_code == 503
    assert wrong.main.stop() == 0
    secrets = {"S3_SECRET_KEY": SECRET_KEY} if backend == "s3" else {}
    alone = started.start(
        "deltadb",
        "serve",
        "-rest-addr=127.0.0.1:0",
        f"-state-dir={tmp_path / 'serve-state'}",
        "-log-level=error",
        *store,
        environ={"MASTER_KEY": OTHER_KEY, **secrets},
    )
    refused_serve(alone)
    assert listing() == before
    right.start("proc-1")
    read_all(right.url)


def refused_serve(program: Program) -> None:
    assert program.wait() == 2
    lines = program.output.splitlines()
    assert len(lines) == 1 and lines[0].startswith("deltadb serve: ") and "master key" in lines[0]


# Join tokens


def test_a_worker_without_the_join_token_learns_nothing(started, tmp_path):
    environ = {"MASTER_KEY": MASTER_KEY, "JOIN_TOKEN": JOIN_TOKEN}
    cluster = Cluster(started, [f"-shared-fs={tmp_path / 'db'}"], tmp_path / "state", environ)
    cluster.start_main()
    without = cluster.start_worker("proc-1", "-log-level=error")
    wrong = cluster.start_worker("proc-2", "-log-level=error", environ={"JOIN_TOKEN": "not-the-same-token"})
    refused(without, "join token")
    refused(wrong, "join token")
    for proof in (b"", bytes(32)):
        kinds, heard = ask_to_join(cluster.grpc_port, proof)
        assert kinds == ["challenge", "refused"], heard
        assert secrets_in(heard) == []
    assert not_ready(cluster.url) == "no_worker"
    assert httpx.get(f"{cluster.url}/admin/workers").json() == []
    assert not (tmp_path / "db" / "cluster" / "database.json").exists()
    cluster.start_worker("proc-3", environ={"JOIN_TOKEN": JOIN_TOKEN})
    cluster.ready(1)


def ask_to_join(port: int, proof: bytes) -> tuple[list[str], str]:
    """Ask as a worker does that has no token; every message's kind, and all of them as text."""
    join = pb.Join(
        worker_id="stranger",
        instance_id="0123456789abcdef",
        public_key=WrapKey.generate().public_bytes,
        nonce=bytes(joining.NONCE_BYTES),
        grpc_addr="127.0.0.1:1",
        backend="directory",
        message_bytes_max=limits.GRPC_MESSAGE_BYTES_MAX,
    )
    messages = [pb.WorkerMessage(join=join), pb.WorkerMessage(proof=pb.Proof(proof=proof))]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        heard = list(pb_grpc.MainWorkerStub(channel).Subscribe(iter(messages), timeout=10))
    return [message.WhichOneof("message") or "" for message in heard], str(heard)


def test_the_s3_secret_admits_where_there_is_no_other_token(started, tmp_path):
    environ = {"MASTER_KEY": MASTER_KEY, "S3_ACCESS_KEY": "x", "S3_SECRET_KEY": SECRET_KEY}
    store = ("-s3-endpoint=http://127.0.0.1:1", "-s3-bucket=delta-none", "-log-level=error")
    cluster = Cluster(started, store, tmp_path / "state", environ)
    cluster.start_main()
    stranger = {"S3_ACCESS_KEY": "x", "S3_SECRET_KEY": "another-secret"}
    refused(cluster.start_worker("proc-1", environ=stranger), "join token")
    admitted = cluster.start_worker(
        "proc-2", "-store-wait=1s", environ={"S3_ACCESS_KEY": "x", "S3_SECRET_KEY": SECRET_KEY}
    )
    refused(admitted, "not reachable")


# Names


def test_the_older_of_two_workers_with_one_name_ends(started, tmp_path):
    cluster = Cluster(started, [f"-shared-fs={tmp_path / 'db'}"], tmp_path / "state")
    cluster.start_main()
    older = cluster.start_worker("proc-1", "-log-level=error")
    cluster.ready(1)
    write_all(cluster.url)
    newer = cluster.start_worker("proc-1")
    refused(older, "-worker-id")
    cluster.ready(1)
    read_all(cluster.url)
    write_all(cluster.url)
    assert newer.process.poll() is None
    workers = httpx.get(f"{cluster.url}/admin/workers").json()
    assert [(each["worker_id"], each["status"]) for each in workers] == [("proc-1", "Available")]


# Main workers


def test_a_state_directory_has_one_main_worker(started, tmp_path):
    cluster = Cluster(started, [f"-shared-fs={tmp_path / 'db'}"], tmp_path / "state").start("proc-1")
    for program in (("main-worker", "-grpc-addr=127.0.0.1:0"), ("deltadb", "serve")):
        done = started.run(
            *program,
            "-rest-addr=127.0.0.1:0",
            f"-state-dir={tmp_path / 'state'}",
            "-log-level=error",
            *cluster.store,
            environ=cluster.environ,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1 and "state directory" in done.stderr
    write_all(cluster.url)
    read_all(cluster.url)


def epoch_of(cluster: Cluster) -> int:
    checks = {check["name"]: check["detail"] for check in probe(cluster.url, "/readyz")[1]["checks"]}
    return int(checks["placement"].removeprefix("epoch="))


def test_workers_come_back_to_a_main_worker_that_was_killed(started, tmp_path):
    cluster = Cluster(started, [f"-shared-fs={tmp_path / 'db'}"], tmp_path / "state")
    cluster.start("proc-1", "proc-2")
    write_all(cluster.url)
    epoch = epoch_of(cluster)
    cluster.main.kill()
    time.sleep(0.5)
    cluster.start_main()
    cluster.answers()
    cluster.ready(2, timeout_s=REJOIN_S)
    assert epoch_of(cluster) > epoch
    read_all(cluster.url)
    write_all(cluster.url)
    assert cluster.stop() == [0, 0, 0]


def test_epochs_go_on_when_the_state_directory_is_lost(started, tmp_path):
    cluster = Cluster(started, [f"-shared-fs={tmp_path / 'db'}"], tmp_path / "state")
    cluster.start("proc-1", "proc-2")
    write_all(cluster.url)
    reserved = highest_epoch(tmp_path)
    assert epoch_of(cluster) <= reserved
    assert cluster.main.stop() == 0
    shutil.rmtree(tmp_path / "state")
    cluster.start_main()
    cluster.ready(2)
    assert highest_epoch(tmp_path) > reserved
    assert epoch_of(cluster) > reserved
    read_all(cluster.url)
    write_all(cluster.url)


def highest_epoch(folder: Path) -> int:
    return int(json.loads((folder / "db" / "cluster" / "database.json").read_bytes())["highest_epoch"])


def test_two_main_workers_on_one_store_are_noticed(started, tmp_path):
    store = [f"-shared-fs={tmp_path / 'db'}"]
    first = Cluster(started, store, tmp_path / "state-1").start("proc-1")
    write_all(first.url)
    second = Cluster(started, store, tmp_path / "state-2").start("proc-2")
    assert put(second.url, "k0", '"newer"').status_code == 200
    wait_for(lambda: not_ready(first.url) == "foreign_writer", "the first notices the second", timeout_s=10.0)
    for answer in (get(first.url, "k0"), get(first.url, "k1"), put(first.url, "k1", '"lost"')):
        assert (answer.status_code, answer.json()["error"]) == (503, "foreign_writer")
    assert probe(first.url, "/livez")[0] == 200
    assert first.stop() == [0, 0]
    assert not_ready(second.url) == ""
    assert get(second.url, "k0").json() == "newer"
    assert get(second.url, "k1").json() == MARKER
