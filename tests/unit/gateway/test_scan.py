"""Scans of stored entities by a schema, with the real child process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import pytest

from deltadatabase import limits
from deltadatabase.errors import Corrupt, Denied, Issue, NotFound, Overloaded, Unavailable
from deltadatabase.gateway import scan
from deltadatabase.gateway.scan import Scans, batches
from deltadatabase.gateway.schema_trial import SchemaTrials, trial_of
from deltadatabase.model import ListedEntity, Result
from unit.gateway.rest_fakes import FakeDatabase

OBJECTS = b'{"type": "object"}'
NOT_AN_OBJECT = (Issue("", "type", "the value's type is none of types=object"),)
# Few bytes, and for one document a quarter of a second that nobody can interrupt.
SLOW = msgspec.json.encode({"items": {"enum": [{"a": i} for i in range(60)]}})
SLOW_DOCUMENT = b"[" + b",".join([b'{"a":61}'] * 3000) + b"]"


def always() -> None:
    """Let every scan go on."""


async def scanned(
    database: FakeDatabase, schema: bytes, may_go_on: Callable[[], None] = always
) -> list[dict[str, object]]:
    lines = [line async for line in Scans(database, database).begin("s", schema, may_go_on)]
    return [msgspec.json.decode(line) for line in b"".join(lines).splitlines()]


def filled(count: int) -> FakeDatabase:
    """Every third document is none that ``OBJECTS`` allows."""
    database = FakeDatabase()
    for i in range(count):
        database.documents["s", f"k{i:05}"] = (i + 1, b"{}" if i % 3 else b"%d" % i)
    return database


async def test_a_scan_goes_over_all_pages_and_lists_in_order() -> None:
    *found, done = await scanned(filled(2500), OBJECTS)
    assert done == {"done": True, "checked": 2500, "refused": 834, "unreadable": 0}
    # Where it takes longer than a second it tells how far it is.
    assert [line["key"] for line in found if "key" in line] == [f"k{i:05}" for i in range(0, 2500, 3)]
    assert [line["version"] for line in found] == [i + 1 for i in range(0, 2500, 3)]


async def test_so_many_are_listed_and_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    *found, done = await scanned(filled(3 * limits.SCAN_LISTED_MAX + 100), OBJECTS)
    assert len(found) == limits.SCAN_LISTED_MAX
    assert done["refused"] == limits.SCAN_LISTED_MAX + 34
    assert found[-1]["key"] == f"k{3 * (limits.SCAN_LISTED_MAX - 1):05}"


async def test_of_a_schema_id_without_entities() -> None:
    assert await scanned(FakeDatabase(), OBJECTS) == [
        {"done": True, "checked": 0, "refused": 0, "unreadable": 0}
    ]


class Odd(FakeDatabase):
    """Fails for some keys, once or always."""

    def __init__(self, failures: dict[str, list[Exception]]) -> None:
        super().__init__()
        self.failures = failures
        for key in "abc":
            self.documents["s", key] = (1, b"{}")

    async def get(self, schema_id: str, key: str, **options: object) -> Result:
        if self.failures.get(key):
            raise self.failures[key].pop(0)
        return await super().get(schema_id, key)


async def test_an_entity_deleted_meanwhile_is_left_out_and_a_damaged_one_told_of() -> None:
    database = Odd({"a": [NotFound("gone")], "b": [Corrupt("damaged")]})
    assert await scanned(database, OBJECTS) == [
        {"key": "b", "error": "integrity"},
        {"done": True, "checked": 1, "refused": 0, "unreadable": 1},
    ]


async def test_a_scan_outlives_a_change_of_workers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_PAUSE_S", 0.0)
    once: list[Exception] = [Unavailable("no worker"), Overloaded("busy")]
    assert (await scanned(Odd({"a": once}), OBJECTS))[-1]["checked"] == 3
    with pytest.raises(Unavailable):
        await scanned(Odd({"a": [Unavailable("no worker")] * 20}), OBJECTS)


async def test_a_right_that_ends_ends_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PROGRESS_S", 0.0)
    asked = 0

    def may_go_on() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Denied("this key lacks the permission read")

    with pytest.raises(Denied):
        await scanned(filled(5000), OBJECTS, may_go_on)
    assert asked == 3


async def test_progress_is_told_while_one_document_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PROGRESS_S", 0.02)
    database = FakeDatabase()
    database.documents["s", "k"] = (1, SLOW_DOCUMENT)
    *progress, _, done = await scanned(database, SLOW)
    assert {"checked": 0, "refused": 0, "unreadable": 0} in progress
    assert (done["checked"], done["refused"]) == (1, 1)


async def test_the_loop_goes_on_while_a_schema_does_its_worst() -> None:
    database = FakeDatabase()
    for i in range(4):
        database.documents["s", f"k{i}"] = (1, SLOW_DOCUMENT)
    task = asyncio.create_task(scanned(database, SLOW))
    # Turns of this loop and no seconds: inside of this process there would be next to none.
    turns = 0
    while not task.done():
        await asyncio.sleep(0.005)
        turns += 1
    assert (await task)[-1]["refused"] == 4
    assert turns > 10


async def test_a_bounded_number_of_scans_and_a_client_that_leaves_makes_room() -> None:
    database = FakeDatabase()
    database.documents["s", "k"] = (1, b"[]")
    scans = Scans(database, database)
    begun = [scans.begin("s", OBJECTS, always) for _ in range(limits.SCANS_MAX)]
    for lines in begun:
        await anext(lines)
    with pytest.raises(Overloaded) as caught:
        scans.begin("s", OBJECTS, always)
    assert caught.value.code == "scans_busy"
    await begun[0].aclose()
    again = scans.begin("s", OBJECTS, always)
    assert len([line async for line in again]) == 2
    await begun[1].aclose()


async def test_a_child_that_dies_ends_the_scan_without_its_last_line() -> None:
    async with trial_of(OBJECTS) as trial:
        assert await trial.check([("a", b"{}"), ("b", b"[]")]) == [(), NOT_AN_OBJECT]
        trial._process.kill()
        trial._process.wait()  # So that the pipe is certainly broken.
        with pytest.raises(Unavailable):
            await trial.check([("a", b"{}")])


async def test_a_cancelled_trial_leaves_no_process() -> None:
    async def forever() -> None:
        async with trial_of(SLOW) as trial:
            processes.append(trial._process)
            await trial.check([("k", SLOW_DOCUMENT)] * 50)

    processes: list[object] = []
    task = asyncio.create_task(forever())
    while not processes:
        await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert processes[0].returncode is not None  # type: ignore[attr-defined]


async def test_a_bounded_number_of_schemas_waits_for_its_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = SchemaTrials()
    count = limits.SCHEMA_TRIALS_MAX + limits.SCHEMA_TRIALS_WAITING_MAX
    tries = [asyncio.create_task(trials.version_of(OBJECTS)) for _ in range(count + 8)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    refused = [result for result in done if isinstance(result, Overloaded)]
    assert len({result for result in done if isinstance(result, str)}) == 1
    assert len(refused) >= 8
    assert await trials.version_of(OBJECTS) == next(result for result in done if isinstance(result, str))


def test_a_batch_is_bounded_in_number_and_bytes() -> None:
    sizes = [1] * 100 + [limits.SCAN_BATCH_BYTES_MAX * 2, 5, limits.SCAN_BATCH_BYTES_MAX - 5, 1]
    cut = list(batches(ListedEntity(str(i), size, 0) for i, size in enumerate(sizes)))
    assert [len(batch) for batch in cut] == [64, 36, 1, 2, 1]
    assert [entity.name for batch in cut for entity in batch] == [str(i) for i in range(len(sizes))]
