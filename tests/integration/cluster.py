"""A main worker and its proc workers as processes, and what is looked for in their logs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import httpx
from support.discretion import ADMIN_KEY as ADMIN_KEY
from support.discretion import JOIN_TOKEN as JOIN_TOKEN
from support.discretion import MARKER, MASTER_KEY
from support.discretion import secrets_in as secrets_in
from support.programs import Program, Programs, free_port, programs, wait_for, wait_until_ready
from support.weed import S3Server

discreet_programs = programs
"""Every program's log is looked through at its end."""


@dataclass
class Cluster:
    """One main worker with its proc workers, on ports and folders of their own.

    Attributes:
        programs: starts the processes.
        store: flags that name the store.
        state: the main worker's state directory.
        environ: variables of the main worker.
    """

    programs: Programs
    store: Sequence[str]
    state: Path
    environ: Mapping[str, str] = field(default_factory=lambda: {"MASTER_KEY": MASTER_KEY})
    rest_port: int = field(default_factory=free_port)
    grpc_port: int = field(default_factory=free_port)
    workers: dict[str, Program] = field(default_factory=dict)
    _main: Program | None = None

    @property
    def url(self) -> str:
        """The REST API."""
        return f"http://127.0.0.1:{self.rest_port}"

    @property
    def main(self) -> Program:
        """The main worker's process."""
        assert self._main is not None
        return self._main

    def start_main(self, *flags: str) -> Program:
        """Start the main worker, in dev mode unless ``environ`` holds an admin key."""
        shared = [flag for flag in self.store if flag.startswith("-shared-fs")]
        self._main = self.programs.start(
            "main-worker",
            f"-rest-addr=127.0.0.1:{self.rest_port}",
            f"-grpc-addr=127.0.0.1:{self.grpc_port}",
            f"-state-dir={self.state}",
            *([] if "ADMIN_KEY" in self.environ else ["-dev"]),
            *(shared or [f"-shared-fs={self.state.parent / 'unused'}"]),
            *flags,
            environ=self.environ,
        )
        return self._main

    def start_worker(self, worker_id: str, *flags: str, environ: Mapping[str, str] | None = None) -> Program:
        """Start a proc worker."""
        self.workers[worker_id] = self.programs.start(
            "proc-worker",
            f"-main-addr=127.0.0.1:{self.grpc_port}",
            f"-worker-id={worker_id}",
            *self.store,
            *flags,
            environ=environ,
        )
        return self.workers[worker_id]

    def start(self, *worker_ids: str) -> Cluster:
        """Start everything and wait until data is served."""
        self.start_main()
        for worker_id in worker_ids:
            self.start_worker(worker_id)
        self.ready(len(worker_ids))
        return self

    def ready(self, workers: int, timeout_s: float = 30.0) -> None:
        """Wait until this many workers have joined."""
        wait_until_ready(self.url, self.main, workers=workers, timeout_s=timeout_s)

    def answers(self) -> None:
        """Wait until the REST API answers at all."""
        wait_for(lambda: probe(self.url, "/livez")[0] == 200, "REST answers")

    def stop(self) -> list[int]:
        """End everything with SIGTERM; the exit codes."""
        codes = [program.stop() for program in [*self.workers.values(), self.main]]
        self.workers.clear()
        return codes


def probe(url: str, path: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a probe; 0 while nobody answers."""
    try:
        answer = httpx.get(url + path, timeout=2.0)
    except httpx.TransportError:
        return 0, {}
    return answer.status_code, answer.json()


def not_ready(url: str) -> str:
    """The code of what ``/readyz`` misses; "" when it misses nothing or doesn't answer."""
    status, body = probe(url, "/readyz")
    return str(body["error"]) if status == 503 else ""


def put(url: str, key: str, document: str, schema_id: str = "notes") -> httpx.Response:
    """Put one entity."""
    return httpx.put(f"{url}/entity/{schema_id}", content=f'{{"{key}": {document}}}', timeout=20.0)


def get(url: str, key: str, schema_id: str = "notes") -> httpx.Response:
    """Get one entity."""
    return httpx.get(f"{url}/entity/{schema_id}", params={"key": key}, timeout=20.0)


def s3_arguments(server: S3Server, bucket: str) -> tuple[str, ...]:
    """The flags of a proc worker on a bucket."""
    return (
        f"-s3-endpoint={server.endpoint}",
        f"-s3-bucket={bucket}",
        f"-s3-access-key={server.access_key}",
        f"-s3-secret-key={server.secret_key}",
        "-s3-path-style=true",
    )


def s3_client(server: S3Server) -> Any:
    """An S3 client that is not ours."""
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )


def bucket_listing(server: S3Server, bucket: str) -> dict[str, str]:
    """Every object's name with its ETag and time; {} without the bucket."""
    pages = s3_client(server).get_paginator("list_objects_v2").paginate(Bucket=bucket)
    try:
        entries = [entry for page in pages for entry in page.get("Contents", [])]
    except botocore.exceptions.ClientError as exc:
        assert exc.response["Error"]["Code"] == "NoSuchBucket", exc
        return {}
    return {entry["Key"]: f"{entry['ETag']} {entry['LastModified']}" for entry in entries}


@contextlib.contextmanager
def load(url: str, threads: int = 4, *, headers: Mapping[str, str] | None = None) -> Iterator[Counter[int]]:
    """Write and read all the time; gives the counts of the answers' statuses, 0 where there was none."""
    statuses: Counter[int] = Counter()
    ends = threading.Event()

    def go_on(name: str) -> None:
        count = 0
        with httpx.Client(base_url=url, timeout=20.0, headers=headers) as client:
            while not ends.is_set():
                count += 1
                for call in (
                    client.build_request(
                        "PUT", "/entity/load", content=f'{{"{name}": ["{MARKER}", {count}]}}'
                    ),
                    client.build_request("GET", "/entity/load", params={"key": name}),
                ):
                    try:
                        statuses[client.send(call).status_code] += 1
                    except httpx.TransportError:
                        statuses[0] += 1
                        time.sleep(0.02)

    running = [threading.Thread(target=go_on, args=(f"load-{number}",)) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        wait_for(lambda: statuses[200] > 20, "the load runs")
        yield statuses
    finally:
        ends.set()
        for thread in running:
            thread.join()
