"""The commands of the user's document on the S3 topology, as they are written there.

Only hosts and ports differ: they are those of the processes and of the S3 server of this run.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.programs import free_port, wait_for
from support.weed import S3Server, running_weed

from integration.cluster import (
    ADMIN_KEY,
    MARKER,
    MASTER_KEY,
    Cluster,
    bucket_listing,
    discreet_programs,
    get,
    not_ready,
    put,
    s3_client,
)

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TEMPLATE = "shared/db/templates/chat.v1.json"
BUCKET = "delta-db"

PROC_WORKER = """\
proc-worker \\
  -main-addr=main-worker:50051 \\
  -worker-id=proc-1 \\
  -grpc-addr=0.0.0.0:50052 \\
  -s3-endpoint=http://rustfs:9000 \\
  -s3-bucket=delta-db \\
  -s3-access-key=minioadmin \\
  -s3-secret-key=minioadmin \\
  -s3-path-style=true
"""
POST_TEMPLATE = """\
curl -X POST http://localhost:8080/schemas/chat.v1 \\
  -H "Content-Type: application/json" \\
  -d @shared/db/templates/chat.v1.json
"""
HEALTH = "curl http://localhost:8080/health"
MAKE_MASTER_KEY = "openssl rand -hex 32"
FLAGS = {
    "-s3-endpoint": "",
    "-s3-bucket": "",
    "-s3-region": "us-east-1",
    "-s3-access-key": "",
    "-s3-secret-key": "",
    "-s3-path-style": "true",
}


def start_worker(cluster: Cluster, weed: S3Server) -> None:
    """Start the worker by the document's example command."""
    command = (
        PROC_WORKER.replace("main-worker:50051", f"127.0.0.1:{cluster.grpc_port}")
        .replace("0.0.0.0:50052", f"127.0.0.1:{free_port()}")
        .replace("http://rustfs:9000", weed.endpoint)
    )
    program, *arguments = shlex.split(command.replace("\\\n", ""))
    cluster.workers["proc-1"] = cluster.programs.start(program, *arguments)


def shell(command: str, cluster: Cluster) -> str:
    """What a shell in the repository's root prints for a command against this main worker."""
    command = command.replace("localhost:8080", f"localhost:{cluster.rest_port}")
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def weed(tmp_path_factory) -> Iterator[S3Server]:
    """A server of this file alone: the document names its bucket, as other tests do."""
    with running_weed(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(weed, tmp_path_factory) -> Iterator[Cluster]:
    """A main worker in dev mode, and the document's worker."""
    folder = tmp_path_factory.mktemp("document")
    key = subprocess.run(shlex.split(MAKE_MASTER_KEY), capture_output=True, text=True, check=True).stdout
    with discreet_programs(folder) as started:
        cluster = Cluster(started, (), folder / "state", {"MASTER_KEY": key.strip()})
        cluster.start_main()
        start_worker(cluster, weed)
        cluster.ready(1)
        yield cluster
        assert cluster.stop() == [0, 0]


def test_the_example_command_starts_a_worker_and_makes_the_bucket(cluster, weed):
    workers = httpx.get(f"{cluster.url}/admin/workers").json()
    assert [(each["worker_id"], each["status"]) for each in workers] == [("proc-1", "Available")]
    assert BUCKET in {bucket["Name"] for bucket in s3_client(weed).list_buckets()["Buckets"]}
    assert "documents are not validated" in cluster.workers["proc-1"].output


def test_health(cluster):
    assert json.loads(shell(HEALTH, cluster))["status"] == "ok"


def test_the_flags_have_the_documented_defaults(cluster):
    text = cluster.programs.run("proc-worker", "-h").stdout
    for flag, default in FLAGS.items():
        found = re.search(rf"^  {flag}\b.*\n((?:      .*\n)+)", text, re.MULTILINE)
        assert found, flag
        assert (f"(default {default})" in found[1]) is bool(default)


def test_a_template_is_uploaded_by_rest(cluster):
    assert json.loads(shell(POST_TEMPLATE, cluster))["status"] == "ok"
    stored = httpx.get(f"{cluster.url}/schema/chat.v1").content
    assert json.loads(stored) == json.loads((ROOT / TEMPLATE).read_bytes())
    refused = put(cluster.url, "m1", json.dumps({"text": 1}), "chat.v1")
    assert refused.status_code == 400 and refused.json()["errors"]


def test_a_template_is_uploaded_by_an_s3_client(cluster, weed):
    """As ``aws s3 cp`` does, which sends the file by PutObject."""
    httpx.delete(f"{cluster.url}/schema/chat.v1").raise_for_status()
    assert put(cluster.url, "m1", '{"text": 1}', "chat.v1").status_code == 200
    key = "templates/chat.v1.json"
    s3_client(weed).upload_file(str(ROOT / TEMPLATE), BUCKET, key)
    wait_for(
        lambda: put(cluster.url, "m1", '{"text": 1}', "chat.v1").status_code == 400,
        "the template is in force",
        timeout_s=5.0,
    )
    assert httpx.get(f"{cluster.url}/schema/chat.v1").content == (ROOT / TEMPLATE).read_bytes()
    # And gone again for the tests that use the schema id.
    s3_client(weed).delete_object(Bucket=BUCKET, Key=key)
    wait_for(
        lambda: put(cluster.url, "m1", '{"text": 1}', "chat.v1").status_code == 200,
        "the template is no longer in force",
        timeout_s=5.0,
    )


def test_the_objects_have_the_documented_names(cluster, weed):
    assert put(cluster.url, "room:7 – a", f'{{"text": "{MARKER}"}}', "notes.v1").status_code == 200
    client = s3_client(weed)

    def mine() -> list[str]:
        return sorted(name for name in bucket_listing(weed, BUCKET) if name.startswith("files/notes.v1/"))

    wait_for(lambda: len(mine()) == 2, "blob and metadata are stored")
    blob, meta = mine()
    assert blob.endswith(".json.enc") and meta == blob.removesuffix(".json.enc") + ".meta.json"
    sealed, described = (client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in (blob, meta))
    assert MARKER.encode() not in sealed
    described = json.loads(described)
    assert {"iv", "tag", "key_id", "version"} <= described.keys()
    assert "notes.v1" in described.values()
    assert base64.b64decode(described["tag"]) == sealed[-16:]


def test_everything_is_there_again_after_a_restart(cluster, weed):
    assert put(cluster.url, "kept", f'{{"text": "{MARKER}"}}').status_code == 200
    assert cluster.stop() == [0, 0]
    cluster.start_main()
    start_worker(cluster, weed)
    cluster.ready(1)
    assert get(cluster.url, "kept").json() == {"text": MARKER}


def test_outside_dev_mode_the_upload_is_told_what_is_missing(tmp_path):
    with discreet_programs(tmp_path) as started:
        cluster = Cluster(started, (), tmp_path / "state", {"MASTER_KEY": MASTER_KEY, "ADMIN_KEY": ADMIN_KEY})
        cluster.start_main()
        wait_for(lambda: not_ready(cluster.url) == "no_worker", "the main worker answers")
        assert json.loads(shell(HEALTH, cluster))["status"] == "ok"
        problem = json.loads(shell(POST_TEMPLATE, cluster))
        assert (problem["status"], problem["error"]) == (401, "unauthenticated")
        assert "Authorization: Bearer <key>" in problem["detail"]
        assert "deltadb admin-key" in problem["detail"]
        with_key = POST_TEMPLATE.replace("-X POST", f'-X POST -H "Authorization: Bearer {ADMIN_KEY}"')
        assert json.loads(shell(with_key, cluster))["error"] == "no_worker"
