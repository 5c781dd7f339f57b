"""What the doctor says of stores that keep or break their promises, of keys, clocks and directories."""

from __future__ import annotations

import fcntl
import os

import pytest
from support.clocks import FakeClock, SeededRandom
from support.fake_store import FakeStore
from support.scrubbing import KEY, OTHER_KEY, Scrubbed

from deltadatabase.errors import Unavailable
from deltadatabase.limits import LATENCY_SAMPLES
from deltadatabase.maintenance import diagnosis, places
from deltadatabase.maintenance.diagnosis import MEANING, Status, percentile_ms, skew_check
from deltadatabase.maintenance.doctor import key_checks, store_checks
from deltadatabase.storage.base import When
from deltadatabase.storage.database import begin_maintenance, read_database
from deltadatabase.storage.paths import DATABASE_PATH, entity_path, presence_path
from deltadatabase.storage.probe import probe


@pytest.fixture
async def world() -> Scrubbed:
    made = Scrubbed()
    await made.create()
    return made


async def examined(world, *keys):
    checks, info = await store_checks(world.store, keys or [KEY], clock=world.clock, random=world.random)
    return {f"{check.area}/{check.name}": check for check in checks}, info


async def test_it_leaves_no_trace_in_the_store(world):
    await world.entity("notes", "a")
    await world.store.put(presence_path("proc-1"), b"mark", When.ALWAYS)
    before = {path: stored.data for path, stored in world.store.objects.items()}
    checks, info = await examined(world)
    assert {path: stored.data for path, stored in world.store.objects.items()} == before
    assert info is not None and checks["database/description"].status is Status.OK
    assert "1 worker gave" in checks["database/workers"].text and "proc-1" in checks["database/workers"].text
    assert f"samples={LATENCY_SAMPLES}" in checks["speed/put"].text
    # The fake store's time is in 1970.
    assert checks["clock/skew"].status is Status.WARNING


async def test_an_empty_store_gets_no_database(world):
    world.store = FakeStore()
    checks, info = await examined(world)
    assert info is None and world.store.objects == {}
    assert checks["database/description"].status is Status.INFO
    assert checks["keys/master key"].status is Status.INFO


async def test_entities_without_a_description_are_a_failure(world):
    await world.entity("notes", "a")
    del world.store.objects[DATABASE_PATH]
    checks, _ = await examined(world)
    assert checks["database/description"].status is Status.FAILED


async def test_a_damaged_description_is_a_failure(world):
    await world.store.put(DATABASE_PATH, b"{", When.ALWAYS)
    checks, info = await examined(world)
    assert info is None and checks["database/description"].status is Status.FAILED


async def test_maintenance_is_told(world):
    await begin_maintenance(world.store, "scrub")
    checks, _ = await examined(world)
    assert "-end-maintenance" in checks["database/maintenance"].text


async def test_a_store_that_ignores_conditions_is_told_in_words(world):
    class Careless(FakeStore):
        async def put(self, path, data, condition):
            return await super().put(path, data, When.ALWAYS)

    careless = Careless()
    careless.objects = world.store.objects
    world.store = careless
    checks, _ = await examined(world)
    assert checks["guarantees/update_stale"].status is Status.FAILED
    assert "overwrite a newer one" in checks["guarantees/update_stale"].text
    assert not [path for path in careless.objects if path.startswith("cluster/probe/")]


async def test_every_check_of_the_probe_has_its_meaning(world):
    checks = await probe(world.store, SeededRandom())
    assert {check.name for check in checks} == set(MEANING)


async def test_a_store_that_does_not_answer_is_an_error(world):
    def before(operation: str, path: str) -> None:
        raise Unavailable("away")

    world.store.before = before
    with pytest.raises(Unavailable):
        await examined(world)


async def test_keys_are_compared_and_never_shown(world):
    info = await read_database(world.store)
    fits, unknown = key_checks([KEY, OTHER_KEY], info)
    assert (fits.status, unknown.status) == (Status.OK, Status.WARNING)
    (alone,) = key_checks([OTHER_KEY], info)
    assert alone.status is Status.FAILED and KEY.key_id.hex() in alone.text
    info.keys[KEY.key_id.hex()] = "00" * 32
    (wrong,) = key_checks([KEY], info)
    assert wrong.status is Status.FAILED
    (none,) = key_checks([], info)
    assert none.status is Status.WARNING
    texts = "".join(check.text for check in (fits, unknown, alone, wrong, none))
    assert KEY.reveal().hex() not in texts and OTHER_KEY.reveal().hex() not in texts


@pytest.mark.parametrize(
    ("skew_ms", "status", "words"),
    [
        (0, Status.OK, "agrees"),
        (-1000, Status.OK, "agrees"),
        (5000, Status.OK, "5.0 s behind"),
        (-60_000, Status.OK, "60.0 s ahead of"),
        (60_001, Status.WARNING, "60.0 s behind"),
        (-90_000, Status.WARNING, "90.0 s ahead of"),
    ],
)
def test_clocks_may_differ_by_a_minute(skew_ms, status, words):
    check = skew_check(skew_ms, 1000, 60_000)
    assert check.status is status and words in check.text


async def test_the_skew_is_measured_against_the_middle_of_the_put(world):
    clock = FakeClock(wall_ms=0)
    store = FakeStore()
    checks, _ = await store_checks(store, [], clock=clock, random=SeededRandom())
    (skew,) = [check for check in checks if check.area == "clock"]
    assert skew.status is Status.OK


def test_percentiles_are_of_the_nearest_rank():
    samples = [number / 1000 for number in range(1, 101)]
    assert percentile_ms(samples, 0.5) == 50 and percentile_ms(samples, 0.99) == 99
    assert percentile_ms([0.003], 0.99) == 3


def test_what_is_shown_of_a_description_has_no_check_values():
    assert "keys" not in diagnosis.Database.__struct_fields__


# -- directories ---------------------------------------------------------------------------


def by_name(checks):
    return {check.name: check for check in checks}


def test_a_directory_is_described(tmp_path):
    tmp_path.chmod(0o700)
    checks = by_name(places.directory_checks(tmp_path))
    assert checks["access"].status is Status.OK and "0700" in checks["access"].text
    assert "MiB" in checks["space"].text and checks["file_system"].status is Status.INFO
    tmp_path.chmod(0o777)
    assert by_name(places.directory_checks(tmp_path))["access"].status is Status.WARNING


def test_too_little_room_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "FREE_SPACE_BYTES_MIN", 2**62)
    assert by_name(places.directory_checks(tmp_path))["space"].status is Status.WARNING


def test_a_state_directory_tells_whether_it_is_in_use(tmp_path):
    assert by_name(places.state_checks(tmp_path / "none"))["present"].status is Status.INFO
    assert "has used it" in by_name(places.state_checks(tmp_path))["in use"].text
    (tmp_path / "lock").touch()
    assert "no main worker runs" in by_name(places.state_checks(tmp_path))["in use"].text
    with (tmp_path / "lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "a main worker runs" in by_name(places.state_checks(tmp_path))["in use"].text
        # The look must not have taken the lock away.
        other = os.open(tmp_path / "lock", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(other)


@pytest.mark.parametrize(("mode", "status"), [(0o600, Status.OK), (0o640, Status.WARNING)])
def test_key_files_that_others_may_read_are_a_warning(tmp_path, mode, status):
    (tmp_path / "master-key").write_text("5d" * 32)
    (tmp_path / "master-key").chmod(mode)
    check = by_name(places.state_checks(tmp_path))["master-key"]
    assert check.status is status and "5d5d" not in check.text


def test_only_an_unused_directory_is_tidied(tmp_path):
    for folder in (".locks", ".tmp/5a", "probe"):
        (tmp_path / "cluster" / folder).mkdir(parents=True)
    (tmp_path / "cluster" / ".locks" / "0a").touch()
    places.tidy_new_folders(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "database.json").write_text("{}")
    places.tidy_new_folders(tmp_path)
    assert (tmp_path / "cluster" / "database.json").exists()
    assert entity_path("a", "b").startswith("files/")
