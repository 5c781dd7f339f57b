"""One seeded run: clients at work while workers, links, store and router fail."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable

from deltadatabase.errors import DeltaError, NotFound
from sim.history import Operation, violations
from sim.loop import run
from sim.world import World

CLIENTS = 4
KEYS = ("a", "b", "c")
OPERATIONS = 25
EVENTS = 14

Plant = Callable[[World], None]


async def _client(world: World, number: int) -> None:
    rng = world.rng
    for count in range(OPERATIONS):
        await asyncio.sleep(rng.expovariate(1 / 0.15))
        key = rng.choice(KEYS)
        kind = rng.choices(["put", "get", "delete"], [5, 5, 1])[0]
        value = f"{number}.{count}".encode() if kind == "put" else None
        operation = Operation(number, key, kind, value, world.clock.monotonic_s())
        world.history.append(operation)
        router = world.router
        try:
            if kind == "put":
                assert value is not None
                operation.version = (await router.put_one("s", key, value)).version
            elif kind == "delete":
                result = await router.delete("s", key)
                operation.version = result.version if result.found else 0
            else:
                read = await router.get("s", key)
                operation.version, operation.value = read.version, read.document
        except NotFound:
            operation.version = 0
        except DeltaError as exc:
            operation.outcome = "refused" if exc.certain else "unknown"
            continue
        if router is not world.router:
            continue  # The main worker died meanwhile: its answer never arrived.
        operation.outcome = "ok"
        operation.end = world.clock.monotonic_s()


async def _trouble(world: World) -> None:
    rng = world.rng
    for _ in range(EVENTS):
        await asyncio.sleep(rng.expovariate(1 / 0.4))
        members = world.members()
        event = rng.choices(
            ["join", "kill", "pause", "drain", "router", "evict", "clock"], [5, 2, 4, 2, 1, 2, 1]
        )[0]
        if event == "join" or not members:
            await world.join()
        elif event == "kill":
            world.kill(rng.choice(members))
        elif event == "pause":
            task = asyncio.create_task(world.pause(rng.choice(members), rng.choice([0.3, 2.0, 4.0, 7.0])))
            world.background.add(task)  # type: ignore[arg-type]
        elif event == "drain":
            await world.drain(rng.choice(members))
        elif event == "router":
            world.restart_router()
            for _ in range(rng.randint(1, 3)):
                await world.join()
        elif event == "evict":
            rng.choice(members).committer._cache.clear()
        else:
            world.clock.skew_ms += rng.choice([-60_000, 60_000])


async def _scenario(world: World) -> None:
    for _ in range(world.rng.randint(1, 3)):
        await world.join()
    trouble = asyncio.create_task(_trouble(world))
    await asyncio.gather(*(_client(world, number) for number in range(CLIENTS)))
    trouble.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await trouble
    for worker in world.workers:
        worker.running.set()  # So that what is left can be cancelled.


def simulate(seed: int, plant: Plant | None = None) -> tuple[list[Operation], list[str]]:
    """Run one seed; return the history and what is wrong with it."""

    async def main() -> World:
        world = World(seed, plant)
        await _scenario(world)
        return world

    world: World = run(main())
    return world.history, violations(world.history)


def first_failure(seeds: range, plant: Plant | None = None) -> tuple[int, list[Operation], list[str]] | None:
    """Return the first seed whose history contradicts itself, with both; None if there is none."""
    for seed in seeds:
        history, wrong = simulate(seed, plant)
        if wrong:
            return seed, history, wrong
    return None


def main() -> int:
    """``just sim``: many seeds; print a failing one with its history."""
    parser = argparse.ArgumentParser(
        prog="just sim",
        description="Run the router and the workers in virtual time under seeded faults, and check that "
        "clients could not tell them from one copy of the data.",
    )
    parser.add_argument("-seeds", type=int, default=1_000, help="how many (1000)")
    parser.add_argument("-first", type=int, default=0, help="the first seed (0); to go on where a run ended")
    asked = parser.parse_args()
    started, operations = time.monotonic(), 0
    for seed in range(asked.first, asked.first + asked.seeds):
        history, wrong = simulate(seed)
        operations += len(history)
        if wrong:
            print(f"seed {seed} fails:", *wrong, "history:", *history, sep="\n")
            return 1
        if sys.stderr.isatty() and seed % 20 == 0:
            print(f"\r{seed - asked.first} of {asked.seeds}", end="", file=sys.stderr)
    seconds = time.monotonic() - started
    print(
        f"{asked.seeds} seeds from {asked.first}, {operations} operations, 0 violations, "
        f"{asked.seeds / seconds:.0f} seeds/s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
