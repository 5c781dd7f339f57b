"""The whole system on real parts, as one story: an end-to-end test, and ``just demo`` for a person.

Each backend: schemas by REST and by an S3 client (or as files), 10,000 chat documents written,
read back byte for byte and deleted in part, a look into the store for plaintext, a restart of
everything, a fourth worker that joins and one that is killed while clients go on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import boto3
import httpx
from support.listing import directory_listing
from support.programs import Program, Programs, free_port, programs, wait_until_ready
from support.weed import S3Server, running_weed

MARKER = "hummingbird"
"""A word in every document; it must not be found in any stored object."""
BATCH = 100
CLIENTS = 16
RECOVERY_GOAL_S = 5.0

Say = Callable[[str], None]


class Objects(Protocol):
    """The store, as somebody sees it who has no key."""

    arguments: tuple[str, ...]

    def put_template(self, schema_id: str, text: bytes) -> None: ...

    def listing(self) -> dict[str, bytes]: ...


@dataclass(frozen=True)
class Bucket:
    """A bucket, through an ordinary S3 client."""

    server: S3Server
    name: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """The flags of the user's document."""
        return (
            f"-s3-endpoint={self.server.endpoint}",
            f"-s3-bucket={self.name}",
            f"-s3-access-key={self.server.access_key}",
            f"-s3-secret-key={self.server.secret_key}",
            "-s3-path-style=true",
        )

    def put_template(self, schema_id: str, text: bytes) -> None:
        """Put a schema template as ``aws s3 cp`` does."""
        self._client().put_object(Bucket=self.name, Key=f"templates/{schema_id}.json", Body=text)

    def listing(self) -> dict[str, bytes]:
        """Every object with its bytes."""
        client = self._client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        names = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {name: client.get_object(Bucket=self.name, Key=name)["Body"].read() for name in sample(names)}

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.server.access_key,
            aws_secret_access_key=self.server.secret_key,
        )


@dataclass(frozen=True)
class Directory:
    """A shared directory."""

    root: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        """The flag of both programs."""
        return (f"-shared-fs={self.root}",)

    def put_template(self, schema_id: str, text: bytes) -> None:
        """Put a schema template as a file."""
        (self.root / "templates").mkdir(parents=True, exist_ok=True)
        (self.root / "templates" / f"{schema_id}.json").write_bytes(text)

    def listing(self) -> dict[str, bytes]:
        """Every file with its bytes; the main worker's own folder is not part of the store."""
        return {
            name: data
            for name, (_, data) in directory_listing(self.root).items()
            if "_state" not in Path(name).parts
        }


def sample(names: list[str]) -> Iterator[str]:
    """All but entities, and every 19th of those: odd, because blobs and meta files alternate."""
    entities = sorted(name for name in names if name.startswith("files/"))
    yield from (name for name in names if not name.startswith("files/"))
    yield from entities[::19]


def chat_document(number: int) -> bytes:
    """One conversation, with white space and number forms that a re-encoding would lose."""
    return (
        f'{{"chat_id": "c{number}",  "created_at": "2026-01-01T00:00:00Z", "weight": 1.50e0,'
        f' "messages": [{{"role": "user", "content": "{MARKER} {number} \\u00e9\u00e4"}}]}}'
    ).encode()


@dataclass
class Figures:
    """What the story measured."""

    documents: int = 0
    write_s: float = 0.0
    read_s: float = 0.0
    template_s: float = 0.0
    operations_under_change: int = 0
    unavailable: int = 0
    unknown: int = 0
    recovery_s: float = 0.0
    exit_codes: list[int] = field(default_factory=list)


class Story:
    """Tells the story on one backend.

    Args:
        programs: starts the processes.
        store: the backend, and what its owner sees of it.
        templates: folder of the example templates.
        documents: how many are written.
        say: called with each line for the audience.
    """

    def __init__(
        self, programs: Programs, store: Objects, templates: Path, *, documents: int, say: Say
    ) -> None:
        self.programs = programs
        self.store = store
        self.templates = templates
        self.documents = documents
        self.say = say
        self.figures = Figures(documents=documents)
        self.rest_port = free_port()
        self.grpc_port = free_port()
        self.url = f"http://127.0.0.1:{self.rest_port}"
        self.main: Program | None = None
        self.workers: dict[str, Program] = {}
        self.deleted: set[int] = set()

    # -- processes ---------------------------------------------------------------------

    def start_main(self) -> None:
        """Start the main worker; dev mode, so that the document's calls need no header."""
        shared = [argument for argument in self.store.arguments if argument.startswith("-shared-fs")]
        self.main = self.programs.start(
            "main-worker",
            f"-rest-addr=127.0.0.1:{self.rest_port}",
            f"-grpc-addr=127.0.0.1:{self.grpc_port}",
            f"-state-dir={self.programs.folder / 'state'}",
            "-dev",
            *shared,
        )

    def start_worker(self, worker_id: str) -> None:
        """Start a proc worker by the document's command line."""
        self.workers[worker_id] = self.programs.start(
            "proc-worker",
            f"-main-addr=127.0.0.1:{self.grpc_port}",
            f"-worker-id={worker_id}",
            "-grpc-addr=127.0.0.1:0",
            *self.store.arguments,
        )

    def start(self, *worker_ids: str) -> None:
        """Start everything and wait until data is served."""
        self.start_main()
        for worker_id in worker_ids:
            self.start_worker(worker_id)
        self.ready(len(worker_ids))

    def ready(self, workers: int) -> None:
        """Wait until this many workers have joined."""
        assert self.main is not None
        wait_until_ready(self.url, self.main, workers=workers)

    def stop(self) -> None:
        """End everything with SIGTERM."""
        assert self.main is not None
        for program in [*self.workers.values(), self.main]:
            self.figures.exit_codes.append(program.stop())
        self.workers.clear()

    # -- chapters ----------------------------------------------------------------------

    def run(self) -> Figures:
        """Tell the whole story; raises AssertionError where it goes wrong."""
        started = time.monotonic()
        self.start("proc-1", "proc-2", "proc-3")
        self.say(f"main worker and three proc workers serve after {time.monotonic() - started:.1f} s")
        asyncio.run(self.tell_schemas())
        asyncio.run(self.tell_documents())
        self.tell_store()
        self.tell_restart()
        asyncio.run(self.tell_changes())
        self.stop()
        self.say(f"all ended on SIGTERM, exit codes {self.figures.exit_codes}")
        assert set(self.figures.exit_codes) == {0}
        return self.figures

    async def tell_schemas(self) -> None:
        """One schema by REST, one by another client of the store; both are enforced."""
        async with self.client() as client:
            await self.tell_first_schema(client)
            assert (await client.put("/entity/plain.v1", content=b'{"x": {"n": "no"}}')).status_code == 200
            template = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
            started = time.monotonic()
            self.store.put_template("plain.v1", json.dumps(template).encode())
            while (await client.put("/entity/plain.v1", content=b'{"x": {"n": "no"}}')).status_code != 400:
                assert time.monotonic() - started < 5.0, "the template is not in force after 5 s"
                await asyncio.sleep(0.1)
            self.figures.template_s = time.monotonic() - started
        self.say(
            f"chat.v1 set by REST, plain.v1 by another client of the store: "
            f"in force after {self.figures.template_s:.1f} s"
        )

    async def tell_first_schema(self, client: httpx.AsyncClient) -> None:
        """The document's own call, and what it changes."""
        chat = (self.templates / "chat.v1.json").read_bytes()
        answer = await client.post(
            "/schemas/chat.v1", content=chat, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 200, answer.text
        refused = await client.put("/entity/chat.v1", content=b'{"x": {"text": 1}}')
        assert refused.status_code == 400, refused.text
        assert refused.json()["errors"], refused.text

    async def tell_documents(self) -> None:
        """Write, read back byte for byte, delete every tenth."""
        async with self.client() as client:
            started = time.monotonic()
            await _spread(range(0, self.documents, BATCH), lambda first: self._write_batch(client, first))
            self.figures.write_s = time.monotonic() - started
            self.say(f"{self.documents} documents written in {self.figures.write_s:.1f} s")
            started = time.monotonic()
            await _spread(range(self.documents), lambda number: self._read(client, number))
            self.figures.read_s = time.monotonic() - started
            self.say(f"all read back byte for byte in {self.figures.read_s:.1f} s")
            await _spread(range(0, self.documents, 10), lambda number: self._delete(client, number))
            await _spread(range(0, self.documents, 97), lambda number: self._read(client, number))
            self.say(f"{len(self.deleted)} of them deleted")
            ids = (await client.get("/api/schemas")).json()
            assert "chat.v1" in ids, ids

    def tell_store(self) -> None:
        """What lies in the store has the documented names and no plaintext."""
        # Meta files follow the commits; give the last of them a moment.
        time.sleep(1.0)
        objects = self.store.listing()
        names = set(objects)
        assert "cluster/database.json" in names, names
        assert {"templates/chat.v1.json", "templates/plain.v1.json"} <= names
        assert any(name.startswith("files/chat.v1/") and name.endswith(".json.enc") for name in names)
        assert any(name.startswith("files/chat.v1/") and name.endswith(".meta.json") for name in names)
        leaks = [name for name, data in objects.items() if MARKER.encode() in data]
        assert leaks == []
        for ending in (".json.enc", ".meta.json", "chat.v1.json", "database.json"):
            self.say(f"  {next(name for name in sorted(names) if name.endswith(ending))}")
        self.say(f"no plaintext in the {len(objects)} objects looked at")

    def tell_restart(self) -> None:
        """Everything ends and starts again with the same key; everything is still there."""
        self.stop()
        self.start("proc-1", "proc-2", "proc-3")

        async def read_all() -> None:
            async with self.client() as client:
                await _spread(range(0, self.documents, 7), lambda number: self._read(client, number))

        asyncio.run(read_all())
        self.say("all processes restarted: everything is still there")

    async def tell_changes(self) -> None:
        """A worker joins and one is killed while clients write and read."""
        stop = asyncio.Event()
        versions: dict[str, int] = {}
        async with self.client() as client:
            clients = [
                asyncio.create_task(self._go_on(client, f"live-{number}", versions, stop))
                for number in range(CLIENTS)
            ]
            await asyncio.sleep(1.0)
            before = self.figures.operations_under_change
            assert before > 0
            self.start_worker("proc-4")
            while "workers=4" not in (await client.get("/readyz")).text:
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)
            # A join is planned: no client may notice it.
            assert (self.figures.unavailable, self.figures.unknown) == (0, 0)
            self.say("a fourth worker joined: no request failed")
            self.workers.pop("proc-2").process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            await self._answered(killed)
            self.figures.recovery_s = time.monotonic() - killed
            await asyncio.sleep(1.0)
            stop.set()
            await asyncio.gather(*clients)
            for key, version in versions.items():
                answer = await client.get("/entity/live.v1", params={"key": key})
                assert int(answer.headers["etag"].strip('"').split("-")[0]) >= version, key
        self.say(
            f"a worker killed: every key answered again after {self.figures.recovery_s:.1f} s; "
            f"{self.figures.operations_under_change} operations went on, {self.figures.unavailable} were "
            f"told to try again, {self.figures.unknown} of unknown outcome, none lost"
        )
        assert self.figures.recovery_s < RECOVERY_GOAL_S

    # -- calls -------------------------------------------------------------------------

    def client(self) -> httpx.AsyncClient:
        """A client with enough connections."""
        return httpx.AsyncClient(
            base_url=self.url, timeout=20.0, limits=httpx.Limits(max_connections=CLIENTS * 4)
        )

    async def _write_batch(self, client: httpx.AsyncClient, first: int) -> None:
        pairs = (
            json.dumps(f"m:{number}").encode() + b": " + chat_document(number)
            for number in range(first, min(first + BATCH, self.documents))
        )
        answer = await client.put("/entity/chat.v1", content=b"{" + b", ".join(pairs) + b"}")
        assert answer.status_code == 200, answer.text

    async def _read(self, client: httpx.AsyncClient, number: int) -> None:
        answer = await client.get("/entity/chat.v1", params={"key": f"m:{number}"})
        if number in self.deleted:
            assert answer.status_code == 404, answer.text
        else:
            assert answer.status_code == 200, answer.text
            assert answer.content == chat_document(number)

    async def _delete(self, client: httpx.AsyncClient, number: int) -> None:
        answer = await client.delete("/entity/chat.v1", params={"key": f"m:{number}"})
        assert answer.status_code == 200, answer.text
        self.deleted.add(number)

    async def _go_on(
        self, client: httpx.AsyncClient, key: str, versions: dict[str, int], stop: asyncio.Event
    ) -> None:
        """Write and read one key without end; what was acknowledged may never be missing."""
        count = 0
        while not stop.is_set():
            count += 1
            answer = await client.put("/entity/live.v1", content=json.dumps({key: {"count": count}}).encode())
            if answer.status_code == 200:
                version = answer.json()["versions"][key]
                assert version > versions.get(key, 0)
                versions[key] = version
            else:
                self._count_failure(answer)
            answer = await client.get("/entity/live.v1", params={"key": key})
            if answer.status_code == 200:
                seen = int(answer.headers["etag"].strip('"').split("-")[0])
                assert seen >= versions.get(key, 0), f"{key}: read {seen} after {versions[key]}"
            elif answer.status_code != 404 or key in versions:
                self._count_failure(answer)
            self.figures.operations_under_change += 2

    def _count_failure(self, answer: httpx.Response) -> None:
        assert answer.status_code in (503, 504), answer.text
        if answer.status_code == 503:
            self.figures.unavailable += 1
        else:
            self.figures.unknown += 1

    async def _answered(self, killed: float) -> None:
        """Ask for a spread of keys at once; return when each has answered."""

        async def ask(client: httpx.AsyncClient, number: int) -> None:
            while (await client.get("/entity/chat.v1", params={"key": f"m:{number}"})).status_code not in (
                200,
                404,
            ):
                assert time.monotonic() - killed < 30.0, "keys do not answer again"
                await asyncio.sleep(0.05)

        async with self.client() as client:
            numbers = range(0, self.documents, max(1, self.documents // 50))
            await asyncio.gather(*(ask(client, number) for number in numbers))


async def _spread(numbers: range, call: Callable[[int], object]) -> None:
    """Call for each number, ``CLIENTS`` at a time."""
    left = iter(numbers)

    async def one() -> None:
        for number in left:
            await call(number)  # type: ignore[misc]

    await asyncio.gather(*(one() for _ in range(CLIENTS)))


class MemoryStory(Story):
    """The same in one process and in memory, as far as that goes: nothing outlives the process."""

    def run(self) -> Figures:
        """Tell it; raises AssertionError where it goes wrong."""
        self.main = self.programs.start(
            "deltadb", "serve", "-memory", f"-rest-addr=127.0.0.1:{self.rest_port}"
        )
        self.ready(1)

        async def first() -> None:
            async with self.client() as client:
                await self.tell_first_schema(client)

        asyncio.run(first())
        asyncio.run(self.tell_documents())
        self.stop()
        assert set(self.figures.exit_codes) == {0}
        kept = [path.name for path in self.programs.folder.rglob("*.json.enc")]
        assert kept == []
        self.say("nothing of it was written to the disk")
        return self.figures


def main() -> None:
    """Tell the story to a person."""
    parser = argparse.ArgumentParser(
        prog="just demo",
        description="Start the whole system on real parts and show what it does: a main worker, proc "
        "workers, SeaweedFS as the S3 server; everything in a temporary folder, on loopback.",
    )
    parser.add_argument("-documents", type=int, default=10_000, help="how many are written (10000)")
    parser.add_argument(
        "-store",
        choices=("s3", "directory", "memory"),
        nargs="*",
        default=["s3", "directory", "memory"],
        help="one store after the other (all three)",
    )
    asked = parser.parse_args()
    templates = Path(__file__).parents[2] / "shared" / "db" / "templates"
    for kind in asked.store:
        with tempfile.TemporaryDirectory(prefix="deltadb-demo-") as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            print(f"\n== {kind}")
            started = stack.enter_context(programs(folder))
            tell: Story
            if kind == "s3":
                (folder / "weed").mkdir()
                print("starting SeaweedFS ...")
                weed = stack.enter_context(running_weed(folder / "weed"))
                tell = Story(
                    started, Bucket(weed, "delta-db"), templates, documents=asked.documents, say=_say
                )
            else:
                which = Story if kind == "directory" else MemoryStory
                tell = which(
                    started, Directory(folder / "db"), templates, documents=asked.documents, say=_say
                )
            tell.run()


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()
