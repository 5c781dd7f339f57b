"""The change feed as HTTP: parameters, answers, streams, and how they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from deltadatabase.auth.accounts import Accounts
from deltadatabase.clock import SystemClock, system_random
from deltadatabase.errors import Corrupt, NotFound, Unavailable
from deltadatabase.gateway.asgi import Message
from deltadatabase.gateway.edge import Edge
from deltadatabase.gateway.feed import FeedHandler
from deltadatabase.gateway.following import Following
from deltadatabase.gateway.positions import Live, encode
from deltadatabase.limits import CHANGES_KEPT_S
from deltadatabase.model import Command, Op, Result
from unit.gateway.rest_fakes import ADMIN_KEY, Client, FakeDatabase, FeedSource, Reply

DATABASE = "d1"


class Bench:
    """A feed over a database in memory, behind the edge."""

    def __init__(self, accounts: Accounts, **options: Any) -> None:
        self.accounts = accounts
        self.database = FakeDatabase()
        self.clock = SystemClock()
        self.database_id = DATABASE
        self.streams: list[asyncio.Task[None]] = []
        source = FeedSource(self.database, self.clock)
        self.following = Following(
            source, source, lambda: self.database_id, clock=self.clock, random=system_random
        )
        handler = FeedHandler(self.following, accounts, clock=self.clock, **options)
        self.app = Edge(
            _nothing,
            {"changes": handler},
            clock=self.clock,
            random=system_random,
            local_only=False,
            body_timeout_s=1.0,
        )
        self.client = Client(self.app)

    async def write(self, key: str, document: bytes = b"1", schema_id: str = "notes") -> None:
        result = await self.database.put_one(schema_id, key, document)
        self.following.written(Command(op=Op.PUT, schema_id=schema_id, key=key), result)

    async def delete(self, key: str, version: int) -> None:
        del self.database.documents["notes", key]
        result = Result(found=True, version=version)
        self.following.written(Command(op=Op.DELETE, schema_id="notes", key=key), result)

    async def get(self, query: str = "", **more: Any) -> Reply:
        return await self.client("GET", f"/changes/notes?{query}", **more)

    async def token(self) -> str:
        return str((await self.get()).json()["next"])


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise NotFound("nothing")


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[Bench]:
    with closing(
        Accounts(
            folder / "accounts",
            clock=SystemClock(),
            random=system_random,
            admin_key=ADMIN_KEY,
            client_ttl_s=3600.0,
            dev_mode=False,
        )
    ) as accounts:
        bench = Bench(accounts, **options)
        try:
            yield bench
        finally:
            await bench.following.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with serving(tmp_path) as made:
        yield made


class Stream:
    """A client that reads server-sent events."""

    def __init__(self, bench: Bench, query: str = "", *, key: str = ADMIN_KEY, last_id: str = "") -> None:
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._left = asyncio.Event()
        self._text = b""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.last_id = last_id
        fields = [(b"host", b"localhost"), (b"authorization", f"Bearer {key}".encode())]
        if last_id:
            fields.append((b"last-event-id", last_id.encode()))
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/changes/notes",
            "raw_path": b"/changes/notes",
            "query_string": f"feed=eventsource&{query}".encode(),
            "headers": fields,
            "client": ("127.0.0.1", "50000"),
        }
        self.running = asyncio.create_task(bench.app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        elif message["body"]:
            await self._chunks.put(message["body"])
        if message["type"] == "http.response.body" and not message.get("more_body"):
            await self._chunks.put(None)

    async def block(self) -> str | None:
        """The next event, heartbeat or mark; None at the end."""
        while b"\n\n" not in self._text:
            chunk = await asyncio.wait_for(self._chunks.get(), 5.0)
            if chunk is None:
                assert not self._text
                return None
            self._text += chunk
        block, _, self._text = self._text.partition(b"\n\n")
        for line in block.decode().splitlines():
            if line.startswith("id: "):
                self.last_id = line[4:]
        return block.decode()

    async def event(self) -> dict[str, Any]:
        """Data of the next event that has some."""
        while (block := await self.block()) is not None:
            data = [line[6:] for line in block.splitlines() if line.startswith("data: ")]
            if data:
                return dict(json.loads("\n".join(data)))
        raise AssertionError("the stream ended")

    async def leave(self) -> None:
        self._left.set()
        await asyncio.wait_for(self.running, 5.0)


# -- one answer --------------------------------------------------------------------------


async def test_without_a_token_it_begins_now(bench: Bench) -> None:
    await bench.write("before")
    reply = await bench.get()
    assert (reply.status, reply.json()["changes"], reply.json()["more"]) == (200, [], False)
    await bench.write("after")
    later = (await bench.get(f"since={reply.json()['next']}")).json()
    assert later["changes"] == [
        {
            "key": "after",
            "version": 1,
            "etag": '"1-aa"',
            "updated_at": "2023-11-14T22:13:20.000Z",
            "deleted": False,
        }
    ]
    assert (await bench.get(f"since={later['next']}")).json()["changes"] == []


async def test_a_page_has_at_most_limit_changes_and_says_whether_there_are_more(bench: Bench) -> None:
    token, keys, pages = await bench.token(), [], 0
    for number in range(5):
        await bench.write(str(number))
    more = True
    while more:
        page = (await bench.get(f"limit=2&since={token}")).json()
        assert len(page["changes"]) <= 2
        keys += [change["key"] for change in page["changes"]]
        token, more, pages = page["next"], page["more"], pages + 1
    assert (keys, pages) == (["0", "1", "2", "3", "4"], 3)


async def test_documents_come_along_when_asked_for(bench: Bench) -> None:
    token = await bench.token()
    await bench.write("a", b'{"x":\n 1}')
    await bench.write("gone")
    await bench.delete("gone", 2)
    changes = (await bench.get(f"include=document&since={token}")).json()["changes"]
    assert [(change["key"], change["deleted"]) for change in changes] == [("a", False), ("gone", True)]
    assert changes[0]["document"] == {"x": 1}
    assert "document" not in changes[1]
    assert (changes[1]["version"], changes[1]["etag"]) == (2, "")


async def test_documents_of_a_page_are_bounded_together(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deltadatabase.gateway.following.FEED_BATCH_BYTES_MAX", 1000)
    token = await bench.token()
    for number in range(40):
        await bench.write(str(number), b'"' + b"x" * 500 + b'"')
    keys, more = set(), True
    while more:
        page = (await bench.get(f"include=document&since={token}")).json()
        # As many as fit, and the one that fits no more.
        assert len(page["changes"]) <= 2
        keys |= {change["key"] for change in page["changes"]}
        token, more = page["next"], page["more"]
    assert len(keys) == 40


async def test_a_damaged_entity_is_said_to_be_damaged(bench: Bench) -> None:
    token = await bench.token()
    await bench.write("a")
    bench.database.failure = Corrupt("damaged")
    (change,) = (await bench.get(f"include=document&since={token}")).json()["changes"]
    assert (change["key"], change["version"], change["error"]) == ("a", 1, "integrity")


async def test_what_cannot_be_read_now_is_503_and_can_be_asked_for_again(bench: Bench) -> None:
    token = await bench.token()
    await bench.write("a")
    bench.database.failure = Unavailable("no worker", code="no_worker")
    assert (await bench.get(f"include=document&since={token}")).status == 503
    bench.database.failure = None
    assert len((await bench.get(f"include=document&since={token}")).json()["changes"]) == 1


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("since=nonsense", "bad_token"),
        ("since=" + "A" * 600, "bad_token"),
        ("since=%ff", "bad_query"),
        ("since=", "bad_token"),
        ("snce=a", "bad_query"),
        ("since=a&since=b", "bad_query"),
        ("feed=polling", "bad_query"),
        ("include=meta", "bad_query"),
        ("limit=0", "bad_query"),
        ("limit=1001", "bad_query"),
        ("limit=x", "bad_query"),
        ("limit=-1", "bad_query"),
        ("limit=%C2%B2", "bad_query"),
        ("feed=longpoll&timeout=61", "bad_query"),
    ],
)
async def test_a_wrong_parameter_is_400(bench: Bench, query: str, code: str) -> None:
    reply = await bench.get(query)
    assert (reply.status, reply.json()["error"]) == (400, code)


async def test_a_token_of_another_schema_is_400(bench: Bench) -> None:
    token = await bench.token()
    reply = await bench.client("GET", f"/changes/other?since={token}")
    assert (reply.status, reply.json()["error"]) == (400, "bad_token")


async def test_a_token_of_another_database_is_410(bench: Bench) -> None:
    token = await bench.token()
    bench.database_id = "restored"
    reply = await bench.get(f"since={token}")
    assert (reply.status, reply.json()["error"]) == (410, "changes_gone")
    assert "list the entities" in reply.json()["detail"]


@pytest.mark.parametrize(("age_s", "status"), [(CHANGES_KEPT_S - 60, 200), (CHANGES_KEPT_S + 60, 410)])
async def test_a_token_of_before_a_start_is_good_for_an_hour(bench: Bench, age_s: float, status: int) -> None:
    await bench.write("a")
    at_ms = bench.clock.wall_ms() - int(age_s * 1000)
    token = encode(Live(b"earlier.", 77, at_ms), DATABASE, "notes")
    reply = await bench.get(f"since={token}")
    assert reply.status == status
    if status == 410:
        assert reply.json()["error"] == "changes_gone"


async def test_a_token_of_the_future_is_400(bench: Bench) -> None:
    now_ms = bench.clock.wall_ms()
    log = bench.following.log
    for live in (Live(b"earlier.", 0, now_ms + 600_000), Live(log.incarnation, log.sequence + 1, now_ms)):
        reply = await bench.get(f"since={encode(live, DATABASE, 'notes')}")
        assert (reply.status, reply.json()["error"]) == (400, "bad_token")


async def test_before_a_worker_has_joined_there_is_no_feed(bench: Bench) -> None:
    bench.database_id = ""
    reply = await bench.get()
    assert (reply.status, reply.json()["error"]) == (503, "no_worker")
    assert (await bench.get(f"since={encode(Live(b'earlier.', 0, 1), DATABASE, 'notes')}")).status == 503


async def test_who_may_not_read_gets_nothing(bench: Bench) -> None:
    assert (await bench.get(key=None)).status == 401
    other = bench.accounts.create_key("o", ["read"], schemas=["other.*"])
    assert (await bench.get(key=other.secret)).status == 403
    writer = bench.accounts.create_key("w", ["write"])
    assert (await bench.get(key=writer.secret)).status == 403
    assert (await bench.client("POST", "/changes/notes")).headers["allow"] == "GET, HEAD"
    assert (await bench.client("GET", "/changes/")).status == 404
    assert (await bench.client("GET", "/changes/a/b")).json()["error"] == "invalid_schema_id"


async def test_head_holds_nothing_open(bench: Bench) -> None:
    for feed in ("normal", "longpoll", "eventsource"):
        reply = await bench.client("HEAD", f"/changes/notes?feed={feed}")
        assert (reply.status, reply.body) == (200, b"")
    assert bench.following.open == 0


# -- waiting -----------------------------------------------------------------------------


async def test_a_long_poll_returns_with_the_first_change(bench: Bench) -> None:
    token = await bench.token()
    waiting = asyncio.create_task(bench.get(f"feed=longpoll&timeout=60&since={token}"))
    while not bench.following.open:
        await asyncio.sleep(0)
    await bench.write("a")
    page = (await asyncio.wait_for(waiting, 5.0)).json()
    assert [change["key"] for change in page["changes"]] == ["a"]
    assert bench.following.open == 0


async def test_a_long_poll_without_a_change_gives_the_token_to_go_on_with(bench: Bench) -> None:
    page = (await bench.get("feed=longpoll&timeout=0")).json()
    assert (page["changes"], page["more"]) == ([], False)
    await bench.write("a")
    assert len((await bench.get(f"since={page['next']}")).json()["changes"]) == 1


async def test_a_key_that_ends_while_it_waits_learns_nothing(bench: Bench) -> None:
    key = bench.accounts.create_key("r", ["read"])
    waiting = asyncio.create_task(bench.get("feed=longpoll", key=key.secret))
    while not bench.following.open:
        await asyncio.sleep(0)
    bench.accounts.delete_key(key.id)
    await bench.write("a")
    assert (await asyncio.wait_for(waiting, 5.0)).status == 401


# -- streams -----------------------------------------------------------------------------


async def test_a_stream_tells_of_changes_as_they_come(bench: Bench) -> None:
    stream = Stream(bench, "include=document")
    assert (await stream.block() or "").startswith("retry: 2000\nid: ")
    assert (stream.status, stream.headers[b"content-type"]) == (200, b"text/event-stream")
    await bench.write("a", b'{"x":\r\n\r\n1,\n"y": 2}')
    block = await stream.block() or ""
    assert "event: change\n" in block
    assert all(line.startswith(("id: ", "event: ", "data: ")) for line in block.splitlines())
    await bench.write("b", b"2")
    change = await stream.event()
    assert (change["key"], change["document"]) == ("b", 2)
    await stream.leave()
    assert bench.following.open == 0


async def test_a_stream_goes_on_after_the_last_event_that_came(bench: Bench) -> None:
    first = Stream(bench)
    await first.block()
    await bench.write("a")
    await first.event()
    await first.leave()
    await bench.write("b")
    outdated = encode(Live(b"earlier.", 0, 1), DATABASE, "notes")
    second = Stream(bench, f"since={outdated}", last_id=first.last_id)
    assert (await second.event())["key"] == "b"
    await second.leave()


async def test_a_stream_without_changes_says_that_it_lives_and_where_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path, heartbeat_s=0.02) as bench:
        stream = Stream(bench)
        await stream.block()
        for _ in range(2):
            block = await stream.block() or ""
            assert block.startswith(": heartbeat\nid: ")
            assert "data" not in block
        await stream.leave()
        await bench.write("a")
        page = (await bench.get(f"since={stream.last_id}")).json()
        assert [change["key"] for change in page["changes"]] == ["a"]


async def test_a_revoked_keys_stream_ends_with_its_reason(tmp_path: Path) -> None:
    async with serving(tmp_path, heartbeat_s=0.05) as bench:
        key = bench.accounts.create_key("r", ["read"])
        stream = Stream(bench, key=key.secret)
        await stream.block()
        bench.accounts.delete_key(key.id)
        await bench.write("secret")
        problem = await stream.event()
        assert (problem["error"], problem["status"]) == ("unauthenticated", 401)
        assert await stream.block() is None
        assert bench.following.open == 0


async def test_a_slow_reader_that_fell_out_of_the_log_misses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.following.log, "_noted_max", 10)
    stream = Stream(bench)
    await stream.block()
    for number in range(100):
        await bench.write(f"{number:03}")
        await asyncio.sleep(0)
    keys = set()
    while len(keys) < 100:
        keys.add((await stream.event())["key"])
    assert bench.following.catch_ups
    await stream.leave()


async def test_a_stream_whose_position_became_too_old_ends_with_its_reason(bench: Bench) -> None:
    stream = Stream(bench, f"since={encode(Live(b'earlier.', 0, 1), DATABASE, 'notes')}")
    problem = await stream.event()
    assert (problem["error"], problem["status"]) == ("changes_gone", 410)
    assert await stream.block() is None


async def test_a_stream_waits_while_the_workers_are_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deltadatabase.gateway.feed.FEED_RETRY_S", 0.01)
    stream = Stream(bench, "include=document")
    await stream.block()
    bench.database.failure = None
    await bench.write("a")
    bench.database.failure = Unavailable("no worker", code="no_worker")
    await asyncio.sleep(0.05)
    bench.database.failure = None
    assert (await stream.event())["key"] == "a"
    await stream.leave()


async def test_everything_ends_when_the_server_ends(bench: Bench) -> None:
    stream = Stream(bench)
    await stream.block()
    waiting = asyncio.create_task(bench.get("feed=longpoll&timeout=60"))
    while bench.following.open < 2:
        await asyncio.sleep(0)
    bench.following.log.close()
    assert await stream.block() is None
    page = (await asyncio.wait_for(waiting, 5.0)).json()
    assert page["next"]
    assert bench.following.open == 0
    reply = await bench.get("feed=longpoll")
    assert (reply.status, reply.json()["error"]) == (503, "ending")


async def test_open_feeds_are_bounded_for_each_key_and_together(tmp_path: Path) -> None:
    async with serving(tmp_path, feeds_max=3, feeds_of_one_max=2) as bench:
        key = bench.accounts.create_key("r", ["read"])
        streams = [Stream(bench), Stream(bench)]
        for stream in streams:
            await stream.block()
        reply = await bench.get("feed=eventsource")
        assert (reply.status, reply.json()["error"]) == (429, "too_many_feeds")
        assert "retry-after" in reply.headers
        other = Stream(bench, key=key.secret)
        await other.block()
        reply = await bench.get("feed=longpoll", key=key.secret)
        assert (reply.status, reply.json()["error"]) == (503, "too_many_feeds")
        assert (await bench.get(key=key.secret)).status == 200
        for stream in [*streams, other]:
            await stream.leave()
        assert (await bench.get("feed=longpoll&timeout=0")).status == 200
