"""Other databases with a JSON interface over HTTP, for comparison: etcd and Kinto."""

from __future__ import annotations

import base64
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.load import Request
from bench.programs import Server, free_port, running
from bench.workloads import DOCUMENTS, JSON, document, key

_BUCKET = "/v1/buckets/bench"
_COLLECTION = f"{_BUCKET}/collections/messages"
KINTO = """\
[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = %(http_port)s

[app:main]
use = egg:kinto
kinto.storage_backend = kinto.core.storage.memory
kinto.cache_backend = kinto.core.cache.memory
kinto.permission_backend = kinto.core.permission.memory
kinto.userid_hmac_secret = nothing-secret
kinto.bucket_create_principals = system.Everyone
kinto.bucket_write_principals = system.Everyone
kinto.bucket_read_principals = system.Everyone

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = plain

[logger_root]
level = ERROR
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = plain

[formatter_plain]
format = %%(message)s
"""


@contextlib.contextmanager
def etcd(folder: Path, program: Path) -> Iterator[Server]:
    """etcd as one member, each write synced; its data on the disk under test."""
    port, peer = free_port(), free_port()
    client, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    command = [program, f"--data-dir={folder / 'data'}", "--name=bench", "--log-level=error"]
    command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    command += [f"--listen-peer-urls={other}", f"--initial-advertise-peer-urls={other}"]
    command += [f"--initial-cluster=bench={other}", f"--quota-backend-bytes={4 << 30}"]
    with running("etcd", folder, command, port, ready="/health") as server:
        for _ in server.ask(*etcd_writes()):
            pass
        yield server


def etcd_reads() -> list[Request]:
    """A range request for each key, through the JSON gateway."""
    return [
        Request("POST", "/v3/kv/range", b'{"key": "%s"}' % _base64(key(number).encode()), JSON)
        for number in range(DOCUMENTS)
    ]


def etcd_writes() -> list[Request]:
    """A put of each document."""
    return [
        Request(
            "POST",
            "/v3/kv/put",
            b'{"key": "%s", "value": "%s"}' % (_base64(key(number).encode()), _base64(document(number))),
            JSON,
        )
        for number in range(DOCUMENTS)
    ]


@contextlib.contextmanager
def kinto(folder: Path, program: Path) -> Iterator[Server]:
    """Kinto with everything in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "kinto.ini"
    settings.write_text(KINTO)
    port = free_port()
    command = [program, "start", f"--ini={settings}", f"--port={port}"]
    with running("Kinto", folder, command, port, ready="/v1/__heartbeat__") as server:
        made = (Request("PUT", path, b"{}", JSON) for path in (_BUCKET, _COLLECTION))
        for _ in server.ask(*made, *kinto_writes()):
            pass
        yield server


def kinto_reads() -> list[Request]:
    """A GET of each record."""
    return [Request("GET", f"{_COLLECTION}/records/{key(number)}") for number in range(DOCUMENTS)]


def kinto_writes() -> list[Request]:
    """A PUT of each record."""
    return [
        Request(
            "PUT",
            f"{_COLLECTION}/records/{key(number)}",
            # A record's `id` is its name.
            b'{"data": %s}' % document(number).replace(b'"id"', b'"no"', 1),
            JSON,
        )
        for number in range(DOCUMENTS)
    ]


def version_of(*command: str | Path) -> str:
    """The first line that a program says of its version."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _base64(data: bytes) -> bytes:
    return base64.b64encode(data)
