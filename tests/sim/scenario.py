"""One seeded run: clients at work while workers, links, store and main worker fail."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import msgspec

from deltadatabase.errors import Conflict, DeltaError, NotFound, Unprocessable, VersionMismatch
from deltadatabase.gateway.forwarding import Router
from deltadatabase.model import PatchKind, Result
from sim.history import Operation, violations
from sim.loop import run
from sim.world import EVENTS, Shape, World

EVENTS_MAX = 14
ANSWERS_LOST = 0.2
"""Of clients that send again what they have no answer to."""
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
PATCHING = Shape(
    clients=6, keys=1, operations=16, think_s=0.06, kinds=(3, 3, 1, 1), patches=8, event_s=0.2,
    events={**EVENTS, "outage": 2},
)  # fmt: skip
"""Each patch is made of what others have just left, most of them of writes in the same put."""
REPEATING = Shape(
    clients=6, keys=1, operations=14, think_s=0.03, kinds=(3, 2, 1, 3), patches=4, repeats=3, recent=250,
    late_s=3.0, event_s=0.15, events={**EVENTS, "overtake": 6, "break": 4},
)  # fmt: skip
"""What a client does not know the outcome of it sends again, under the same write id."""
SHAPES = (MIXED, HOT, GRAVES, BROKEN, FLAPPING, DIRECTORY, ROTATING, PATCHING, REPEATING)


@dataclass
class Outcome:
    """What came of a seed.

    Attributes:
        history: every operation, in the order in which they began.
        wrong: contradictions, as sentences; empty if all is well.
        merged: puts that held several writes.
        removed: tombstones that were removed.
        resealed: puts that changed nothing but the master key.
        repeated: writes that were found to have been applied when they came again.
    """

    history: list[Operation]
    wrong: list[str]
    merged: int = 0
    removed: int = 0
    resealed: int = 0
    repeated: int = 0


async def _client(world: World, number: int) -> None:
    rng, shape = world.rng, world.shape
    keys = "abcdef"[: shape.keys]
    etags: dict[str, str] = {}
    weights = (*shape.kinds, shape.patches)
    for count in range(shape.operations):
        await asyncio.sleep(rng.expovariate(1 / shape.think_s))
        kind = rng.choices(["put", "get", "delete", "swap", "patch"], weights)[0]
        await _operate(world, number, kind, rng.choice(keys), f"{number}.{count}".encode(), etags)


async def _operate(
    world: World, number: int, kind: str, key: str, value: bytes, etags: dict[str, str]
) -> None:
    """Let a client do one thing, and record what it saw. ``etags`` is what it knows of each key."""
    rng, shape = world.rng, world.shape
    shown = "put" if kind in ("swap", "patch") else kind
    operation = Operation(number, key, shown, None, world.clock.monotonic_s())
    world.history.append(operation)
    write = _Write(kind, value, at_hand=rng.random() < 0.5)
    if kind == "swap" or (kind == "patch" and etags.get(key) and rng.random() < 0.3):
        write.known = etags.get(key, "")
        operation.after = world.landings.of_etag(key, write.known, 0) if write.known else 0
    if kind == "patch":
        write.patch_kind = rng.choice([*PatchKind])
    repeats = 0
    if shape.repeats and kind != "get":
        write.write_id = rng.randbytes(16)
        repeats = shape.repeats
    while not await _try(world, operation, write, etags) and repeats:
        repeats -= 1
        write.sent_before = True
        await asyncio.sleep(rng.expovariate(1 / shape.think_s))


@dataclass
class _Write:
    """What a client sends, and sends again unchanged.

    Attributes:
        at_hand: a read is first asked for without a wait.
        known: the ETag that it wants to replace, "" for an absent entity; None: no condition.
        sent_before: its outcome is not known; it may still land.
    """

    kind: str
    value: bytes
    at_hand: bool = False
    known: str | None = None
    patch_kind: PatchKind = PatchKind.MERGE
    write_id: bytes | None = None
    sent_before: bool = False

    async def send(self, router: Router, key: str) -> Result:
        if_match = (self.known,) if self.known else None
        if self.kind == "get":
            # As the REST side does where the worker may be in its own process.
            at_hand = router.cached("s", key) if self.at_hand else None
            return at_hand or await router.get("s", key)
        if self.kind == "delete":
            return await router.delete("s", key, write_id=self.write_id)
        if self.kind == "patch":
            patch: object = {self.value.decode(): 0}
            if self.patch_kind is PatchKind.JSON:
                patch = [{"op": "add", "path": f"/{self.value.decode()}", "value": 0}]
            text = msgspec.json.encode(patch)
            return await router.patch(
                "s", key, text, self.patch_kind, if_match=if_match, write_id=self.write_id
            )
        return await router.put_one(
            "s",
            key,
            msgspec.json.encode({self.value.decode(): 0}),
            if_match=if_match,
            if_none_match=("*",) if self.known == "" else None,
            write_id=self.write_id,
        )


async def _try(world: World, operation: Operation, write: _Write, etags: dict[str, str]) -> bool:
    """Send it once; whether its outcome is known now."""
    now, router, landings, key = world.clock.monotonic_s, world.router, world.landings, operation.key
    if operation.kind == "put":
        operation.value = write.value
    landed = write.write_id is not None and landings.has(key, write.write_id)
    seen: str | None = None
    try:
        result = await write.send(router, key)
    except (NotFound, VersionMismatch, Conflict, Unprocessable) as exc:
        if landed:
            world.wrong.append(f"{key}: a repeat of what has been applied is refused\n  {operation}")
        seen = (isinstance(exc, VersionMismatch) and exc.etag) or ""
    except DeltaError as exc:
        if exc.certain and not write.sent_before:
            operation.outcome = "refused"
        return exc.certain and not write.sent_before
    if router is not world.router or (write.write_id and world.rng.random() < ANSWERS_LOST):
        return False  # The main worker died meanwhile, or the way to it: its answer never arrived.
    if seen is None and write.kind == "delete" and not result.found:
        seen = ""
    if seen is not None:
        # A refusal tells the current version: as good as a read.
        version = landings.of_etag(key, seen, 0) if seen else 0
        look = Operation(operation.client, key, "seen", None, operation.begin, now(), version, "ok")
        world.history.append(look)
        _learn(etags, key, seen)
        if not write.sent_before:
            operation.outcome = "refused"
        return True
    world.repeated += result.repeated
    operation.outcome = "ok"
    operation.end = now()
    if write.kind == "delete":
        operation.version = landings.of_write(key, result.version, operation.begin, now())
    else:
        operation.version = landings.of_etag(key, result.etag, result.version)
    if result.document:
        operation.chain = tuple(name.encode() for name in msgspec.json.decode(result.document))
    if write.kind == "get":
        operation.value = operation.chain[-1] if operation.chain else b""
    _learn(etags, key, result.etag)
    return True


def _learn(etags: dict[str, str], key: str, etag: str) -> None:
    if etag:
        etags[key] = etag
    else:
        etags.pop(key, None)


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
        wrong = [*await _scenario(world), *world.wrong]
        landings = world.landings
        return Outcome(
            world.history, wrong, landings.merged, landings.removed, landings.resealed, world.repeated
        )

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
