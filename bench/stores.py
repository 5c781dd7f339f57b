"""Object stores under the database and under the raw baseline: SeaweedFS, MinIO, any other."""

from __future__ import annotations

import contextlib
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.store import S3Store

from bench.programs import Server, free_port, running

BUCKET = "bench"
MINIO_SECRET = "minio-secret-of-the-bench"
DELAY_MS = 5


@dataclass(frozen=True)
class S3:
    """An S3 endpoint.

    Attributes:
        name: shown in reports.
        endpoint, access_key, secret_key, region: of its bucket ``bucket``.
        servers: its processes, where they are here.
    """

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    bucket: str = BUCKET
    region: str = "us-east-1"
    servers: tuple[Server, ...] = ()

    def flags(self, name: str) -> tuple[str, ...]:
        """What the database is started with, for a bucket of its own: ``<bucket>-<name>``."""
        return (
            f"-s3-endpoint={self.endpoint}",
            f"-s3-bucket={self.bucket}-{name}",
            f"-s3-region={self.region}",
            f"-s3-access-key={self.access_key}",
            f"-s3-secret-key={self.secret_key}",
        )

    def store(self) -> S3Store:
        """The same for obstore."""
        return S3Store(
            self.bucket,
            endpoint=self.endpoint,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            client_options={"allow_http": True, "timeout": timedelta(seconds=30)},
        )

    def make_bucket(self) -> None:
        """Make the raw baseline's bucket. Raises ``OSError`` while the server isn't ready."""
        signed = obstore.sign(self.store(), "PUT", "", timedelta(minutes=1))
        try:
            urllib.request.urlopen(urllib.request.Request(signed, method="PUT"), timeout=5).close()
        except urllib.error.HTTPError as exc:
            if exc.code != 409:
                raise


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[S3]:
    """The S3 server of the tests (``PYTHONPATH=tests``)."""
    from support.weed import running_weed

    with running_weed(folder) as weed:
        found = S3(
            "SeaweedFS",
            weed.endpoint,
            weed.access_key,
            weed.secret_key,
            servers=(Server("SeaweedFS", weed.pid, 0),),
        )
        found.make_bucket()
        yield found


@contextlib.contextmanager
def minio(folder: Path, program: Path) -> Iterator[S3]:
    """MinIO on one folder."""
    port, console = free_port(), free_port()
    found = S3("MinIO", f"http://127.0.0.1:{port}", "bench", MINIO_SECRET)
    command = [program, "server", "--quiet", "--address", f"127.0.0.1:{port}"]
    command += ["--console-address", f"127.0.0.1:{console}", folder / "data"]
    environ = {
        "MINIO_ROOT_USER": found.access_key,
        "MINIO_ROOT_PASSWORD": found.secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }
    with running(
        "MinIO", folder, command, port, ready=lambda _server: found.make_bucket(), environ=environ
    ) as server:
        yield replace(found, servers=(server,))


@contextlib.contextmanager
def delayed(folder: Path, store: S3, delay_ms: int = DELAY_MS) -> Iterator[S3]:
    """The same store behind a proxy that holds every request back."""
    port = free_port()
    upstream = store.endpoint.rpartition(":")[2]
    command = [sys.executable, "-m", "bench.delay", str(port), upstream, str(delay_ms)]
    far = replace(store, name=f"{store.name} + {delay_ms} ms", endpoint=f"http://127.0.0.1:{port}")
    with running("proxy", folder, command, port, ready=lambda _server: far.make_bucket()) as proxy:
        yield replace(far, servers=(*store.servers, proxy))
