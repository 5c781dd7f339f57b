"""An in-memory database behind the REST ports, and a client that speaks raw ASGI."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deltadatabase.clock import Clock
from deltadatabase.errors import Conflict, NotFound, Unprocessable, VersionMismatch
from deltadatabase.gateway.asgi import ASGIApp, Message
from deltadatabase.gateway.ports import Page
from deltadatabase.gateway.rotation import Progress, RotationStatus
from deltadatabase.model import (
    DatabaseInfo,
    ListedEntity,
    MemberInfo,
    MemberState,
    PatchKind,
    ProbeCheck,
    ReadinessCheck,
    Result,
    StoreReport,
)
from deltadatabase.schema.document import check_document
from deltadatabase.storage.paths import escape_key, listing_order, unescape_key

ADMIN_KEY = "admin-key-of-the-tests"
NOW_MS = 1_700_000_000_000


class TestClock:
    __test__ = False

    def __init__(self) -> None:
        self._monotonic_s = 1000.0
        self.now_ms = NOW_MS

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def pass_s(self, seconds: float) -> None:
        self._monotonic_s += seconds

    def forget_failed_logins(self) -> None:
        self.pass_s(3600.0)


class CountingRandom:
    def __init__(self) -> None:
        self._count = 0

    def __call__(self, size: int, /) -> bytes:
        self._count += 1
        # As with random bytes, each half of a write id is another one.
        return (
            self._count.to_bytes(size, "big") if size <= 8 else self._count.to_bytes(8, "big") * (size // 8)
        )


class FakeRotation:
    """Says what it was told to do."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def status(self) -> RotationStatus:
        return RotationStatus(
            running=False,
            primary="00" * 8,
            readable=["00" * 8],
            waiting_for=[],
            trouble="",
            kept=True,
            progress=Progress(),
            count=None,
        )

    async def start(self) -> RotationStatus:
        self.told.append("start")
        return self.status()

    async def pause(self) -> RotationStatus:
        self.told.append("pause")
        return self.status()

    async def count(self) -> RotationStatus:
        self.told.append("count")
        return self.status()


class FakeDatabase:
    """Fulfils Entities, Listing, Schemas and Cluster. ``failure`` is raised by every call that could fail."""

    def __init__(self) -> None:
        self.rotation = FakeRotation()
        self.reset()

    def reset(self) -> None:
        self.rotation.told.clear()
        #: Versions with the ids of the writes that made them, oldest first, as far as they are remembered.
        self.history: dict[tuple[str, str], list[tuple[int, bytes]]] = {}
        self.remembered = 9
        #: Raised after the next write was applied, as if its answer were lost.
        self.lost: Exception | None = None
        self.write_ids: list[bytes] = []
        self.documents: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.schemas: dict[str, bytes] = {}
        self.failure: Exception | None = None
        self.ready = True
        self.request_ids: list[str] = []
        self.pages = 0
        self.page_max = 0

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def cached(self, schema_id: str, key: str, *, request_id: str = "") -> Result | None:
        return None

    async def get(
        self,
        schema_id: str,
        key: str,
        *,
        if_none_match: tuple[str, ...] | None = None,
        request_id: str = "",
    ) -> Result:
        self._fail()
        self.request_ids.append(request_id)
        if (schema_id, key) not in self.documents:
            raise NotFound("there is no such entity")
        version, document = self.documents[schema_id, key]
        etag = f'"{version}-aa"'
        times = {"updated_ms": NOW_MS, "store_us": 1250}
        if if_none_match is not None and (etag in if_none_match or "*" in if_none_match):
            return Result(version=version, etag=etag, not_modified=True, **times)
        return Result(version=version, etag=etag, document=document, **times)

    async def state(
        self, schema_id: str, key: str, *, with_document: bool = False, fresh: bool = False
    ) -> Result:
        history = self.history.get((schema_id, key))
        if history and (schema_id, key) not in self.documents:
            self._fail()
            return Result(version=history[-1][0], updated_ms=NOW_MS)
        return await self.get(schema_id, key, if_none_match=None if with_document else ("*",))

    async def put(
        self,
        schema_id: str,
        documents: Mapping[str, bytes],
        *,
        write_ids: Mapping[str, bytes] | None = None,
        request_id: str = "",
    ) -> dict[str, Result]:
        self._fail()
        for document in documents.values():
            check_document(document)
        return {
            key: self._write(schema_id, key, document, (write_ids or {}).get(key), None, None)
            for key, document in documents.items()
        }

    def _write(
        self,
        schema_id: str,
        key: str,
        document: bytes | None,
        write_id: bytes | None,
        if_match: tuple[str, ...] | None,
        if_none_match: tuple[str, ...] | None,
    ) -> Result:
        """What the worker's engine does; ``document`` None deletes."""
        name = (schema_id, key)
        history = self.history.setdefault(name, [])
        if write_id is not None:
            self.write_ids.append(write_id)
            for version, known in history:
                if known == write_id:
                    etag = f'"{version}-aa"'
                    return Result(version=version, etag=etag, updated_ms=NOW_MS, found=True, repeated=True)
                if known[:8] == write_id[:8]:
                    raise Unprocessable("the key was used otherwise", code="idempotency_key_reused")
        self._check(schema_id, key, if_match, if_none_match)
        present = name in self.documents
        version = history[-1][0] if history else self.documents.get(name, (0, b""))[0]
        if document is None and not present:
            return Result(version=version)
        version += 1
        history.append((version, write_id or b"anonymous"))
        del history[: -self.remembered]
        if document is None:
            del self.documents[name]
        else:
            self.documents[name] = (version, document)
        if self.lost is not None:
            lost, self.lost = self.lost, None
            raise lost
        etag = "" if document is None else f'"{version}-aa"'
        return Result(version=version, etag=etag, updated_ms=NOW_MS, created=not present, found=True)

    async def put_one(
        self,
        schema_id: str,
        key: str,
        document: bytes,
        *,
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Result:
        self._fail()
        check_document(document)
        self.request_ids.append(request_id)
        return self._write(schema_id, key, document, write_id, if_match, if_none_match)

    async def patch(
        self,
        schema_id: str,
        key: str,
        patch: bytes,
        kind: PatchKind,
        *,
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Result:
        """Applies merge patches of objects, one level deep, and the operations ``test`` and ``add``."""
        self._fail()
        change = check_document(patch)
        if (schema_id, key) not in self.documents and if_match is None:
            raise NotFound("there is no such entity", code="entity_not_found")
        present = json.loads(self.documents.get((schema_id, key), (0, b"{}"))[1])
        if kind is PatchKind.JSON:
            assert isinstance(change, list)
            for operation in change:
                name = operation["path"][1:]
                if operation["op"] == "test" and present.get(name) != operation["value"]:
                    raise Conflict("a test of the patch fails", code="patch_test_failed")
                present[name] = operation["value"]
        else:
            assert isinstance(change, dict)
            present = {name: value for name, value in {**present, **change}.items() if value is not None}
        document = json.dumps(present).encode()
        result = self._write(schema_id, key, document, write_id, if_match, if_none_match)
        return msgspec.structs.replace(result, document=b"" if result.repeated else document)

    async def resolve(self, schema_id: str, key: str, write_id: bytes, *, request_id: str = "") -> Result:
        self._fail()
        history = self.history.get((schema_id, key), [])
        for version, known in history:
            if known == write_id:
                return Result(found=True, version=version, etag=f'"{version}-aa"', updated_ms=NOW_MS)
        if not history:
            return Result()
        return Result(version=history[-1][0], number=history[0][0])

    def _check(
        self,
        schema_id: str,
        key: str,
        if_match: tuple[str, ...] | None,
        if_none_match: tuple[str, ...] | None,
    ) -> None:
        version, _ = self.documents.get((schema_id, key), (0, b""))
        etag = f'"{version}-aa"' if version else None
        if if_match is not None and not (etag and ("*" in if_match or etag in if_match)):
            raise VersionMismatch("entity is not in a version that If-Match names", etag=etag)
        if if_none_match is not None and etag and ("*" in if_none_match or etag in if_none_match):
            raise VersionMismatch("entity is in a version that If-None-Match excludes", etag=etag)

    async def delete(
        self,
        schema_id: str,
        key: str,
        *,
        if_match: tuple[str, ...] | None = None,
        if_none_match: tuple[str, ...] | None = None,
        write_id: bytes | None = None,
        request_id: str = "",
    ) -> Result:
        self._fail()
        return self._write(schema_id, key, None, write_id, if_match, if_none_match)

    async def list(
        self, schema_id: str, *, prefix: str = "", after: str = "", limit: int = 1000, deleted: bool = False
    ) -> Page:
        self._fail()
        self.pages += 1
        await asyncio.sleep(0)
        begin = listing_order(after) if after else ""
        names = sorted(
            (escape_key(key) for schema, key in self.documents if schema == schema_id), key=listing_order
        )
        behind = [name for name in names if name.startswith(prefix) and listing_order(name) > begin]
        shown = behind[: self.page_max or limit][:limit]
        entities = tuple(
            ListedEntity(name, len(self.documents[schema_id, unescape_key(name)][1]) + 100, NOW_MS)
            for name in shown
        )
        return Page(entities, shown[-1] if len(shown) < len(behind) else "")

    async def schema_get(self, schema_id: str) -> Result:
        self._fail()
        if schema_id not in self.schemas:
            raise NotFound("there is no such schema")
        document = self.schemas[schema_id]
        return Result(document=document, schema_hash=hashlib.sha256(document).hexdigest())

    async def schema_put(self, schema_id: str, document: bytes) -> Result:
        self._fail()
        check_document(document)
        self.schemas[schema_id] = document
        return Result(schema_hash=hashlib.sha256(document).hexdigest())

    async def schema_delete(self, schema_id: str) -> Result:
        self._fail()
        if self.schemas.pop(schema_id, None) is None:
            raise NotFound("there is no such schema")
        return Result(found=True)

    async def schema_list(self) -> tuple[str, ...]:
        self._fail()
        return tuple(sorted(self.schemas))

    async def namespaces(self) -> tuple[str, ...]:
        self._fail()
        return tuple(sorted({*self.schemas, *(schema_id for schema_id, _ in self.documents)}))

    def members(self) -> Sequence[MemberInfo]:
        self._fail()
        return [
            MemberInfo(
                worker_id="proc-1",
                instance_id="i1",
                state=MemberState.AVAILABLE,
                key_id="0011223344556677",
                last_seen_ms=NOW_MS,
                address="127.0.0.1:50052",
            )
        ]

    def readiness(self) -> Sequence[ReadinessCheck]:
        code = "ok" if self.ready else "wrong_master_key"
        return [
            ReadinessCheck("workers", True, "ok", "1 worker joined"),
            ReadinessCheck("master_key", self.ready, code, "the key of the existing data"),
        ]

    def store_reports(self) -> Mapping[str, StoreReport]:
        self._fail()
        database = DatabaseInfo(
            database_id="d1", format=1, shards=1024, highest_epoch=7, keys={"0011223344556677": "c0ffee"}
        )
        create = ProbeCheck("create_once", True, "the second create failed")
        good = StoreReport(backend="s3", checks=(create,), database=database, templates=2)
        stale = ProbeCheck("stale_etag", False, "a stale etag was accepted")
        bad = StoreReport(backend="s3", checks=(create, stale), database=database)
        return {"proc-1": good, "proc-2": bad}


class FeedSource:
    """What a change feed reads of a ``FakeDatabase``: everything was stored just now."""

    def __init__(self, database: FakeDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def state(
        self, schema_id: str, key: str, *, with_document: bool = False, fresh: bool = False
    ) -> Result:
        return await self._database.get(schema_id, key, if_none_match=None if with_document else ("*",))

    async def resolve(self, schema_id: str, key: str, write_id: bytes) -> Result:
        return Result()

    async def list(
        self, schema_id: str, *, prefix: str = "", after: str = "", limit: int = 1000, deleted: bool = False
    ) -> Page:
        names = sorted(escape_key(key) for of, key in self._database.documents if of == schema_id)
        found = [ListedEntity(name, 1, self._clock.wall_ms()) for name in names if name > after][:limit]
        return Page(tuple(found), found[-1].name if len(found) == limit else "")


@dataclass
class Reply:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Sends requests to an ASGI application the way granian does, as raw as the test wants."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(
        self,
        method: str,
        target: str | bytes,
        body: bytes | Sequence[bytes] | None = None,
        *,
        key: str | None = ADMIN_KEY,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Reply:
        raw = target.encode() if isinstance(target, str) else target
        path, _, query = raw.partition(b"?")
        fields = [(b"host", b"localhost")]
        if key is not None:
            fields.append((b"authorization", f"Bearer {key}".encode()))
        chunks = [body] if isinstance(body, bytes) else list(body or ())
        if isinstance(body, bytes):
            fields.append((b"content-length", b"%d" % len(body)))
        elif body is not None:
            fields.append((b"transfer-encoding", b"chunked"))
        fields += [(name.encode(), value.encode("latin-1")) for name, value in headers]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path.decode(errors="replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": fields,
            "client": ("127.0.0.1", "50000"),
            "server": ("127.0.0.1", "8080"),
            "state": {},
        }
        return await exchange(self.app, scope, chunks)


async def exchange(app: ASGIApp, scope: dict[str, Any], chunks: Sequence[bytes]) -> Reply:
    left = list(chunks)
    reply = Reply()

    ended = False

    async def receive() -> Message:
        nonlocal ended
        if ended:
            # The client stays until it has its answer.
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        chunk = left.pop(0) if left else b""
        ended = not left
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert reply.status == 0, "an answer begins once"
            reply.status = message["status"]
            for name, value in message["headers"]:
                assert name == name.lower()
                assert name.decode() not in reply.headers, f"{name!r} repeated"
                reply.headers[name.decode()] = value.decode("latin-1")
        else:
            reply.body += message.get("body", b"")

    await app(scope, receive, send)
    assert reply.status, "every request is answered"
    return reply
