"""Rotations that are disturbed: by operators, by each other, by stores that are away."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import msgspec
import pytest

from deltadatabase.crypto.keyring import Keyring, MasterKey
from deltadatabase.errors import DeltaError, Unavailable
from deltadatabase.gateway import rotation as rotating
from deltadatabase.gateway.rotation import FILE, Phase, Progress
from deltadatabase.model import KeyId, Result
from deltadatabase.storage.paths import entity_path
from unit.gateway.test_rotation import NEW, OLD, World

THIRD = MasterKey(b"t" * 32)


class AnyKeyWorld(World):
    """Objects are sealed with whichever key is asked for."""

    async def reseal(self, schema_id: str, key: str, key_id: bytes) -> Result:
        self.sealed_by(key)
        self._fail(key)
        if key not in self.objects:
            return Result(found=False)
        needed = self.objects[key] != key_id
        self.objects[key] = KeyId(key_id)
        return Result(found=True, number=int(needed), key_id=key_id)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotating, "WATCH_S", 0.001)
    monkeypatch.setattr(rotating, "PAUSE_S", 0.001)


@pytest.fixture
def world(tmp_path: Path) -> AnyKeyWorld:
    return AnyKeyWorld(tmp_path)


@pytest.mark.parametrize("paused", [False, True])
async def test_a_walk_is_not_finished_with_another_primary_key_than_it_began_with(
    world: AnyKeyWorld, paused: bool
) -> None:
    """An operator who gives the two keys the other way round, half-way, loses what was sealed anew."""
    half = sorted(world.objects)[:125]
    for key in half:
        world.objects[key] = NEW.key_id
    world.folder.write(
        FILE,
        msgspec.json.encode(
            Progress(
                phase=Phase.RESEALING,
                to_key=NEW.key_id.hex(),
                after=entity_path("s", half[-1]),
                paused=paused,
            )
        ),
    )
    world.keys.keyring = Keyring(OLD, [NEW])
    rotation = world.restarted()
    rotation.resume()
    if paused:
        await rotation.start()
    progress = await world.ended(rotation)
    needed = {key_id.hex() for key_id in world.objects.values()}
    assert not needed & set(progress.retired)


async def test_a_write_that_goes_on_after_its_task_was_cancelled_meets_no_other(
    world: AnyKeyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once use one temporary file: the later one failed, and a pause answered 503."""
    real, running, most = world.folder.write, 0, 0

    def slow(name: str, data: bytes) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        real(name, data)
        running -= 1

    monkeypatch.setattr(world.folder, "write", slow)
    world.trouble["k200"] = Unavailable("down")
    await world.rotation.start()
    await asyncio.sleep(0.02)  # The walk's own first write is under way.
    await world.rotation.pause()
    assert most == 1
    saved = world.folder.read(FILE)
    assert saved is not None
    assert msgspec.json.decode(saved, type=Progress).paused


async def test_two_starts_at_once_are_one_rotation_that_a_pause_ends(world: AnyKeyWorld) -> None:
    world.trouble["k200"] = Unavailable("down")
    await asyncio.gather(world.rotation.start(), world.rotation.start())
    await asyncio.sleep(0.05)
    await world.rotation.pause()
    world.trouble.clear()
    await asyncio.sleep(0.3)
    assert world.rotation.status().progress.phase is Phase.RESEALING
    assert OLD.key_id in world.objects.values()


async def test_a_key_that_was_changed_while_a_rotation_was_paused_is_no_dead_end(world: AnyKeyWorld) -> None:
    """A main worker was restarted with a third key instead of the one that was offered first."""
    world.folder.write(
        FILE, msgspec.json.encode(Progress(phase=Phase.OFFERING, to_key=NEW.key_id.hex(), paused=True))
    )
    world.keys.keyring = Keyring(THIRD, [OLD])
    world.target = lambda present: present  # type: ignore[method-assign]
    rotation = world.restarted()
    rotation.resume()
    for _ in range(2):  # "the rotation stopped; deltadb rotate goes on with it"
        await rotation.start()
        await world.ended(rotation)
    assert rotation.status().progress.phase is Phase.FINISHED, rotation.status().trouble


async def test_a_pause_while_the_key_is_adopted_is_no_dead_end(world: AnyKeyWorld) -> None:
    """Kept keys: the next key's file is gone once it was adopted, and a third one is made."""
    adopting, go, made = threading.Event(), threading.Event(), [NEW, THIRD]

    def target(present: Keyring) -> Keyring:
        return Keyring(made[0], [present.get(key_id) for key_id in present.ids])

    def adopt(keyring: Keyring) -> None:
        adopting.set()
        go.wait(5)
        made.pop(0)  # As KeptKeys.adopt does by removing master-key-next.

    world.target, world.adopt = target, adopt  # type: ignore[method-assign]
    await world.rotation.start()
    await asyncio.to_thread(adopting.wait, 5)
    await world.rotation.pause()
    go.set()
    await asyncio.sleep(0.05)
    await world.rotation.start()
    await world.ended()
    assert world.rotation.status().progress.phase is Phase.FINISHED, world.rotation.status().trouble


async def test_what_is_listed_but_not_found_by_its_owner_does_not_count_as_done(world: AnyKeyWorld) -> None:
    """Its owner sees another directory, or a part of the store: the object is there all the same."""
    real = world.reseal

    async def reseal(schema_id: str, key: str, key_id: bytes) -> Result:
        return Result(found=False) if key == "k017" else await real(schema_id, key, key_id)

    world.reseal = reseal  # type: ignore[method-assign]
    await world.rotation.start()
    progress = await world.ended()
    assert progress.phase is not Phase.FINISHED or OLD.key_id not in world.objects.values()


async def test_an_error_that_nobody_thought_of_is_told(world: AnyKeyWorld) -> None:
    world.trouble["list"] = RuntimeError("x")
    await world.rotation.start()
    async with asyncio.timeout(10):
        while not world.rotation.status().trouble:
            await asyncio.sleep(0.01)
    try:
        await world.rotation.pause()
    except RuntimeError:
        pytest.fail("a pause answers 500")
    except DeltaError:
        pass
    assert world.rotation.status().trouble
