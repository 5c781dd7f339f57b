"""The Python client against real servers: both clients, the same tests."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from deltadatabase import AsyncClient, Client, errors
from deltadatabase.client import calls
from integration.serving import Served, served

pytestmark = pytest.mark.integration

STRANGE = ["a", "a b", "ü/ö", "..", "%2F", "user:42?x=1#y", "🦜", "a\\b", "."]


class Note(msgspec.Struct):
    text: str
    stars: int = 0


class Blocking:
    """An ``AsyncClient`` that blocks, so that the same tests serve for both."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(*arguments, **named)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            result = method(*arguments, **named)
            if hasattr(result, "__anext__"):
                return self._iterated(result)
            return self._loop.run_until_complete(result)

        return call

    def _iterated(self, items: Any) -> Iterator[Any]:
        try:
            while (item := self._loop.run_until_complete(anext(items, self))) is not self:
                yield item
        finally:
            self._loop.run_until_complete(items.aclose())

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("client")) as running:
        yield running


@pytest.fixture(params=[Client, Blocking], ids=["sync", "async"])
def client(request, server):
    made = request.param(server.url, give_up_after_s=20.0)
    yield made
    made.close()


@pytest.fixture
def schema(request):
    """A schema id of each test alone."""
    name = "".join(char if char.isalnum() else "." for char in request.node.name)
    return name.strip(".").replace("..", ".")[:90]


def test_documents_are_written_and_read(client, schema):
    written = client.put(schema, "a", {"text": "hello", "n": 2**60})
    assert written.created and written.version == 1 and written.etag
    entity = client.get(schema, "a")
    assert entity.value == {"text": "hello", "n": 2**60}
    assert (entity.etag, entity.version) == (written.etag, 1)
    assert entity.updated_at is not None and entity.updated_at.tzinfo is not None
    assert client.head(schema, "a").etag == written.etag
    again = client.put(schema, "a", Note("typed", 3))
    assert not again.created and again.version == 2
    assert client.get(schema, "a", as_=Note).value == Note("typed", 3)
    client.delete(schema, "a")
    with pytest.raises(errors.NotFound):
        client.get(schema, "a")
    with pytest.raises(errors.NotFound):
        client.delete(schema, "a")


def test_documents_are_stored_byte_for_byte(client, schema):
    text = b'{ "price": 0.10,\n  "big": 123456789012345678901234567890 }\n'
    client.put(schema, "a", text)
    assert client.get(schema, "a", as_=bytes).value == text
    assert client.get(schema, "a").value["big"] == 123456789012345678901234567890
    with pytest.raises(errors.Invalid) as caught:
        client.get(schema, "a", as_=Note)
    assert caught.value.code == "unreadable"


def test_keys_may_be_strange(client, schema):
    for key in STRANGE:
        client.put(schema, key, key)
    for key in STRANGE:
        assert client.get(schema, key).value == key
    assert {item.key for item in client.iterate(schema)} == set(STRANGE)


def test_what_did_not_change_is_not_sent_again(client, schema):
    client.put(schema, "a", 1)
    known = client.get(schema, "a")
    assert client.get(schema, "a", known=known) is known
    client.put(schema, "a", 2)
    assert client.get(schema, "a", known=known).value == 2


def test_conditions_hold(client, schema):
    first = client.put(schema, "a", 1, if_none_match="*")
    with pytest.raises(errors.VersionMismatch) as caught:
        client.put(schema, "a", 2, if_none_match="*")
    assert caught.value.etag == first.etag and caught.value.status == 412 and caught.value.request_id
    second = client.put(schema, "a", 2, if_match=first.etag)
    for write in (
        lambda: client.put(schema, "a", 3, if_match=first.etag),
        lambda: client.patch(schema, "a", {"x": 1}, if_match=first.etag),
        lambda: client.delete(schema, "a", if_match=first.etag),
    ):
        with pytest.raises(errors.VersionMismatch):
            write()
    client.delete(schema, "a", if_match=[first.etag, second.etag])


def test_patches_change_a_part(client, schema):
    client.put(schema, "a", {"text": "hello", "stars": 1})
    assert client.patch(schema, "a", {"stars": 2, "text": None}).version == 2
    assert client.get(schema, "a").value == {"stars": 2}
    client.patch(schema, "a", [{"op": "add", "path": "/x", "value": [1]}])
    assert client.get(schema, "a").value == {"stars": 2, "x": [1]}
    with pytest.raises(errors.Conflict):
        client.patch(schema, "a", [{"op": "test", "path": "/x", "value": 0}])
    with pytest.raises(errors.NotFound):
        client.patch(schema, "b", {})


def test_a_name_makes_a_repeat_harmless(client, schema):
    first = client.put(schema, "a", 1, idempotency_key=f"{schema}-1")
    client.put(schema, "a", 2)
    again = client.put(schema, "a", 1, idempotency_key=f"{schema}-1")
    assert again.repeated and again.etag == first.etag
    assert client.get(schema, "a").value == 2
    with pytest.raises(errors.Unprocessable):
        client.put(schema, "a", 3, idempotency_key=f"{schema}-1")


def test_updates_lose_nothing(client, server, schema):
    def count() -> None:
        with Client(server.url) as mine:
            for _ in range(10):
                mine.update(schema, "n", lambda value: (value or 0) + 1, create=True)

    others = [threading.Thread(target=count) for _ in range(3)]
    for other in others:
        other.start()
    for _ in range(10):
        entity = client.update(schema, "n", lambda value: (value or 0) + 1, create=True)
    for other in others:
        other.join()
    assert client.get(schema, "n", as_=int).value == 40
    assert entity.value <= 40


def test_lists_come_in_pages(client, schema):
    client.batch([calls.put(schema, f"k{number:03}", {"n": number}) for number in range(25)])
    page = client.list(schema, prefix="k0", limit=10)
    assert [item.key for item in page.items] == [f"k{number:03}" for number in range(10)]
    assert page.items[0].size > 0 and page.items[0].etag is None
    rest = client.list(schema, prefix="k0", after=page.next, include="meta")
    assert len(rest.items) == 15 and rest.next is None and rest.items[0].version == 1
    items = [*client.iterate(schema, include="document", page=7)]
    assert [item.value["n"] for item in items] == [*range(25)]
    assert [*client.iterate(f"{schema}.none")] == []


def test_batches_tell_of_each_call(client, schema):
    results = client.batch(
        [
            calls.put(schema, "a", {"n": 1}),
            calls.get(schema, "a", as_=bytes),
            calls.put(schema, "a", 0, if_none_match="*"),
            calls.get(schema, "b"),
            calls.patch(schema, "a", {"m": 2}),
            calls.get(schema, "a"),
            calls.delete(schema, "a"),
        ]
    )
    assert results[0].created and results[1].value == b'{"n":1}'
    assert isinstance(results[2], errors.VersionMismatch) and isinstance(results[3], errors.NotFound)
    assert results[5].value == {"n": 1, "m": 2}
    assert client.batch([]) == []


def test_import_and_export_are_each_others_opposite(client, schema, tmp_path):
    documents = {key: b'{\n "key": %s }\n' % json.dumps(key).encode() for key in STRANGE}
    seen = []
    report = client.import_ndjson(schema, documents.items(), progress=seen.append)
    assert (report.lines, report.imported, report.created, report.failed) == (9, 9, 9, 0)
    assert seen[-1].lines == 9
    path = tmp_path / "out.ndjson"
    assert client.export_ndjson(schema, path).lines == 9
    assert path.read_bytes().splitlines() == [*client.export_lines(schema)]
    copy = f"{schema}.copy"
    assert client.import_ndjson(copy, path).created == 9
    for key, text in documents.items():
        assert client.get(copy, key, as_=bytes).value == text
    with path.open("rb") as file:
        assert client.import_ndjson(copy, file, skip_existing=True).skipped == 9


def test_refused_lines_are_told_by_number(client, schema):
    client.schema_put(schema, {"type": "object", "required": ["text"]})
    lines = [b'{"key":"a","document":{"text":""}}', b"", b"nonsense", b'{"key":"b","document":{}}', "{}"]
    report = client.import_ndjson(schema, lines)
    assert (report.imported, report.failed) == (1, 3)
    assert [error.line for error in report.errors] == [3, 4, 5]
    stopped = client.import_ndjson(schema, io.BytesIO(b"\n".join(lines[:4])), on_error="stop")
    assert stopped.stopped and stopped.lines == 3


def test_schemas_are_put_checked_and_removed(client, schema):
    rule = {"type": "object", "required": ["text"]}
    checked = client.schema_check(schema, rule)
    assert not checked.enforced
    with pytest.raises(errors.NotFound):
        client.schema_get(schema)
    client.put(schema, "old", {})
    scanned = client.schema_scan(schema, rule)
    assert (scanned.checked, scanned.refused) == (1, 1) and scanned.entities[0].key == "old"
    stored = client.schema_put(schema, rule)
    assert stored.enforced and stored.version == checked.version
    assert json.loads(client.schema_get(schema)) == rule
    with pytest.raises(errors.Invalid) as caught:
        client.put(schema, "a", {"x": 1})
    assert caught.value.issues[0].keyword == "required"
    assert schema in client.schemas() and schema in client.schemas(templates=True)
    client.schema_delete(schema)
    assert client.put(schema, "a", {"x": 1}).created
    with pytest.raises(errors.Invalid):
        client.schema_put(schema, {"type": 1})


def test_keys_and_workers(client, server):
    made = client.key_create("reader", ["read"], expires_in="1h", schemas=["notes"])
    assert made.secret.startswith("dk_") and made.secret not in repr(made)
    listed = client.keys()
    assert made.id in {key.id for key in listed}
    client.key_delete(made.id)
    listed = client.keys()
    assert made.id not in {key.id for key in listed}
    assert [worker.status for worker in client.workers()] == ["Available"]


def test_changes_are_followed(client, server, schema):
    with Client(server.url) as other:
        other.put(schema, "before", 0)
        position = client.call(calls.position(schema))
        other.put(schema, "a", {"n": 1})
        other.put(schema, "b", {"n": 2})
        other.delete(schema, "b")
        changes = client.changes(schema, since=position, include="document")
        seen = {}
        for change in changes:
            seen[change.key] = change
            if seen.keys() == {"a", "b"} and seen["b"].deleted:
                break
        assert seen["a"].value == {"n": 1} and seen["a"].version == 1
        assert seen["b"].value is None
        other.put(schema, "c", 3)
        (next_one,) = itertools.islice(client.changes(schema, since=change.token), 1)
        assert next_one.key == "c" and next_one.value is None


def test_a_position_that_means_nothing_is_told(client, schema):
    with pytest.raises(errors.DeltaError) as caught:
        next(client.changes(schema, since="nonsense"))
    assert caught.value.status in {400, 410}
