"""One seeded run: clients at work while workers, links, store and main worker fail."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from deltadatabase.errors import DeltaError, NotFound, VersionMismatch
from sim.history import Operation, violations
from sim.loop import run
from sim.world import EVENTS, Shape, World

EVENTS_MAX = 14
HEAL_S = 3.5
"""Time for the dead to be found and for the living to join again."""

MIXED = Shape()
HOT = Shape(
    clients=6, keys=1, operations=14, think_s=0.02, kinds=(8, 2, 1, 3), event_s=0.15,
    events={**EVENTS, "outage": 6},
)  # fmt: skip
"""Writes of one entity queue up and are merged."""
GRAVES = Shape(
    keys=4, operations=14, think_s=0.9, kinds=(4, 3, 4, 1), removes=True, tombstone_age_s=6.0, late_s=1.0,
    event_s=1.2,
)  # fmt: skip
"""Tombstones are removed, after a while that is longer than any put can be late."""
BROKEN = Shape(
    clients=5, keys=1, operations=16, think_s=0.06, kinds=(8, 4, 1, 1), recent=0, late_s=1.0, slow=0.2,
    event_s=0.2,
    events={"join": 4, "break": 8, "drain": 2, "pause": 1, "evict": 1},
)  # fmt: skip
"""Connections break and come back while writes are under way, and headers forget."""
FLAPPING = Shape(
    keys=1, operations=30, think_s=0.06, kinds=(4, 8, 0, 0), recent=0, late_s=1.0, slow=0.3, event_s=0.1,
    events={"join": 1, "break": 8},
)  # fmt: skip
"""A shard goes to another owner and back while a read is slow."""
DIRECTORY = Shape(
    keys=3, operations=14, think_s=0.6, kinds=(5, 4, 3, 2), directory=True, tombstone_age_s=8.0, event_s=0.8
)
"""Workers share a directory; a stopped one may hold the lock of an object."""
ROTATING = Shape(
    clients=5, keys=2, operations=16, think_s=0.08, kinds=(5, 4, 2, 2), event_s=0.2,
    events={**EVENTS, "rotate": 25},
)  # fmt: skip
"""Entities are sealed anew with another master key while clients write them and owners change."""
SHAPES = (MIXED, HOT, GRAVES, BROKEN, FLAPPING, DIRECTORY, ROTATING)


@dataclass
class Outcome:
    """What came of a seed.

    Attributes:
        history: every operation, in the order in which they began.
        wrong: contradictions, as sentences; empty if all is well.
        merged: puts that held several writes.
        removed: tombstones that were removed.
        resealed: puts that changed nothing but the master key.
    """

    history: list[Operation]
    wrong: list[str]
    merged: int = 0
    removed: int = 0
    resealed: int = 0


async def _client(world: World, number: int) -> None:
    rng, shape = world.rng, world.shape
    keys = "abcdef"[: shape.keys]
    etags: dict[str, str] = {}
    for count in range(shape.operations):
        await asyncio.sleep(rng.expovariate(1 / shape.think_s))
        kind = rng.choices(["put", "get", "delete", "swap"], shape.kinds)[0]
        await _operate(world, number, kind, rng.choice(keys), f"{number}.{count}".encode(), etags)


async def _operate(
    world: World, number: int, kind: str, key: str, value: bytes, etags: dict[str, str]
) -> None:
    """Let a client do one thing, and record what it saw. ``etags`` is what it knows of each key."""
    now, router, landings = world.clock.monotonic_s, world.router, world.landings
    operation = Operation(number, key, "put" if kind == "swap" else kind, None, now())
    world.history.append(operation)
    seen: VersionMismatch | None = None
    try:
        if kind == "get":
            # As the REST side does where the worker may be in its own process.
            at_hand = router.cached("s", key) if world.rng.random() < 0.5 else None
            read = at_hand or await router.get("s", key)
            operation.version, operation.value = landings.of_etag(key, read.etag, read.version), read.document
            etags[key] = read.etag
        elif kind == "delete":
            result = await router.delete("s", key)
            if not result.found:
                operation.kind = "seen"  # It changed nothing, and says that nothing was there.
            else:
                operation.version = landings.of_write(key, result.version, operation.begin, now())
            etags.pop(key, None)
        else:
            operation.value = value
            known = etags.get(key) if kind == "swap" else None
            if kind == "swap":
                operation.after = landings.of_etag(key, known, 0) if known else 0
            result = await router.put_one(
                "s",
                key,
                value,
                if_match=(known,) if known else None,
                if_none_match=("*",) if kind == "swap" and not known else None,
            )
            operation.version = landings.of_etag(key, result.etag, result.version)
            etags[key] = result.etag
    except NotFound:
        operation.version = 0
        etags.pop(key, None)
    except VersionMismatch as exc:
        operation.outcome = "refused"
        seen = exc
    except DeltaError as exc:
        operation.outcome = "refused" if exc.certain else "unknown"
        return
    if router is not world.router:
        return  # The main worker died meanwhile: its answer never arrived.
    if seen is not None:
        # A refusal tells the current version: as good as a read.
        version = landings.of_etag(key, seen.etag, 0) if seen.etag else 0
        look = Operation(number, key, "seen", None, operation.begin, now(), version, "ok")
        world.history.append(look)
        if seen.etag:
            etags[key] = seen.etag
        else:
            etags.pop(key, None)
        return
    operation.outcome = "ok"
    operation.end = now()


async def _trouble(world: World) -> None:
    rng = world.rng
    for _ in range(EVENTS_MAX):
        await asyncio.sleep(rng.expovariate(1 / world.shape.event_s))
        members = world.members()
        event = rng.choices(list(world.shape.events), list(world.shape.events.values()))[0]
        if event == "main":
            world.restart_main_worker(state_lost=rng.random() < 0.3)
        elif event == "clock":
            world.clock.skew_ms += rng.choice([-60_000, 60_000])
        elif event == "join" or not members:
            world.join()
        elif event == "kill":
            world.kill(rng.choice(members))
        elif event == "pause":
            world.spawn(world.pause(rng.choice(members), rng.choice([0.3, 2.0, 4.0, 7.0])))
        elif event == "overtake":
            # Its shards move away from it while it sleeps, and it wakes before anybody calls it dead.
            world.spawn(world.pause(rng.choice(members), rng.uniform(2.0, 2.6)))
            world.join()
        elif event == "silence":
            world.spawn(world.silence(rng.choice(members), rng.choice([1.0, 3.0, 6.0])))
        elif event == "break":
            world.break_link(rng.choice(members))
        elif event == "outage":
            world.spawn(world.outage(rng.uniform(0.1, 6.0)))
        elif event == "rotate":
            world.spawn(world.rotate())
        elif event == "loss":
            world.spawn(world.lose_store(rng.uniform(0.1, 3.0)))
        elif event == "drain":
            world.spawn(world.drain(rng.choice(members)))
        else:
            rng.choice(members).committer._cache.clear()


async def _settle(world: World) -> list[str]:
    """Heal everything; then each key must be answered, and its answer is part of the history."""
    world.heal()
    world.join()
    await asyncio.sleep(HEAL_S)
    wrong: list[str] = []
    for key in "abcdef"[: world.shape.keys]:
        await _operate(world, -1, "get", key, b"", {})
        if world.history[-1].outcome != "ok":
            wrong.append(f"{key}: nobody answers though nothing is broken any more\n  {world.history[-1]}")
    return wrong


async def _scenario(world: World) -> list[str]:
    for _ in range(world.rng.randint(1, 3)):
        world.join()
    trouble = asyncio.create_task(_trouble(world))
    await asyncio.gather(*(_client(world, number) for number in range(world.shape.clients)))
    trouble.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await trouble
    wrong = await _settle(world)
    for worker in world.workers:
        worker.end()
        worker.running.set()  # So that what is left can be cancelled.
    return wrong


def simulate(seed: int, shapes: tuple[Shape, ...] = SHAPES) -> Outcome:
    """Run one seed, to the end, and judge it."""

    async def main() -> Outcome:
        world = World(seed, shapes)
        wrong = await _scenario(world)
        landings = world.landings
        return Outcome(world.history, wrong, landings.merged, landings.removed, landings.resealed)

    outcome: Outcome = run(main())
    outcome.wrong += violations(outcome.history)
    return outcome


def first_failure(seeds: range, shapes: tuple[Shape, ...] = SHAPES) -> tuple[int, Outcome] | None:
    """Return the first seed whose history contradicts itself, with it; None if there is none."""
    for seed in seeds:
        outcome = simulate(seed, shapes)
        if outcome.wrong:
            return seed, outcome
    return None
