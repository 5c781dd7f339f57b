"""Scrubbing a store whose objects are damaged in every way, beside writers that get in between."""

from __future__ import annotations

import msgspec
import pytest
from support.clocks import SeededRandom
from support.scrubbing import KEY, OTHER_KEY, Scrubbed, flipped

from deltadatabase.crypto.envelope import Sealer
from deltadatabase.crypto.format import is_tombstone_size
from deltadatabase.crypto.keyring import Keyring
from deltadatabase.errors import NotFound, OutcomeUnknown, StartupError, Unavailable
from deltadatabase.maintenance import checking
from deltadatabase.maintenance import scrub as module
from deltadatabase.maintenance.findings import Kind, report_of
from deltadatabase.maintenance.offline import Rules
from deltadatabase.storage.base import When
from deltadatabase.storage.database import begin_maintenance, read_database
from deltadatabase.storage.paths import DATABASE_PATH, entity_path, meta_path, presence_path, quarantine_path

NAME = ("notes", "a b/ü")
ENTITY, META = entity_path(*NAME), meta_path(*NAME)
NOW = Rules(tombstone_age_s=0, presence_age_s=0)


@pytest.fixture
async def world() -> Scrubbed:
    made = Scrubbed()
    await made.create()
    return made


async def test_a_sound_store_is_clean_and_stays_as_it_is(world):
    await world.entity(*NAME)
    await world.entity("notes", "gone", tombstone=True)
    await world.store.put("templates/notes.json", b'{"type": "object"}', When.ALWAYS)
    before = dict(world.store.objects)
    _, ledger = await world.scrub()
    assert ledger.counts.found == {} and ledger.counts.remaining == 0
    counts = ledger.counts
    assert (counts.entities, counts.tombstones, counts.meta_files, counts.templates) == (1, 1, 2, 1)
    assert counts.objects == 4 and world.progress[-1] == 4
    assert world.store.objects == before


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (flipped(0), "foreign"),
        (flipped(4), "integrity"),
        (flipped(8), "integrity"),
        (flipped(30), "integrity"),
        (flipped(70), "integrity"),
        (flipped(90), "integrity"),
        (flipped(-1), "integrity"),
        (flipped(-20), "integrity"),
        (lambda data: b"", "truncated"),
        (lambda data: data[:3], "truncated"),
        (lambda data: data[:100], "truncated"),
        (lambda data: data[:-50], "truncated"),
        (lambda data: data[:-2], "integrity"),
        (lambda data: data + b"xx", "integrity"),
        (lambda data: b"hello", "foreign"),
        (lambda data: b"\0" * 500, "foreign"),
    ],
)
async def test_damage_is_found_and_named_and_left_alone(world, change, kind):
    await world.entity(*NAME, document=b'"' + b"x" * 32 + b'"')
    damaged = await world.damage(ENTITY, change)
    before = dict(world.store.objects)
    _, ledger = await world.scrub()
    assert ledger.counts.found == {f"{kind}/none": 1} and ledger.counts.remaining == 1
    (finding,) = ledger.findings
    assert (finding.schema_id, finding.key) == NAME
    assert world.store.objects == before and world.store.objects[ENTITY].data == damaged


async def test_a_key_that_is_not_there_is_no_damage_and_never_set_aside(world):
    await world.entity(*NAME, sealer=Sealer(Keyring(OTHER_KEY), SeededRandom(8)), meta=False)
    before = dict(world.store.objects)
    found = await world.found(quarantine=True)
    assert found == {"key_unavailable/none": 1}
    assert world.store.objects == before
    world.keyring = Keyring(KEY, [OTHER_KEY])
    assert await world.found() == {"meta_missing/rebuilt": 1}


async def test_two_objects_that_changed_places_are_both_misplaced(world):
    await world.entity(*NAME)
    await world.entity("other", "b")
    one, other = world.store.objects[ENTITY], world.store.objects[entity_path("other", "b")]
    world.store.objects[ENTITY], world.store.objects[entity_path("other", "b")] = other, one
    _, ledger = await world.scrub()
    assert ledger.counts.found == {"misplaced/none": 2}
    assert {finding.detail for finding in ledger.findings} == {
        "it is the entity 'b' of 'other'",
        "it is the entity 'a b/ü' of 'notes'",
    }


@pytest.mark.parametrize("text", [None, b"", b"{}", b"\xff", b'{"version": 1'])
async def test_a_missing_or_unreadable_meta_file_is_rebuilt(world, text):
    data = await world.entity(*NAME)
    if text is None:
        await world.store.delete(META)
    else:
        await world.store.put(META, text, When.ALWAYS)
    wrong = "meta_missing" if text is None else "meta_wrong"
    assert await world.found(dry_run=True) == {f"{wrong}/none": 1}
    assert await world.found() == {f"{wrong}/rebuilt": 1}
    assert world.store.objects[META].data == world.meta(data)
    assert await world.found() == {}


async def test_an_old_meta_file_is_replaced(world):
    await world.entity(*NAME)
    data = await world.entity(*NAME, version=2, meta=False)
    assert await world.found() == {"meta_wrong/rebuilt": 1}
    assert world.store.objects[META].data == world.meta(data)


@pytest.mark.parametrize("moment", range(12))
@pytest.mark.parametrize("with_meta", [True, False])
async def test_a_writer_in_between_never_ends_with_an_older_meta_file(world, moment, with_meta):
    """A worker writes entity and meta file at each possible moment of the scrub."""
    await world.entity(*NAME, meta=False)
    newest: list[bytes] = []
    operations = 0

    async def write() -> None:
        store.before = None
        newest.append(await world.entity(*NAME, version=2, meta=with_meta))
        store.before = before

    def before(operation: str, path: str) -> object:
        nonlocal operations
        operations += 1
        return write() if operations == moment + 1 else None

    versions: list[int] = []

    def after(operation: str, path: str) -> None:
        if operation == "put" and path == META:
            versions.append(msgspec.json.decode(store.objects[META].data)["version"])

    store = world.store
    store.before, store.after = before, after
    complete, _ = await world.scrub()
    store.before = store.after = None
    # Not even for a moment.
    assert versions == sorted(versions)
    assert complete
    if with_meta and newest:
        assert world.store.objects[META].data == world.meta(newest[-1])
    # Without a worker that writes its meta file it may be out of date, until the next scrub.
    await world.scrub()
    assert world.store.objects[META].data == world.meta(world.store.objects[ENTITY].data)


async def test_an_entity_that_changes_right_after_its_meta_file_was_rebuilt_is_looked_at_again(world):
    await world.entity(*NAME, meta=False)

    async def write() -> None:
        store.after = None
        await world.entity(*NAME, version=2, meta=False)

    def after(operation: str, path: str) -> object:
        return write() if operation == "put" and path == META else None

    store = world.store
    store.after = after
    await world.found()
    assert world.store.objects[META].data == world.meta(world.store.objects[ENTITY].data)


async def test_a_tombstone_that_its_worker_removes_meanwhile_leaves_no_meta_file(world):
    await world.entity(*NAME, tombstone=True, meta=False)

    def before(operation: str, path: str) -> None:
        if operation == "put" and path == META:
            store.objects.pop(ENTITY, None)

    store = world.store
    store.before = before
    assert await world.found() == {}
    assert META not in store.objects


async def test_the_meta_file_of_an_entity_that_keeps_changing_is_left_to_its_worker(world):
    await world.entity(*NAME, meta=False)
    version = 1

    async def write() -> None:
        nonlocal version
        version += 1
        store.before = None
        await world.entity(*NAME, version=version)
        store.before = before

    def before(operation: str, path: str) -> object:
        return write() if operation == "put" and path == META else None

    store = world.store
    store.before = before
    _, ledger = await world.scrub()
    store.before = None
    assert ledger.counts.found in ({"meta_missing/left_to_worker": 1}, {})
    assert ledger.counts.remaining == 0 and ledger.counts.entities == 1
    assert world.store.objects[META].data == world.meta(world.store.objects[ENTITY].data)


async def test_damage_that_is_repaired_meanwhile_is_no_damage(world):
    good = await world.entity(*NAME)
    await world.damage(ENTITY, flipped(-1))
    reads = 0

    async def restore() -> None:
        store.before = None
        await store.put(ENTITY, good, When.ALWAYS)
        store.before = before

    def before(operation: str, path: str) -> object:
        nonlocal reads
        reads += operation == "get" and path == ENTITY
        return restore() if reads == 2 else None

    store = world.store
    store.before = before
    assert await world.found(quarantine=True) == {}
    assert store.objects[ENTITY].data == good


async def test_orphans_are_told_and_removed_only_when_asked(world):
    await world.entity(*NAME)
    await world.store.delete(ENTITY)
    assert await world.found() == {"meta_orphan/none": 1}
    assert await world.found(remove_orphans=True, dry_run=True) == {"meta_orphan/none": 1}
    assert META in world.store.objects
    assert await world.found(remove_orphans=True) == {"meta_orphan/removed": 1}
    assert META not in world.store.objects


async def test_an_orphan_whose_entity_comes_back_is_not_removed_or_rebuilt(world):
    await world.entity(*NAME)
    old = world.store.objects.pop(ENTITY)

    def before(operation: str, path: str) -> None:
        if operation == "delete":
            store.objects[ENTITY] = old

    store = world.store
    store.before = before
    found = await world.found(remove_orphans=True)
    assert store.objects[META].data == world.meta(old.data)
    assert found == {"meta_orphan/removed": 1, "meta_missing/rebuilt": 1}


async def test_an_entity_that_is_there_at_the_second_look_has_no_orphan(world):
    await world.entity(*NAME)
    old = world.store.objects.pop(ENTITY)

    def after_first_look(operation: str, path: str) -> None:
        if operation == "get" and path == META:
            store.objects[ENTITY] = old

    store = world.store
    store.before = after_first_look
    assert await world.found(remove_orphans=True) == {}
    assert ("delete", META) not in store.log


async def test_a_meta_file_on_the_next_page_is_no_orphan(world, monkeypatch):
    monkeypatch.setattr(module, "SCRUB_PAGE", 3)
    monkeypatch.setattr(module, "SCRUB_CHUNK", 2)
    for number in range(10):
        await world.entity("notes", f"k.{number}" if number % 2 else f"k{number}")
    _, ledger = await world.scrub()
    assert ledger.counts.found == {} and ledger.counts.objects == 20 and ledger.counts.meta_files == 10
    reads = [path for operation, path in world.store.log if operation == "get" and path.endswith(".enc")]
    assert len(reads) == len(set(reads)) == 10


async def test_what_is_not_ours_is_told(world):
    for path in ("files/stray", "files/notes/photo.jpg", "files/notes/=41.json.enc", "files/b ad/x.json.enc"):
        await world.store.put(path, b"x", When.ALWAYS)
    await world.store.put("files/notes/esc\x1b[31m", b"x", When.ALWAYS)
    _, ledger = await world.scrub()
    assert ledger.counts.found == {"unknown_file/none": 5}
    assert all(finding.object.isprintable() and finding.object for finding in ledger.findings)


async def test_invalid_templates_are_told(world):
    await world.store.put("templates/good.json", b"{}", When.ALWAYS)
    await world.store.put("templates/bad.json", b'{"type": 5}', When.ALWAYS)
    await world.store.put("templates/readme.txt", b"", When.ALWAYS)
    _, ledger = await world.scrub()
    assert ledger.counts.found == {"template_invalid/none": 2} and ledger.counts.templates == 1
    assert {finding.schema_id or finding.object for finding in ledger.findings} == {
        "bad",
        "templates/readme.txt",
    }


# -- quarantine ------------------------------------------------------------------------


async def opened(world, name=NAME):
    return world.sealer.open(world.store.objects[entity_path(*name)].data, *name)[0]


async def test_a_damaged_entity_is_copied_aside_and_its_name_freed(world):
    await world.entity(*NAME, version=7, term=5)
    damaged = await world.damage(ENTITY, flipped(-1))
    assert await world.found(quarantine=True, dry_run=True) == {"integrity/none": 1}
    found = await world.found(quarantine=True)
    assert found == {"integrity/quarantined": 1, "quarantined/none": 1}
    header = await opened(world)
    assert header.tombstone and header.version == 8 and header.term == 5
    assert is_tombstone_size(len(world.store.objects[ENTITY].data))
    (copy,) = [path for path in world.store.objects if path.startswith("quarantine/")]
    assert world.store.objects[copy].data == damaged
    assert copy.startswith(quarantine_path(*NAME, ""))
    assert world.store.objects[META].data == world.meta(world.store.objects[ENTITY].data)
    _, ledger = await world.scrub()
    assert ledger.counts.found == {"quarantined/none": 1} and ledger.counts.remaining == 0


async def test_where_the_header_is_damaged_the_meta_file_gives_the_version(world):
    await world.entity(*NAME, version=7, term=5)
    await world.damage(ENTITY, flipped(90))
    await world.found(quarantine=True)
    header = await opened(world)
    assert (header.version, header.term) == (8, 0)


@pytest.mark.parametrize(
    "meta",
    [None, b"", b"{}", b'{"schema_id": "notes", "key": "a b/\xc3\xbc", "version": 99999999999999999999}'],
)
async def test_without_header_and_meta_file_the_version_is_one(world, meta):
    await world.entity(*NAME, version=7, meta=False)
    if meta is not None:
        await world.store.put(META, meta, When.ALWAYS)
    await world.damage(ENTITY, lambda data: b"hello")
    await world.found(quarantine=True)
    assert ((await opened(world)).version, (await opened(world)).term) == (1, 0)


async def test_a_misplaced_objects_term_is_not_believed(world):
    await world.entity("other", "b", version=40, term=9000)
    moved = world.store.objects[entity_path("other", "b")].data
    await world.store.put(ENTITY, moved, When.ALWAYS)
    await world.found(quarantine=True)
    assert ((await opened(world)).version, (await opened(world)).term) == (1, 0)
    assert world.store.objects[entity_path("other", "b")].data == moved


async def test_a_backup_restored_meanwhile_is_not_destroyed(world):
    good = await world.entity(*NAME)
    await world.damage(ENTITY, flipped(-1))

    async def restore() -> None:
        store.before = None
        await store.put(ENTITY, good, When.ALWAYS)

    def before(operation: str, path: str) -> object:
        return restore() if operation == "put" and path == ENTITY else None

    store = world.store
    store.before = before
    await world.found(quarantine=True)
    assert store.objects[ENTITY].data == good


@pytest.mark.parametrize("stored", [True, False])
async def test_a_lost_reply_to_the_tombstone_is_found_out(world, stored, monkeypatch):
    await world.entity(*NAME, version=7)
    await world.damage(ENTITY, flipped(-1))
    failed: list[str] = []

    def fail(operation: str, path: str) -> None:
        if operation == "put" and path == ENTITY and not failed:
            failed.append(path)
            raise OutcomeUnknown("no reply")

    setattr(world.store, "after" if stored else "before", fail)
    found = await world.found(quarantine=True)
    assert found["integrity/quarantined"] == 1 and (await opened(world)).version == 8


# -- interrupted and resumed -------------------------------------------------------------


async def test_an_interrupted_scrub_goes_on_where_it_ended(world, monkeypatch):
    monkeypatch.setattr(module, "SCRUB_CHUNK", 4)
    for number in range(20):
        await world.entity("notes", f"k{number:02}", meta=number % 3 == 0)
    await world.damage(entity_path("notes", "k01"), flipped(-1))
    await world.damage(entity_path("notes", "k19"), flipped(-1))
    chunks = 0

    def stopping() -> bool:
        nonlocal chunks
        chunks += 1
        return chunks > 3

    complete, _ = await world.scrub(stopping=stopping)
    assert not complete
    position = world.saved[-1]
    world.store.log.clear()
    complete, ledger = await world.scrub(resumed=position)
    assert complete
    read = {path for operation, path in world.store.log if operation == "get" and path.startswith("files/")}
    repeated = {path for path in read if path.endswith(".enc") and path <= position.after}
    # The entity of a meta file at the border is looked up, no other.
    assert len(read) > 10 and len(repeated) <= 1
    assert ledger.counts.found == {"integrity/none": 2, "meta_missing/rebuilt": 11}
    assert ledger.counts.entities == 18
    listed = {finding.key for finding in ledger.findings if finding.kind is Kind.INTEGRITY}
    assert listed == {"k01", "k19"}


async def test_a_store_that_is_away_for_a_moment_is_waited_for(world):
    await world.entity(*NAME)
    failures = 0

    def before(operation: str, path: str) -> None:
        nonlocal failures
        if path != DATABASE_PATH and failures < checking.STORE_TRIES - 1:
            failures += 1
            raise Unavailable("away")

    world.store.before = before
    assert await world.found() == {}


@pytest.mark.parametrize("path", [ENTITY, META])
async def test_an_object_that_cannot_be_read_is_told_and_the_others_are_checked(world, path):
    await world.entity(*NAME)
    await world.entity("notes", "other", meta=False)

    def before(operation: str, asked: str) -> None:
        if asked == path:
            raise Unavailable("the disk cannot be read")

    world.store.before = before
    complete, ledger = await world.scrub(quarantine=True)
    assert complete and ledger.counts.found == {"unreadable/none": 1, "meta_missing/rebuilt": 1}
    assert ledger.counts.remaining == 1


async def test_a_store_that_takes_no_writes_ends_the_scrub(world):
    await world.entity(*NAME, meta=False)

    def before(operation: str, path: str) -> None:
        if operation == "put":
            raise Unavailable("denied", code="store_denied")

    world.store.before = before
    with pytest.raises(Unavailable, match="denied"):
        await world.scrub()


async def test_an_object_larger_than_any_entity_is_not_read(world, monkeypatch):
    await world.entity(*NAME, document=b'"' + b"x" * 5000 + b'"')
    monkeypatch.setattr(module, "SCRUB_OBJECT_BYTES_MAX", 4000)
    world.store.log.clear()
    assert await world.found(quarantine=True) == {"unreadable/none": 1}
    assert ("get", ENTITY) not in world.store.log


async def test_what_the_store_refuses_by_its_size_is_said_and_does_not_end_the_scrub(world):
    data = await world.entity(*NAME, document=b'"' + b"x" * 5000 + b'"')
    await world.entity("notes", "small")
    await world.store.put(meta_path("notes", "small"), b"x" * 5000, When.ALWAYS)
    await world.store.put("templates/huge.json", b" " * 5000, When.ALWAYS)
    world.store.object_bytes_max = 4000
    found = await world.found(quarantine=True)
    assert found == {"unreadable/none": 1, "meta_wrong/rebuilt": 1, "template_invalid/none": 1}
    assert world.store.objects[ENTITY].data == data


async def test_a_store_that_stays_away_ends_the_scrub(world):
    await world.entity(*NAME)

    def before(operation: str, path: str) -> None:
        if path != DATABASE_PATH:
            raise Unavailable("away")

    world.store.before = before
    with pytest.raises(Unavailable):
        await world.scrub()


# -- tombstones --------------------------------------------------------------------------


async def test_old_tombstones_are_removed_offline_and_others_stay(world):
    await world.entity("notes", "gone", tombstone=True)
    await world.entity(*NAME)
    store = world.store
    # The fake store's time goes on by a millisecond for each put.
    store._now_ms += 3_600_000
    await world.entity("notes", "young", tombstone=True)
    found = await world.found(remove_tombstones=True)
    assert found == {"tombstone/removed": 1}
    left = {path for path in store.objects if path.startswith("files/")}
    assert left == {
        path for key in (NAME[1], "young") for path in (entity_path("notes", key), meta_path("notes", key))
    }
    assert (await read_database(store)).maintenance == ""
    assert not [path for path in store.objects if path.startswith("cluster/probe/")]


@pytest.mark.parametrize("removes", [True, False])
async def test_a_store_that_compares_when_it_removes_is_asked_to(world, removes):
    await world.entity("notes", "gone", tombstone=True)
    store = world.store
    store.removes = removes
    store._now_ms += 7_200_000
    store.log.clear()
    assert await world.found(remove_tombstones=True) == {"tombstone/removed": 1}
    operation = "remove" if removes else "delete"
    assert (operation, entity_path("notes", "gone")) in store.log


async def test_without_the_task_no_tombstone_is_removed(world):
    await world.entity("notes", "gone", tombstone=True)
    world.store._now_ms += 7_200_000
    assert await world.found(rules=NOW) == {}


@pytest.mark.parametrize(("age_s", "refused"), [(0, True), (3600, True), (4799, True), (4801, False)])
async def test_a_workers_young_mark_refuses_the_removal(world, age_s, refused):
    await world.entity("notes", "gone", tombstone=True)
    store = world.store
    await store.put(presence_path("proc-1"), b"mark", When.ALWAYS)
    store._now_ms += age_s * 1000
    before = dict(store.objects)
    if refused:
        with pytest.raises(StartupError, match=r"proc-1 \d+ min ago"):
            await world.scrub(remove_tombstones=True)
        assert store.objects == before
    else:
        assert await world.found(remove_tombstones=True) == {"tombstone/removed": 1}
        assert presence_path("proc-1") not in store.objects


async def test_a_worker_that_marks_itself_after_the_first_look_is_seen_by_the_second(world):
    await world.entity("notes", "gone", tombstone=True)
    store = world.store
    store._now_ms += 7_200_000

    async def mark() -> None:
        store.before = None
        await store.put(presence_path("proc-1"), b"mark", When.ALWAYS)

    def before(operation: str, path: str) -> object:
        return mark() if operation == "put" and path == DATABASE_PATH else None

    store.before = before
    with pytest.raises(StartupError, match="proc-1"):
        await world.scrub(remove_tombstones=True)
    assert (await read_database(store)).maintenance == ""
    assert entity_path("notes", "gone") in store.objects


async def test_the_flag_is_set_while_tombstones_go_and_cleared_when_stopped(world, monkeypatch):
    monkeypatch.setattr(module, "SCRUB_CHUNK", 1)
    for number in range(5):
        await world.entity("notes", f"k{number}", tombstone=True)
    world.store._now_ms += 7_200_000
    seen: list[str] = []

    def before(operation: str, path: str) -> None:
        if operation in ("delete", "remove") and path.startswith("files/"):
            seen.append(msgspec.json.decode(world.store.objects[DATABASE_PATH].data)["maintenance"])

    world.store.before = before
    complete, _ = await world.scrub(remove_tombstones=True, stopping=lambda: len(seen) >= 4)
    assert not complete and seen and all(seen)
    assert (await read_database(world.store)).maintenance == ""
    # A scrub that was killed leaves the flag; the one that goes on takes it over.
    position = world.saved[-1]
    await begin_maintenance(world.store, position.token)
    complete, ledger = await world.scrub(remove_tombstones=True, resumed=position)
    assert complete and ledger.counts.found == {"tombstone/removed": 5}
    assert (await read_database(world.store)).maintenance == ""


async def test_no_tombstone_goes_once_somebody_cleared_the_flag(world, monkeypatch):
    monkeypatch.setattr(module, "SCRUB_CHUNK", 1)
    for number in range(5):
        await world.entity("notes", f"k{number}", tombstone=True, meta=False)
    world.store._now_ms += 7_200_000

    async def clear() -> None:
        world.store.before = None
        info = await read_database(world.store)
        await world.store.put(
            DATABASE_PATH, msgspec.json.encode(msgspec.structs.replace(info, maintenance="")), When.ALWAYS
        )

    def before(operation: str, path: str) -> object:
        return clear() if operation == "delete" and path.startswith("files/") else None

    world.store.before = before
    with pytest.raises(StartupError, match="somebody ended"):
        await world.scrub(remove_tombstones=True)
    assert entity_path("notes", "k1") in world.store.objects


async def test_two_runs_do_not_work_offline_at_once(world):
    await world.entity("notes", "gone", tombstone=True)
    world.store._now_ms += 7_200_000
    await begin_maintenance(world.store, "another")
    with pytest.raises(StartupError, match="maintenance"):
        await world.scrub(remove_tombstones=True)
    assert (await read_database(world.store)).maintenance == "another"


# -- report -----------------------------------------------------------------------------


async def test_the_summary_says_what_to_do(world):
    await world.entity(*NAME)
    await world.damage(ENTITY, flipped(-1))
    await world.entity("notes", "orphan")
    await world.store.delete(entity_path("notes", "orphan"))
    _, ledger = await world.scrub()
    report = report_of(ledger, complete=True, dry_run=False, backend="memory", database_id="d")
    text = " ".join(report.summary)
    assert not report.clean and "-quarantine" in text and "-remove-orphans" in text
    assert b"x" not in msgspec.json.encode(report.counts.found)


async def test_no_finding_holds_content(world):
    await world.entity(*NAME, document=b'"hummingbird"')
    await world.damage(ENTITY, flipped(-1))
    _, ledger = await world.scrub()
    assert b"hummingbird" not in msgspec.json.encode(ledger)


async def test_a_missing_database_cannot_be_scrubbed(world):
    del world.store.objects[DATABASE_PATH]
    with pytest.raises(NotFound):
        await world.scrub()
