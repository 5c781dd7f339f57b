"""What the S3 backend makes of every way in which a server can fail it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

import msgspec
import pytest
from support.weed import S3Server, free_ports, running_weed

from deltadatabase.clock import SystemClock
from deltadatabase.errors import (
    AlreadyExists,
    Corrupt,
    DeltaError,
    NotFound,
    OutcomeUnknown,
    StartupError,
    StoreFull,
    Unavailable,
    VersionMismatch,
)
from deltadatabase.limits import MIB, STORE_TIMEOUT_S
from deltadatabase.settings.values import Secret
from deltadatabase.storage.base import Condition, Stored, When
from deltadatabase.storage.bucket import ensure_bucket
from deltadatabase.storage.objects import S3Objects, S3Settings
from deltadatabase.storage.opening import wait_for_store

PATH = "files/s/very-private-name"
ETAG = '"0123456789abcdef0123456789abcdef"'


class ScriptedServer:
    """Answers each request with the same bytes and closes; None: never answers."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.requests = 0
        self.endpoint = ""
        self.connections: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                if self.answer is None:
                    await reader.read()
                else:
                    writer.write(self.answer)
                    await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def close(self) -> None:
        """Wait for every connection: one left open would be a warning in a later test."""
        for connection in self.connections:
            connection.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)


@contextlib.asynccontextmanager
async def scripted(answer: bytes | None) -> AsyncIterator[tuple[S3Objects, ScriptedServer]]:
    script = ScriptedServer(answer)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0, family=socket.AF_INET)
    script.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        try:
            yield S3Objects(settings(script.endpoint)), script
        finally:
            await script.close()


def settings(endpoint: str, bucket: str = "some-bucket") -> S3Settings:
    return S3Settings(
        endpoint=endpoint, bucket=bucket, access_key=Secret("ak"), secret_key=Secret("sk"), allow_http=True
    )


def response(status: int, code: str = "", headers: Sequence[str] = ()) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>{PATH}</Message></Error>" if code else ""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def failure(call: Awaitable[object]) -> DeltaError:
    with pytest.raises(DeltaError) as caught:
        await call
    error = caught.value
    assert PATH not in str(error) + error.detail
    assert "127.0.0.1" not in str(error)
    # Neither a log of the whole chain shows it.
    assert error.__cause__ is None
    assert error.__suppress_context__
    return error


PUT_REFUSED = [(status, Unavailable) for status in (400, 405, 411, 413, 429, 501, 301, 307, 404)] + [
    (401, Unavailable),
    (403, Unavailable),
    (507, StoreFull),
]
PUT_UNKNOWN = [408, 500, 502, 503, 504]


@pytest.mark.parametrize(("status", "kind"), PUT_REFUSED)
async def test_a_refused_put_is_known_to_have_changed_nothing(status: int, kind: type[DeltaError]) -> None:
    async with scripted(response(status, "Whatever")) as (store, server):
        error = await failure(store.put(PATH, b"x", When.ABSENT))
        assert type(error) is kind
        assert error.certain
        assert (error.code == "store_denied") == (status in (401, 403))
        assert server.requests == 1


@pytest.mark.parametrize("status", PUT_UNKNOWN)
@pytest.mark.parametrize("condition", [When.ABSENT, When.ALWAYS, ETAG])
async def test_a_server_error_may_hide_a_success_and_is_not_retried(
    status: int, condition: Condition
) -> None:
    async with scripted(response(status, "SlowDown")) as (store, server):
        assert type(await failure(store.put(PATH, b"x", condition))) is OutcomeUnknown
        assert server.requests == 1
        assert type(await failure(store.delete(PATH))) is OutcomeUnknown
        assert type(await failure(store.get(PATH))) is Unavailable
        assert server.requests == 3


@pytest.mark.parametrize("status", [409, 412])
async def test_a_lost_condition_is_told_by_the_condition(status: int) -> None:
    async with scripted(response(status, "ConditionalRequestConflict")) as (store, _):
        assert type(await failure(store.put(PATH, b"x", When.ABSENT))) is AlreadyExists
        assert type(await failure(store.put(PATH, b"x", ETAG))) is VersionMismatch


async def test_a_success_without_an_etag_is_not_a_failure_that_changed_nothing() -> None:
    async with scripted(response(200)) as (store, _):
        assert type(await failure(store.put(PATH, b"x", When.ABSENT))) is OutcomeUnknown


async def test_a_connection_that_breaks_after_the_request_leaves_a_put_unknown() -> None:
    async with scripted(b"") as (store, _):
        assert type(await failure(store.put(PATH, b"x", When.ABSENT))) is OutcomeUnknown
        assert type(await failure(store.get(PATH))) is Unavailable


async def test_a_torn_answer_is_not_an_object() -> None:
    torn = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: " + ETAG.encode() + b"\r\n\r\nonly this"
    async with scripted(torn) as (store, _):
        assert type(await failure(store.get(PATH))) is Unavailable


async def test_no_connection_changes_nothing() -> None:
    store = S3Objects(settings(f"http://127.0.0.1:{free_ports(1)[0]}"))
    calls: list[Awaitable[object]] = [
        store.put(PATH, b"x", When.ABSENT),
        store.put(PATH, b"x", ETAG),
        store.delete(PATH),
        store.get(PATH),
        store.head(PATH),
        store.list("files/s/"),
        store.folders("files/"),
        ensure_bucket(store),
    ]
    for call in calls:
        assert type(await failure(call)) is Unavailable


async def test_a_server_that_never_answers_ends_in_time() -> None:
    async with scripted(None) as (store, _):
        began = time.monotonic()
        put, delete, get, listed = await asyncio.gather(
            store.put(PATH, b"x", ETAG),
            store.delete(PATH),
            store.get(PATH),
            store.list("files/s/"),
            return_exceptions=True,
        )
        assert time.monotonic() - began < STORE_TIMEOUT_S + 1
    assert [type(outcome) for outcome in (put, delete, get, listed)] == [
        OutcomeUnknown,
        OutcomeUnknown,
        Unavailable,
        Unavailable,
    ]


async def test_only_s3_itself_says_that_an_object_is_missing() -> None:
    async with scripted(response(404, "NoSuchKey")) as (store, _):
        assert type(await failure(store.get(PATH))) is NotFound
        await store.delete(PATH)
    for stranger in ("", "NoSuchBucket", "NoSuchVhost"):
        async with scripted(response(404, stranger)) as (store, _):
            error = await failure(store.get(PATH))
            assert type(error) is Unavailable
            assert (error.code == "store_bucket_missing") == (stranger == "NoSuchBucket")


async def test_a_body_cannot_pretend_another_failure() -> None:
    forged = "\n\nDebug source:\n inner: Status { status: 403, kind: Connect, <Code>NoSuchKey</Code>"
    body = forged.encode()
    head = f"HTTP/1.1 408 Said\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    async with scripted(head + body) as (store, _):
        assert type(await failure(store.put(PATH, b"x", When.ABSENT))) is OutcomeUnknown


@pytest.fixture
def bucket() -> str:
    return f"failures-{os.urandom(6).hex()}"


async def test_a_missing_bucket_is_not_an_empty_store(weed: S3Server, bucket: str) -> None:
    store = S3Objects(weed.settings(bucket))
    for call in (store.get(PATH), store.put(PATH, b"x", When.ABSENT), store.list("files/s/")):
        error = await failure(call)
        assert type(error) is Unavailable
        assert error.code == "store_bucket_missing"


async def test_a_bucket_is_made_once(weed: S3Server, bucket: str) -> None:
    store = S3Objects(weed.settings(bucket))
    assert await ensure_bucket(store)
    assert not await ensure_bucket(store)
    await store.put(PATH, b"x", When.ABSENT)


async def test_workers_that_start_together_agree_on_the_bucket(weed: S3Server, bucket: str) -> None:
    stores = [S3Objects(weed.settings(bucket)) for _ in range(4)]
    await asyncio.gather(*(ensure_bucket(store) for store in stores))
    await stores[0].put(PATH, b"x", When.ABSENT)
    assert (await stores[3].get(PATH)).data == b"x"


async def test_wrong_credentials_end_the_start_at_once(weed: S3Server, bucket: str) -> None:
    for wrong in ({"access_key": Secret("nobody")}, {"secret_key": Secret("wrong")}):
        store = S3Objects(msgspec.structs.replace(weed.settings(bucket), **wrong))
        error = await failure(store.put(PATH, b"x", When.ABSENT))
        assert (type(error), error.code) == (Unavailable, "store_denied")
        with pytest.raises(StartupError) as caught:
            await wait_for_store(store, timeout_s=60, clock=SystemClock(), on_wait=pytest.fail)
        assert caught.value.code == "store_refused"


async def test_the_environment_is_not_mixed_with_given_settings(
    weed: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_SESSION_TOKEN": "someone-elses",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ENDPOINT": "http://127.0.0.1:1",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_CONDITIONAL_PUT": "disabled",
    }.items():
        monkeypatch.setenv(name, value)
    store = S3Objects(weed.settings(bucket))
    await ensure_bucket(store)
    etag = await store.put(PATH, b"x", When.ABSENT)
    await store.put(PATH, b"y", etag)


def test_settings_and_stores_hide_their_secrets() -> None:
    shown = settings("http://127.0.0.1:1")
    shown = msgspec.structs.replace(shown, access_key=Secret("open-sesame"), secret_key=Secret("hush-hush"))
    store = S3Objects(shown)
    for text in (repr(shown), str(shown), repr(store), repr(vars(store))):
        assert "sesame" not in text
        assert "hush" not in text


async def test_a_server_that_stops_and_comes_back(tmp_path: Path) -> None:
    with running_weed(tmp_path) as server:
        store = S3Objects(server.settings("coming-back"))
        await wait_for_store(store, timeout_s=10, clock=SystemClock(), on_wait=lambda reason: None)
        etag = await store.put(PATH, b"one", When.ABSENT)
        server.pause()
        paused = await asyncio.gather(store.put(PATH, b"two", etag), store.get(PATH), return_exceptions=True)
        assert [type(outcome) for outcome in paused] == [OutcomeUnknown, Unavailable]
        server.resume()
        server.stop()
        error = await failure(store.put(PATH, b"three", etag))
        assert type(error) is Unavailable
        waits: list[DeltaError] = []
        with pytest.raises(StartupError) as caught:
            await wait_for_store(store, timeout_s=0.3, clock=SystemClock(), on_wait=waits.append)
        assert caught.value.code == "store_unreachable"
        assert waits
        server.start()
        stored = await patient_get(store)
        # The put of unknown outcome landed, or it did not; nothing else may have happened.
        assert stored.data in (b"one", b"two")
        await store.put(PATH, b"three", stored.etag)
        assert (await store.get(PATH)).data == b"three"


async def patient_get(store: S3Objects) -> Stored:
    """A server that has just started may not find what it holds yet."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await store.get(PATH)
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


class EndlessServer(ScriptedServer):
    """Says that an object is of 1 TiB, and sends as much of it as the client takes."""

    sent = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n"
                    b'ETag: "0123456789abcdef0123456789abcdef"\r\n'
                    b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
                )
                while self.sent < 256 * MIB:
                    writer.write(b"x" * MIB)
                    await writer.drain()
                    self.sent += MIB
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def test_an_object_of_absurd_size_is_not_fetched() -> None:
    endless = EndlessServer(None)
    server = await asyncio.start_server(endless.serve, "127.0.0.1", 0, family=socket.AF_INET)
    async with server:
        store = S3Objects(settings(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        try:
            for call in (store.get(PATH), store.get_if_changed(PATH, ETAG)):
                endless.sent = 0
                assert type(await failure(call)) is Corrupt
                # What both kernels and the client hold before the connection ends.
                assert endless.sent < 32 * MIB
        finally:
            await endless.close()
