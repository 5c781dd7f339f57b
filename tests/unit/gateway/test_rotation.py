"""The steps of a rotation, in the order that makes it safe to throw the old key away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from support.clocks import FakeClock

from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import Conflict, Corrupt, StartupError, Unavailable
from deltadatabase.gateway import rotation as rotating
from deltadatabase.gateway.keys import Keys
from deltadatabase.gateway.rotation import FILE, Phase, Progress, Rotation
from deltadatabase.model import Result
from deltadatabase.statefolder import StateFolder
from deltadatabase.storage.paths import entity_path

OLD, NEW = MasterKey(b"o" * 32), MasterKey(b"n" * 32)


class World:
    """Members, objects and keys, with everything that happens on record."""

    def __init__(self, folder: Path) -> None:
        self.folder = StateFolder(folder, lock="lock", taken="taken")
        self.log: list[str] = []
        self.keys = Keys(Keyring(OLD))
        self.objects = {f"k{number:03}": OLD.key_id for number in range(250)}
        self.trouble: dict[str, Exception] = {}
        self.acknowledged = Keyring(OLD).fingerprint
        self.deaf = False
        self.made = 0
        self.sealed_by: Callable[[str], None] = lambda key: None
        self.rotation = self.restarted()

    kept = True

    def restarted(self, *, settle_s: float = 0.0) -> Rotation:
        return Rotation(
            self.keys,
            self,
            self,
            self.folder,
            self,
            clock=FakeClock(),
            settle_s=settle_s,
            on_event=lambda step, progress: self.log.append(step),
        )

    # Members

    def present(self) -> int:
        return 1

    def behind(self) -> list[str]:
        if not self.deaf and self.acknowledged != self.keys.fingerprint():
            self.acknowledged = self.keys.fingerprint()
            primary = "new" if self.keys.keyring.primary.key_id == NEW.key_id else "old"
            self.log.append(f"members seal with {primary}, read {len(self.keys.keyring.ids)}")
        return [] if self.acknowledged == self.keys.fingerprint() else ["w1"]

    # Key source

    def target(self, present: Keyring) -> Keyring:
        self.made += 1
        return present.with_readable(NEW).promoted(NEW.key_id)

    def adopt(self, keyring: Keyring) -> None:
        self.log.append("adopted")

    def retire(self, key_ids: Sequence[str]) -> None:
        self.log.append("put aside")

    # Objects

    async def object_names(self, after: str) -> tuple[str, ...]:
        self._fail("list")
        paths = sorted([entity_path("s", key) for key in self.objects] + ["files/s/x.meta.json"])
        return tuple([path for path in paths if path > after][:100])

    async def reseal(self, schema_id: str, key: str, key_id: bytes) -> Result:
        assert key_id == NEW.key_id == self.keys.keyring.primary.key_id
        self.sealed_by(key)
        self._fail(key)
        needed = self.objects[key] != key_id
        self.objects[key] = key_id
        return Result(found=True, number=int(needed), key_id=key_id)

    async def key_of(self, schema_id: str, key: str) -> Result:
        self._fail(key)
        return Result(found=True, key_id=self.objects[key])

    async def retire_key(self, key_id: str) -> bool:
        self.log.append(f"retired {key_id}")
        return True

    def _fail(self, what: str) -> None:
        if what in self.trouble:
            raise self.trouble[what]

    async def ended(self, rotation: Rotation | None = None) -> Progress:
        rotation = rotation or self.rotation
        async with asyncio.timeout(10):
            while rotation.status().running:
                await asyncio.sleep(0.005)
        return rotation.status().progress


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotating, "WATCH_S", 0.001)
    monkeypatch.setattr(rotating, "PAUSE_S", 0.001)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_each_step_comes_after_the_one_that_it_stands_on(world: World) -> None:
    await world.rotation.start()
    progress = await world.ended()
    assert progress.phase is Phase.FINISHED
    assert (progress.total, progress.checked, progress.resealed) == (250, 250, 250)
    assert progress.retired == (OLD.key_id.hex(),)
    assert world.log == [
        "started",
        "members seal with old, read 2",
        "adopted",
        "members seal with new, read 2",
        "promoted",
        f"retired {OLD.key_id.hex()}",
        "put aside",
        "members seal with new, read 1",
        "finished",
    ]
    assert set(world.objects.values()) == {NEW.key_id}


async def test_nothing_is_promoted_before_every_member_can_read_it(world: World) -> None:
    world.deaf = True
    await world.rotation.start()
    await asyncio.sleep(0.05)
    status = world.rotation.status()
    assert status.running and status.waiting_for == ["w1"]
    assert status.progress.phase is Phase.OFFERING
    assert status.primary == OLD.key_id.hex() and "adopted" not in world.log
    world.deaf = False
    assert (await world.ended()).phase is Phase.FINISHED


async def test_the_walk_waits_for_late_puts(world: World) -> None:
    rotation = world.restarted(settle_s=0.2)
    await rotation.start()
    await asyncio.sleep(0.1)
    assert rotation.status().progress.phase is Phase.SETTLING
    assert set(world.objects.values()) == {OLD.key_id}
    assert (await world.ended(rotation)).phase is Phase.FINISHED


@pytest.mark.parametrize("what", ["list", "k017"])
async def test_trouble_that_passes_is_waited_out(world: World, what: str) -> None:
    world.trouble[what] = Unavailable("down", code="store_unavailable")
    await world.rotation.start()
    await asyncio.sleep(0.1)
    assert world.rotation.status().trouble == "store_unavailable"
    world.trouble.clear()
    progress = await world.ended()
    assert progress.phase is Phase.FINISHED and progress.resealed == 250
    assert world.rotation.status().trouble == ""


@pytest.mark.parametrize(
    ("error", "counted"),
    [(Corrupt("x"), "damaged"), (Unavailable("x", code="key_unavailable"), "unreadable")],
)
async def test_what_no_key_opens_keeps_the_old_key(world: World, error: Exception, counted: str) -> None:
    world.trouble["k017"] = error
    await world.rotation.start()
    progress = await world.ended()
    assert progress.phase is Phase.BLOCKED and getattr(progress, counted) == 1
    assert progress.resealed == 249 and progress.retired == ()
    assert not any(line.startswith("retired") for line in world.log)
    world.trouble.clear()
    made = world.made
    await world.rotation.start()
    progress = await world.ended()
    assert progress.phase is Phase.FINISHED and progress.resealed == 1
    assert world.made == made, "the key of before, not a third one"


async def test_a_restart_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotating, "SAVE_INTERVAL_S", -1.0)
    reached = asyncio.Event()

    def stop_at(key: str) -> None:
        if key == "k150":
            reached.set()
            raise Unavailable("down")

    world.sealed_by = stop_at
    await world.rotation.start()
    await reached.wait()
    await world.rotation.close()
    seen: list[str] = []
    world.sealed_by = seen.append
    again = world.restarted()
    again.resume()
    progress = await world.ended(again)
    assert progress.phase is Phase.FINISHED
    assert progress.checked == 250 and set(world.objects.values()) == {NEW.key_id}
    assert min(seen) == "k100", "whole pages that were done are not looked at again"


async def test_a_restart_before_the_promotion_offers_the_same_key_again(world: World) -> None:
    world.deaf = True
    await world.rotation.start()
    await asyncio.sleep(0.02)
    await world.rotation.close()
    world.keys.keyring = Keyring(OLD, [NEW])  # As the key source gives it at a start.
    world.deaf = False
    again = world.restarted()
    again.resume()
    assert (await world.ended(again)).to_key == NEW.key_id.hex()


async def test_a_rotation_to_a_key_that_is_gone_is_given_up(world: World) -> None:
    world.folder.write(FILE, msgspec.json.encode(Progress(phase=Phase.RESEALING, to_key=NEW.key_id.hex())))
    again = world.restarted()
    again.resume()
    assert (await world.ended(again)).phase is Phase.IDLE
    assert set(world.objects.values()) == {OLD.key_id}


async def test_a_pause_lasts_over_a_restart(world: World) -> None:
    world.trouble["k200"] = Unavailable("down")
    await world.rotation.start()
    await asyncio.sleep(0.05)
    paused = await world.rotation.pause()
    assert not paused.running and paused.progress.paused
    again = world.restarted()
    again.resume()
    assert not again.status().running
    world.trouble.clear()
    await again.start()
    assert (await world.ended(again)).phase is Phase.FINISHED


async def test_nothing_to_rotate_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(present: Keyring) -> Keyring:
        raise Conflict("one key only", code="nothing_to_rotate")

    monkeypatch.setattr(world, "target", refuse)
    with pytest.raises(Conflict):
        await world.rotation.start()
    assert world.rotation.status().progress == Progress()
    assert world.folder.read(FILE) is None


async def test_a_count_tells_the_objects_of_each_key(world: World) -> None:
    world.objects["k001"] = NEW.key_id
    world.trouble["k002"] = Corrupt("x")
    await world.rotation.count()
    async with asyncio.timeout(10):
        while not (count := world.rotation.status().count) or not count.complete:
            await asyncio.sleep(0.005)
    assert count.keys == {OLD.key_id.hex(): 248, NEW.key_id.hex(): 1}
    assert (count.total, count.checked, count.damaged) == (250, 250, 1)
    assert OLD.key_id in world.objects.values() and world.log == []


async def test_damaged_progress_is_refused(world: World) -> None:
    world.folder.write(FILE, b"{")
    with pytest.raises(StartupError):
        world.restarted()
