import asyncio
import json
from typing import Any

import pytest

from deltadatabase import limits
from deltadatabase.auth.accounts import Accounts
from deltadatabase.errors import Corrupt, DeltaError, Overloaded, Unavailable
from deltadatabase.gateway.asgi import StreamedAnswer
from deltadatabase.gateway.edge import Exchange
from deltadatabase.gateway.exporting import ExportHandler
from deltadatabase.gateway.ports import Page
from deltadatabase.gateway.request import Head
from deltadatabase.model import ListedEntity, Result
from deltadatabase.storage.paths import escape_key, listing_order
from unit.gateway.rest_fakes import ADMIN_KEY, Client, FakeDatabase, TestClock

KEYS = ["a", "B", "é", "a/b", ".x", "=", "a b", '"', "\\n", "z" * 240]


def order(key: str) -> str:
    return listing_order(escape_key(key))


def keys_in(body: bytes) -> list[str]:
    return [json.loads(line)["key"] for line in body.splitlines()]


async def test_an_export_has_every_document_in_order(client: Client, database: FakeDatabase) -> None:
    for number, key in enumerate(KEYS):
        database.documents["chat", key] = (1, b'{"n":  %d}' % number)
    database.documents["other", "a"] = (1, b"1")
    reply = await client("GET", "/export/chat")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert keys_in(reply.body) == sorted(KEYS, key=order)
    assert b'{"key":"B","document":{"n":  1}}\n' in reply.body
    after = await client("GET", "/export/chat?after=a")
    assert keys_in(after.body) == sorted([key for key in KEYS if order(key) > order("a")], key=order)
    assert keys_in((await client("GET", "/export/chat?prefix=a&after=")).body) == [
        "a",
        "a b",
        "a/b",
    ]
    assert (await client("GET", "/export/chat?prefix=%C3%A9")).body.count(b"\n") == 1
    assert (await client("GET", "/export/nothing")).body == b""
    head = await client("HEAD", "/export/chat")
    assert (head.status, head.body) == (200, b"")


async def test_what_was_exported_can_be_imported(client: Client, database: FakeDatabase) -> None:
    documents = [b'{\n "a": 1\n}\n', b'"\xc3\xa9"', b" [1 ]", b"-0.0", b'{"b":1,"b":2}', b'"\\\\ \\"\\n"']
    for key in KEYS:
        for number, document in enumerate(documents):
            database.documents["chat", key[:200] + str(number)] = (1, document)
    before = dict(database.documents)
    exported = (await client("GET", "/export/chat")).body
    database.documents.clear()
    report = (await client("POST", "/import/chat", exported)).json()
    assert report["imported"] == len(KEYS) * len(documents)
    assert database.documents == before


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", "/export/chat", 405),
        ("GET", "/export/", 404),
        ("GET", "/export/a..b", 400),
        ("GET", "/export/chat?prefix=%00", 400),
        ("GET", "/export/chat?prefix=%ff", 400),
        ("GET", "/export/chat?prefix=%0A", 400),
        ("GET", "/export/chat?after=" + "x" * 241, 400),
        ("GET", "/export/chat?after=a&after=b", 400),
        ("GET", "/export/chat?prefx=a", 400),
    ],
)
async def test_other_requests_are_refused(client: Client, method: str, target: str, status: int) -> None:
    assert (await client(method, target)).status == status


async def test_the_right_to_read_is_needed(client: Client) -> None:
    for permissions, schemas, status in (("write", "chat", 403), ("read", "other", 403), ("read", "c*", 200)):
        made = await client(
            "POST",
            "/api/keys",
            json.dumps({"name": "k", "permissions": [permissions], "schemas": [schemas]}).encode(),
        )
        assert (await client("GET", "/export/chat", key=made.json()["secret"])).status == status
    assert (await client("GET", "/export/chat", key=None)).status == 401


async def test_a_database_that_is_not_there_is_a_problem(client: Client, database: FakeDatabase) -> None:
    database.failure = Unavailable("no worker has joined", code="no_worker")
    reply = await client("GET", "/export/chat")
    assert (reply.status, reply.json()["error"]) == (503, "no_worker")


class Large(FakeDatabase):
    """Has any number of documents, and counts what is read ahead."""

    def __init__(self, count: int, size: int = 10) -> None:
        super().__init__()
        self.count = count
        self.size = size
        self.reads = 0
        self.under_way = 0
        self.most = 0
        self.failures: dict[str, list[DeltaError]] = {}
        self.listing_failures: list[DeltaError] = []

    async def get(self, schema_id: str, key: str, **rest: Any) -> Result:
        self.reads += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0)
            if self.failures.get(key):
                raise self.failures[key].pop(0)
            if int(key) % 10 == 3:
                return await super().get(schema_id, key)  # which knows no such entity
            return Result(version=1, document=b'"' + b"x" * (self.size - 2) + b'"')
        finally:
            self.under_way -= 1

    async def list(self, schema_id: str, *, prefix: str = "", after: str = "", **rest: Any) -> Page:
        if self.listing_failures:
            raise self.listing_failures.pop(0)
        start = int(after) if after else 0
        end = min(start + 100, self.count)
        entities = tuple(ListedEntity(f"{number:06}", self.size, 0) for number in range(start + 1, end + 1))
        return Page(entities, f"{end:06}" if end < self.count else "")


def exchange(key: str = ADMIN_KEY) -> Exchange:
    head = Head("GET", "/export/chat", b"", {b"authorization": f"Bearer {key}".encode()}, None, False)
    return Exchange(head, None, "r")


def handler_of(database: Large, accounts: list[Accounts], clock: TestClock) -> ExportHandler:
    return ExportHandler(database, database, accounts[0], clock=clock)


async def collected(answer: StreamedAnswer) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks])


async def test_what_was_deleted_meanwhile_is_left_out(
    rest_accounts: list[Accounts], rest_clock: TestClock
) -> None:
    handler = handler_of(Large(250), rest_accounts, rest_clock)
    keys = keys_in(await collected(await handler(exchange())))
    assert keys == [f"{number:06}" for number in range(1, 251) if number % 10 != 3]


@pytest.mark.parametrize(("size", "ahead"), [(10, limits.EXPORT_AHEAD_MAX), (limits.MIB, 4)])
async def test_no_more_is_read_than_the_client_takes(
    rest_accounts: list[Accounts], rest_clock: TestClock, size: int, ahead: int
) -> None:
    database = Large(20_000, size)
    handler = handler_of(database, rest_accounts, rest_clock)
    chunks = (await handler(exchange())).chunks
    await anext(chunks)
    for _ in range(5):
        await asyncio.sleep(0)
    read = database.reads
    assert read <= ahead + 2 * limits.EXPORT_CHUNK_BYTES / size + 2
    for _ in range(50):
        await asyncio.sleep(0)
    assert database.reads == read
    assert database.most <= ahead
    await chunks.aclose()  # type: ignore[attr-defined]
    assert not database.under_way


async def test_what_passes_is_waited_for(rest_accounts: list[Accounts], rest_clock: TestClock) -> None:
    database = Large(20)
    database.failures = {"000005": [Unavailable("moving"), Overloaded("busy")]}
    body = await collected(await handler_of(database, rest_accounts, rest_clock)(exchange()))
    assert body.count(b"\n") == 18


async def test_names_that_are_being_read_for_the_first_time_are_waited_for(
    rest_accounts: list[Accounts], rest_clock: TestClock
) -> None:
    database = Large(20)
    database.listing_failures = [Unavailable("slow", code="timeout"), Unavailable("slow", code="timeout")]
    body = await collected(await handler_of(database, rest_accounts, rest_clock)(exchange()))
    assert body.count(b"\n") == 18
    database.listing_failures = [Unavailable("none", code="no_worker")]
    with pytest.raises(Unavailable):
        await handler_of(database, rest_accounts, rest_clock)(exchange())


async def test_what_does_not_pass_breaks_the_answer_off(
    rest_accounts: list[Accounts], rest_clock: TestClock
) -> None:
    database = Large(20)
    database.failures = {"000005": [Corrupt("damaged")]}
    with pytest.raises(Corrupt):
        await collected(await handler_of(database, rest_accounts, rest_clock)(exchange()))
    assert not database.under_way


async def test_the_end_of_the_key_breaks_the_answer_off(
    rest_accounts: list[Accounts], rest_clock: TestClock
) -> None:
    database = Large(20_000, 10_000)
    handler = handler_of(database, rest_accounts, rest_clock)
    made = rest_accounts[0].create_key("reader", ["read"])
    chunks = (await handler(exchange(made.secret))).chunks
    await anext(chunks)
    rest_accounts[0].delete_key(made.id)
    with pytest.raises(DeltaError, match="not accepted"):
        async for _ in chunks:
            pass
    assert database.reads < 200


async def test_a_bounded_number_of_exports_is_under_way(
    rest_accounts: list[Accounts], rest_clock: TestClock
) -> None:
    handler = handler_of(Large(10), rest_accounts, rest_clock)
    answers = [await handler(exchange()) for _ in range(limits.EXPORTS_MAX)]
    with pytest.raises(Overloaded, match="too many exports"):
        await handler(exchange())
    await anext(answers[0].chunks)
    await answers.pop(0).chunks.aclose()  # type: ignore[attr-defined]
    answers.append(await handler(exchange()))
    # A stream that nobody began to read gives its place back as well.
    answers.clear()
    answers = [await handler(exchange()) for _ in range(limits.EXPORTS_MAX)]
