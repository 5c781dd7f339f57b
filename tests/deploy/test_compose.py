"""Every Compose file, its commands, variables and health checks run as processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import botocore.exceptions
import pytest
from integration.cluster import s3_client
from support.discretion import ADMIN_KEY, MASTER_KEY
from support.ports import free_ports
from support.programs import wait_for
from support.weed import S3Server

from deploy.compose import FOLDER, commented_blocks, read, running, with_service
from deploy.containers import store_and_read

pytestmark = pytest.mark.integration

ALL_IN_ONE = "docker-compose.all-in-one.yml"
ONE = "docker-compose.one-main-one-worker.yml"
FILES = {
    ALL_IN_ONE: "deltadb",
    ONE: "main-worker",
    "docker-compose.one-main-multiple-workers.yml": "main-worker",
    "docker-compose.s3.yml": "main-worker",
    "docker-compose.with-monitoring.yml": "main-worker",
}
S3 = FOLDER / "docker-compose.s3.yml"
BUCKET = "delta-db"
PORT = 9000
"""Where RustFS and MinIO serve S3."""
SECRET = "the-secret-key-of-this-test"
SEAWEEDFS = """\
rustfs:
  image: chrislusf/seaweedfs:latest
  command: server -s3
  environment:
    # SeaweedFS uses its own config format; see SeaweedFS docs for S3 gateway setup
"""
MINIO = """\
rustfs:
  image: minio/minio:latest
  command: server /data --console-address ":9001"
  environment:
    MINIO_ROOT_USER: "${S3_ACCESS_KEY:-minioadmin}"
    MINIO_ROOT_PASSWORD: "${S3_SECRET_KEY:-minioadmin}"
"""


def test_these_are_the_files():
    assert {path.name for path in FOLDER.glob("*.yml")} == FILES.keys()


@pytest.mark.parametrize(("name", "service"), FILES.items())
def test_a_file_works_as_it_stands(tmp_path, store, name, service):
    """Without a single variable exported."""
    with running(tmp_path, read(FOLDER / name), stores=(PORT, store)) as composition:
        composition.serves(service)
        made = {path.name for path in (tmp_path / "volumes" / "state" / "state").iterdir()}
        assert {"master-key", "admin-key"} <= made


def test_the_documents_exports_are_taken_over(tmp_path, store):
    exported = {
        "S3_ACCESS_KEY": store.access_key,
        "S3_SECRET_KEY": store.secret_key,
        "MASTER_KEY": MASTER_KEY,
        "ADMIN_KEY": ADMIN_KEY,
    }
    model = read(S3, exported)
    given = model["services"]["rustfs"]["environment"]
    assert (given["RUSTFS_ACCESS_KEY"], given["RUSTFS_SECRET_KEY"]) == (store.access_key, store.secret_key)
    with running(tmp_path, model, stores=(PORT, store)) as composition:
        store_and_read(f"http://{composition.host.published('main-worker', 8080)}", ADMIN_KEY)
        kept = {path.name for path in (tmp_path / "volumes" / "state" / "state").iterdir()}
        assert not {"master-key", "admin-key"} & kept


def test_s3_and_console_are_published():
    store = read(S3)["services"]["rustfs"]
    published = {port["published"]: port["target"] for port in store["ports"]}
    assert published == {"9000": PORT, "9001": 9001}
    environ = store["environment"]
    assert (environ["RUSTFS_ADDRESS"], environ["RUSTFS_CONSOLE_ADDRESS"]) == (":9000", ":9001")
    assert environ["RUSTFS_CONSOLE_ENABLE"] == "true"


def lines_of(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.strip()]


def test_the_blocks_of_the_document_stand_in_the_file():
    for written, documented in zip(commented_blocks(S3, "rustfs"), (SEAWEEDFS, MINIO), strict=True):
        assert [line for line in lines_of(written) if line in lines_of(documented)] == lines_of(documented)


def test_with_the_documents_seaweedfs_block(tmp_path):
    """Its command is run as written, with nothing but ports and a directory of this test added."""
    exported = {"S3_ENDPOINT": "http://rustfs:8333"}
    # Pasted over the lines that it replaces. What stands below them stays: as the whole service, an
    # `environment` of comments only would be refused by Docker Compose.
    before, rest = S3.read_text().split("  rustfs:\n", 1)
    after = rest.partition("    environment:\n")[2]
    path = tmp_path / "docker-compose.yml"
    path.write_text(before + textwrap.indent(SEAWEEDFS, "  ") + after)
    model = read(path, exported)
    service = model["services"]["rustfs"]
    assert service["command"] == ["server", "-s3"]
    with (
        plain_weed(tmp_path / "weed", service["command"], service["environment"]) as server,
        running(tmp_path, model, stores=(8333, server)) as composition,
    ):
        composition.serves("main-worker")


def test_the_files_own_seaweedfs_block_lets_in_who_has_the_keys(tmp_path):
    exported = {"S3_ACCESS_KEY": "mine", "S3_SECRET_KEY": SECRET}
    path = with_service(S3, "rustfs", commented_blocks(S3, "rustfs")[0], tmp_path / "docker-compose.yml")
    service = read(path, exported)["services"]["rustfs"]
    with plain_weed(tmp_path / "weed", service["command"], service["environment"]) as server:
        mine = replace(server, access_key="mine", secret_key=SECRET)
        wait_for(lambda: creates_a_bucket(mine), "its owner is let in")
        assert not creates_a_bucket(replace(mine, secret_key="not-the-secret-key"))
        assert not creates_a_bucket(replace(mine, access_key="minioadmin"))


def creates_a_bucket(server: S3Server) -> bool:
    try:
        s3_client(server).create_bucket(Bucket=BUCKET)
    except botocore.exceptions.BotoCoreError:
        return False
    except botocore.exceptions.ClientError as refusal:
        return refusal.response["Error"]["Code"] in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
    return True


def test_with_minio(tmp_path, store):
    """There is no MinIO here: another S3 server with the credentials of the block stands for it."""
    path = with_service(S3, "rustfs", MINIO, tmp_path / "docker-compose.yml")
    model = read(path)
    environ = model["services"]["rustfs"]["environment"]
    assert environ == {"MINIO_ROOT_USER": "minioadmin", "MINIO_ROOT_PASSWORD": "minioadmin"}
    assert read(with_service(S3, "rustfs", commented_blocks(S3, "rustfs")[1], path)) == model
    with running(tmp_path, model, stores=(PORT, store)) as composition:
        composition.serves("main-worker")


@contextmanager
def plain_weed(folder: Path, command: list[str], environ: Mapping[str, str]) -> Iterator[S3Server]:
    """SeaweedFS by a command, without any configuration, as its container runs it."""
    folder.mkdir()
    names = [
        f"{role}{end}" for role in ("master", "volume", "filer", "s3") for end in (".port", ".port.grpc")
    ]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    weed = Path(sys.executable).parent / "weed"
    # The port that the block's comment names.
    described = subprocess.run([weed, "server", "-h"], capture_output=True, text=True, check=False)
    assert re.search(r"-s3\.port int\n.*\(default 8333\)", described.stdout + described.stderr)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [weed, *command, f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.port.iceberg=0",
             "-s3.port.lance=0", "-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock",
             "-master.electionTimeout=1s", "-volume.max=100", "-volume.preStopSeconds=0",
             "-volume.minFreeSpace=1MiB", "-master.telemetry=false",
             *(f"-{name}={port}" for name, port in ports.items())],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        )  # fmt: skip
    try:
        yield S3Server(folder, {"s3": ports["s3.port"]})
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
