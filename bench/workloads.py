"""What is asked for: documents of a given size, and the requests that read and write them.

Expected cost of one request: GET is one hop to the worker and back and no store call where its cache
holds the entity; PUT is the hop, one sealed object and its sync, shared by commits in flight together.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

from bench.load import FRESH, Load, Request, repeated
from bench.servers import Server

DOCUMENTS = 1000
DOCUMENT_BYTES = 1024
SIZES = {"256 B": 256, "1 KiB": 1024, "16 KiB": 16 << 10, "256 KiB": 256 << 10}
FILL_BYTES_MAX = 512 << 10
SCHEMA_ID = "bench"
SCHEMA = {
    "type": "object",
    "required": ["id", "from", "sent_at", "text"],
    "properties": {
        "id": {"type": "integer"},
        "from": {"type": "string"},
        "sent_at": {"type": "string", "format": "date-time"},
        "text": {"type": "string", "maxLength": 1 << 20},
        "seen": {"type": "integer"},
    },
}
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"


def key(number: int) -> str:
    """Key of a document."""
    return f"message-{number:04}"


def document(number: int, size: int = DOCUMENT_BYTES) -> bytes:
    """A JSON document of exactly ``size`` bytes."""
    fields = {"id": number, "from": f"user:{number % 97}", "sent_at": "2026-01-01T00:00:00Z", "text": ""}
    padding = size - len(json.dumps(fields))
    text = (f"{number} is the number of this message. " * (padding // 30 + 1))[:padding]
    return json.dumps(fields | {"text": text}).encode()


def members(numbers: Sequence[int], size: int) -> bytes:
    """The body of a PUT of several documents."""
    return b"{%s}" % b", ".join(b'"%s": %s' % (key(n).encode(), document(n, size)) for n in numbers)


def reads(count: int = DOCUMENTS) -> list[Request]:
    """A GET of each document."""
    return [Request("GET", f"/entity/{SCHEMA_ID}?key={key(number)}") for number in range(count)]


def writes(count: int = DOCUMENTS, size: int = DOCUMENT_BYTES) -> list[Request]:
    """A PUT of each document."""
    return [Request("PUT", f"/entity/{SCHEMA_ID}", members([number], size)) for number in range(count)]


def new_writes(size: int = DOCUMENT_BYTES) -> list[Request]:
    """PUTs of documents whose keys were never used."""
    return [
        Request("PUT", f"/entity/{SCHEMA_ID}", b'{"new-%s": %s}' % (FRESH.encode(), document(number, size)))
        for number in range(100)
    ]


def mixed() -> list[Request]:
    """Four GETs to one PUT."""
    return reads() * 4 + writes()


def together(each: int) -> list[Request]:
    """PUTs of several documents in one request."""
    return [
        Request("PUT", f"/entity/{SCHEMA_ID}", members(range(first, first + each), DOCUMENT_BYTES))
        for first in range(0, DOCUMENTS, each)
    ]


def batches(each: int) -> list[Request]:
    """The same as ``POST /batch``."""
    return [
        Request(
            "POST",
            "/batch",
            b'{"defaults": {"method": "PUT"}, "requests": [%s]}'
            % b", ".join(
                b'{"path": "%s", "body": %s}' % (resource(number).encode(), document(number))
                for number in range(first, first + each)
            ),
            JSON,
        )
        for first in range(0, DOCUMENTS, each)
    ]


def patches() -> list[Request]:
    """A merge patch of one number of each document."""
    return [
        Request("PATCH", resource(number), b'{"seen": %d}' % (number % 7), MERGE_PATCH)
        for number in range(DOCUMENTS)
    ]


def lists(page: int) -> list[Request]:
    """A page of names."""
    return [Request("GET", f"/entities/{SCHEMA_ID}?limit={page}")]


def resource(number: int) -> str:
    """Path of a document as a resource."""
    return f"/entities/{SCHEMA_ID}/{key(number)}"


def fill(server: Server, count: int = DOCUMENTS, size: int = DOCUMENT_BYTES) -> None:
    """Put the schema and all documents."""
    batch = max(1, FILL_BYTES_MAX // size)
    puts = [Request("PUT", f"/schema/{SCHEMA_ID}", json.dumps(SCHEMA).encode())]
    for first in range(0, count, batch):
        body = members(range(first, min(first + batch, count)), size)
        puts.append(Request("PUT", f"/entity/{SCHEMA_ID}", body))
    for _ in server.ask(*puts):
        pass


def damaged(server: Server) -> int:
    """How many documents of a sample do not come back byte for byte."""
    numbers = range(0, DOCUMENTS, 7)
    found = server.ask(*reads()[::7])
    return sum(content != document(number) for number, content in zip(numbers, found, strict=True))


def durable_files(folder: Path, seconds: float) -> Load:
    """Write, sync and rename one file of a document's size after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    content = document(0)
    numbers = itertools.cycle(range(DOCUMENTS))

    def write_one() -> None:
        number = next(numbers)
        temporary = folder / f"{number}.tmp"
        with temporary.open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        temporary.replace(folder / key(number))

    return repeated(write_one, seconds)
