import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from deltadatabase import limits
from deltadatabase.auth.accounts import Accounts
from deltadatabase.errors import (
    Corrupt,
    DeltaError,
    Invalid,
    OutcomeUnknown,
    Overloaded,
    RequestTimeout,
    Unauthenticated,
    Unavailable,
)
from deltadatabase.gateway.edge import Exchange
from deltadatabase.gateway.importing import ImportHandler
from deltadatabase.gateway.request import Head
from deltadatabase.model import Result
from unit.gateway.rest_fakes import ADMIN_KEY, Client, CountingRandom, FakeDatabase, TestClock

Import = Callable[..., Awaitable[dict[str, Any]]]


def line(key: str, document: object) -> bytes:
    return json.dumps({"key": key, "document": document}).encode() + b"\n"


async def test_an_import_stores_each_line(client: Client, database: FakeDatabase) -> None:
    database.documents["chat", "b"] = (4, b"0")
    reply = await client(
        "POST",
        "/import/chat",
        [b'{"key":"a/1","docu', b'ment":{"x": 1.0}}\r\n\n{"key":"b","document":', b"2}"],
    )
    assert reply.status == 200
    assert reply.json() == {"lines": 2, "imported": 2, "created": 1, "skipped": 0, "failed": 0, "errors": []}
    assert database.documents == {("chat", "a/1"): (1, b'{"x": 1.0}'), ("chat", "b"): (5, b"2")}


async def test_lines_that_fail_are_told_of_and_the_rest_is_stored(
    client: Client, database: FakeDatabase
) -> None:
    body = b"\n".join(
        [
            line("a", 1),
            b"not json",
            b'{"key":"k","document":NaN}',
            b'{"key":"","document":1}',
            line("big", "x" * 2000).strip(),
            b"x" * 10_000,
            line("z", 2),
        ]
    )
    report = (await client("POST", "/import/chat", body)).json()
    assert [(error["line"], error["error"], error.get("key")) for error in report["errors"]] == [
        (3, "malformed_line", None),
        (4, "malformed_line", None),
        (5, "invalid_key", None),
        (6, "too_large", None),
        (7, "too_large", None),
    ]
    assert (report["lines"], report["imported"], report["failed"]) == (7, 2, 5)
    assert set(database.documents) == {("chat", "a"), ("chat", "z")}


async def test_what_the_database_refuses_is_told_with_its_key(client: Client) -> None:
    reply = await client("POST", "/import/chat", b'{"key":"k","document":[1e999]}\n' + line("a", 1))
    (error,) = reply.json()["errors"]
    assert (error["line"], error["key"], error["error"]) == (1, "k", "malformed_json")
    assert reply.json()["imported"] == 1


async def test_an_import_can_leave_alone_what_exists(client: Client, database: FakeDatabase) -> None:
    database.documents["chat", "a"] = (4, b"0")
    body = line("a", 1) + line("b", 1) + line("b", 2)
    report = (await client("POST", "/import/chat?skip_existing=true", body)).json()
    assert report == {"lines": 3, "imported": 1, "created": 1, "skipped": 2, "failed": 0, "errors": []}
    assert database.documents == {("chat", "a"): (4, b"0"), ("chat", "b"): (1, b"1")}


async def test_an_import_can_stop_at_the_first_line_that_fails(
    client: Client, database: FakeDatabase
) -> None:
    body = line("a", 1) + b"bad\n" + line("b", 1)
    report = (await client("POST", "/import/chat?on_error=stop", body)).json()
    assert report["stopped_at"] == 2
    assert (report["lines"], report["imported"], report["failed"]) == (2, 1, 1)
    assert list(database.documents) == [("chat", "a")]


async def test_no_more_errors_are_kept_than_a_thousand(client: Client) -> None:
    report = (await client("POST", "/import/chat", b"bad\n" * 1500)).json()
    assert report["failed"] == 1500
    assert [error["line"] for error in report["errors"]] == list(range(1, 1001))


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/import/chat", 405),
        ("PUT", "/import/chat", 405),
        ("POST", "/import/", 404),
        ("POST", "/import/a..b", 400),
        ("POST", "/import/a/b", 400),
        ("POST", "/import/chat?skip_existing=yes", 400),
        ("POST", "/import/chat?skip_exsting=true", 400),
        ("POST", "/import/chat?on_error=stop&on_error=stop", 400),
        ("POST", "/import/chat?on_error=%ff", 400),
    ],
)
async def test_other_requests_are_refused(client: Client, method: str, target: str, status: int) -> None:
    reply = await client(method, target, line("a", 1))
    assert reply.status == status
    if status == 405:
        assert reply.headers["allow"] == "POST"


async def test_an_empty_body_is_an_import_of_nothing(client: Client) -> None:
    assert (await client("POST", "/import/chat")).json()["lines"] == 0


async def test_the_right_to_write_is_needed(client: Client, database: FakeDatabase) -> None:
    for permissions, schemas, status in (
        ("read", "chat", 403),
        ("write", "other", 403),
        ("write", "chat", 200),
    ):
        made = await client(
            "POST",
            "/api/keys",
            json.dumps({"name": "k", "permissions": [permissions], "schemas": [schemas]}).encode(),
        )
        reply = await client("POST", "/import/chat", line("a", 1), key=made.json()["secret"])
        assert reply.status == status
    assert (await client("POST", "/import/chat", line("a", 1), key=None)).status == 401
    assert len(database.documents) == 1


class Slow(FakeDatabase):
    """Writes end when the test lets them, and fail as it says."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[str, bytes, asyncio.Future[None]]] = []
        self.holds = False
        self.failures: list[DeltaError] = []
        self.tried: list[bytes | None] = []
        self.most = 0
        self._now = 0

    async def put_one(self, schema_id: str, key: str, document: bytes, **rest: Any) -> Result:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            self.tried.append(rest.get("write_id"))
            if self.holds:
                go_on = asyncio.get_running_loop().create_future()
                self.waiting.append((key, document, go_on))
                await go_on
            else:
                await asyncio.sleep(0)
            if self.failures:
                raise self.failures.pop(0)
            return await super().put_one(schema_id, key, document, **rest)
        finally:
            self._now -= 1

    def release(self) -> None:
        for _, _, go_on in self.waiting:
            go_on.set_result(None)
        self.waiting.clear()


class Stream:
    """The body of an import, under the test's hand."""

    def __init__(
        self, *chunks: bytes | DeltaError, between: Callable[[int], None] = lambda number: None
    ) -> None:
        self.chunks = chunks
        self.between = between
        self.taken = 0
        self.method = "POST"

    async def body_chunks(self) -> AsyncIterator[bytes]:
        for number, chunk in enumerate(self.chunks):
            self.between(number)
            self.taken += 1
            if isinstance(chunk, DeltaError):
                raise chunk
            yield chunk


def exchange(stream: Stream, query: bytes = b"", key: str = ADMIN_KEY) -> Exchange:
    head = Head("POST", "/import/chat", query, {b"authorization": f"Bearer {key}".encode()}, None, True)

    class Fake(Exchange):
        def body_chunks(self) -> AsyncIterator[bytes]:
            return stream.body_chunks()

    return Fake(head, None, "r")


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def handler(slow: Slow, rest_accounts: list[Accounts], rest_clock: TestClock) -> ImportHandler:
    return ImportHandler(
        slow,
        rest_accounts[0],
        document_bytes_max=limits.MIB,
        clock=rest_clock,
        random=CountingRandom(),
    )


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def imported(handler: ImportHandler, *chunks: bytes | DeltaError, query: bytes = b"") -> Any:
    return json.loads((await handler(exchange(Stream(*chunks), query))).body)


async def test_no_more_is_taken_while_the_window_is_full(handler: ImportHandler, slow: Slow) -> None:
    slow.holds = True
    stream = Stream(*(line(f"k{number}", number) for number in range(1000)))
    task = asyncio.create_task(handler(exchange(stream)))
    await settled()
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(slow.waiting) == limits.IMPORT_IN_FLIGHT_MAX
    assert stream.taken <= limits.IMPORT_IN_FLIGHT_MAX + 1
    slow.holds = False
    slow.release()
    assert json.loads((await task).body)["imported"] == 1000
    assert slow.most <= limits.IMPORT_IN_FLIGHT_MAX


async def test_the_window_is_bounded_in_bytes_too(handler: ImportHandler, slow: Slow) -> None:
    slow.holds = True
    large = "x" * (limits.MIB - 10)
    task = asyncio.create_task(
        handler(exchange(Stream(*(line(f"k{number}", large) for number in range(20)))))
    )
    await settled()
    await settled()
    assert len(slow.waiting) == limits.IMPORT_IN_FLIGHT_BYTES_MAX // limits.MIB
    slow.holds = False
    slow.release()
    await task


async def test_of_two_lines_with_one_key_the_later_stays(handler: ImportHandler, slow: Slow) -> None:
    slow.holds = True
    body = line("a", 1) + line("b", 1) + line("a", 2) + line("a", 3)
    task = asyncio.create_task(handler(exchange(Stream(body))))
    for expected in (["a", "b"], ["a"], ["a"]):
        await settled()
        assert [key for key, _, _ in slow.waiting] == expected, "one write of a key at a time"
        slow.release()
    assert json.loads((await task).body)["imported"] == 4
    assert slow.documents["chat", "a"] == (3, b"3")


async def test_the_order_holds_when_the_earlier_line_is_tried_again(
    handler: ImportHandler, slow: Slow
) -> None:
    slow.failures = [Overloaded("busy"), OutcomeUnknown("lost"), Unavailable("gone")]
    report = await imported(handler, line("a", 1) + line("a", 2))
    assert (report["imported"], report["failed"]) == (2, 0)
    assert slow.documents["chat", "a"] == (2, b"2")
    assert len(set(slow.tried[:4])) == 1, "a repeat has the first try's name"
    assert len(set(slow.tried)) == 2


async def test_what_stays_unavailable_is_told_of_after_a_bounded_time(
    handler: ImportHandler, slow: Slow, rest_clock: TestClock
) -> None:
    class Gone(list[DeltaError]):
        def pop(self, index: int = -1) -> DeltaError:  # type: ignore[override]
            rest_clock.pass_s(5.0)
            return Unavailable("no worker", code="no_worker")

        def __bool__(self) -> bool:
            return True

    slow.failures = Gone()
    report = await imported(handler, *(line(f"k{number}", 1) for number in range(300)))
    assert report["failed"] == 300
    assert {error["error"] for error in report["errors"]} == {"no_worker"}
    assert len(slow.tried) < 300 + limits.IMPORT_IN_FLIGHT_MAX + 10, "waited once, not for every line"


async def test_a_failure_that_stays_is_not_tried_again(handler: ImportHandler, slow: Slow) -> None:
    slow.failures = [Corrupt("damaged")]
    report = await imported(handler, line("a", 1) + line("b", 1))
    assert [error["error"] for error in report["errors"]] == ["integrity"]
    assert len(slow.tried) == 2


@pytest.mark.parametrize("end", [Invalid("cut", code="incomplete_body"), RequestTimeout("slow")])
async def test_a_broken_end_confirms_nothing_and_loses_nothing(
    handler: ImportHandler, slow: Slow, end: DeltaError
) -> None:
    with pytest.raises(type(end), match=r"cut|slow") as caught:
        await imported(handler, line("a", 1) + line("b", 2)[:-4], end)
    assert caught.value.detail.endswith("before that 1 lines were imported, 0 skipped and 0 failed")
    assert list(slow.documents) == [("chat", "a")], "half a line is none"


async def test_the_end_of_the_key_ends_the_import(
    handler: ImportHandler, slow: Slow, rest_accounts: list[Accounts]
) -> None:
    made = rest_accounts[0].create_key("importer", ["write"])

    def end(number: int) -> None:
        if number == 2:
            rest_accounts[0].delete_key(made.id)

    stream = Stream(line("a", 1), line("b", 2), line("c", 3), between=end)
    with pytest.raises(Unauthenticated, match="not accepted"):
        await handler(exchange(stream, key=made.secret))
    assert set(slow.documents) == {("chat", "a"), ("chat", "b")}


async def test_when_the_client_leaves_what_was_begun_ends_and_holds_its_place(
    handler: ImportHandler, slow: Slow
) -> None:
    slow.holds = True
    task = asyncio.create_task(handler(exchange(Stream(line("a", 1), line("a", 2), line("b", 3)))))
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(handler._running) == 1
    slow.holds = False
    slow.release()
    await settled()
    assert slow.documents == {("chat", "a"): (2, b"2"), ("chat", "b"): (1, b"3")}
    assert not handler._running


async def test_a_bounded_number_of_imports_is_under_way(handler: ImportHandler, slow: Slow) -> None:
    slow.holds = True
    tasks = [
        asyncio.create_task(handler(exchange(Stream(line(f"k{number}", 1)))))
        for number in range(limits.IMPORTS_MAX)
    ]
    await settled()
    with pytest.raises(Overloaded, match="too many imports"):
        await handler(exchange(Stream(line("x", 1))))
    slow.holds = False
    slow.release()
    await asyncio.gather(*tasks)
    assert (await imported(handler, line("x", 1)))["imported"] == 1


async def test_a_mistake_of_ours_is_a_failed_line(handler: ImportHandler, slow: Slow) -> None:
    slow.failures = [KeyError("secret")]  # type: ignore[list-item]
    report = await imported(handler, line("a", 1) + line("b", 1))
    assert [error["error"] for error in report["errors"]] == ["internal"]
    assert "secret" not in json.dumps(report)


async def test_others_get_their_turn_while_lines_are_refused(handler: ImportHandler, slow: Slow) -> None:
    """One piece of a body may hold a hundred thousand lines, and refused ones wait for nothing."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beside = asyncio.create_task(other())
    await imported(handler, b"x\n" * 10_000)
    beside.cancel()
    assert turns >= 10_000 // limits.IMPORT_TURN_LINES - 2
