"""One run: clients at work, faults one after the other, a last read of everything, and the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sim.history import Operation
from support.programs import programs

from chaos.clients import FIXED, Connection, Load, fixed_key
from chaos.faults import Faults
from chaos.fleet import Bucket, Directory, Fleet, Impossible, NotReady, bucket, commands, directory
from chaos.judge import judge, lost
from chaos.schedule import PLANNED, kinds_of, schedule

RATE_MIN: Final = 100.0
"""Operations a second that must have gone through before a fault, or it proves nothing."""

RATE_WAIT_S: Final = 30.0
FULL_SHARE: Final = 0.8
FULL_WAIT_S: Final = 4.0
"""A fault waits this long for that part of the asked rate; after that the bar alone counts."""

SETTLE_S: Final = 2.0
FINAL_READ_S: Final = 60.0

_TESTS: Final = Path(__file__).absolute().parents[1]

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is run.

    Attributes:
        store: ``s3`` or ``directory``.
        seconds: how long faults are made.
        seed: of faults and clients.
        workers: how many there are at first.
        clients, rate: of the load; operations a second.
        faults: kinds of faults; () is all that the store knows.
        planned: only planned moves, and no request may fail.
        plant: name of the bug that the workers get, "" for none; the run ends when it is found.
    """

    store: str
    seconds: float
    seed: int
    workers: int = 3
    clients: int = 24
    rate: float = 300.0
    faults: tuple[str, ...] = ()
    planned: bool = False
    plant: str = ""


@dataclass
class Made:
    """A fault that was made.

    Attributes:
        begun_s: seconds since the first fault could have come.
        seconds: until everything answered again.
        rate: successful operations a second just before it.
        failed: requests that failed meanwhile.
    """

    kind: str
    begun_s: float
    seconds: float
    rate: float
    failed: int


@dataclass
class Record:
    """What a run has shown."""

    options: Options
    made: list[Made] = field(default_factory=list)
    impossible: list[str] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    answers: dict[tuple[str, str], int] = field(default_factory=dict)
    hits: dict[str, int] = field(default_factory=dict)
    history: list[Operation] = field(default_factory=list)
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    exits: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    invalid: str = ""
    broken: str = ""
    found_after_s: float | None = None

    @property
    def planned_failures(self) -> int:
        """Requests that failed during planned moves."""
        return sum(made.failed for made in self.made if made.kind in (*PLANNED, *SCALING))

    @property
    def internal(self) -> int:
        """Requests that were answered by 500: no fault may do that."""
        return sum(count for (_, said), count in self.answers.items() if said.startswith("500"))

    @property
    def wrong(self) -> list[str]:
        """Every reason for which the system fails, in a few words."""
        reasons = [
            (len(self.violations), "violations"),
            (len(self.lost), "keys lost what was acknowledged"),
            (len(self.unreadable), "keys could not be read at the end"),
            (len(self.exits), "processes ended otherwise than they should"),
            (self.internal, "requests were answered by 500"),
            (self.planned_failures, "requests failed during planned moves"),
        ]
        return [*([self.broken] if self.broken else []), *(f"{n} {what}" for n, what in reasons if n)]


SCALING: Final = ("scale-up", "scale-down")
"""Planned moves of several workers at once; only in a run of planned moves."""


class Invalid(Exception):
    """The run proves nothing."""


async def run(options: Options, folder: Path, say: Say) -> Record:
    """Run it in a folder, where logs stay. Raises what is a fault of this program or machine."""
    record = Record(options)
    async with contextlib.AsyncExitStack() as stack:
        store: Bucket | Directory
        if options.store == "s3":
            store = await stack.enter_async_context(bucket(folder, options.seed))
        else:
            store = stack.enter_context(directory(folder))
        started = stack.enter_context(programs(folder, {"PYTHONPATH": str(_TESTS)}, commands(options.plant)))
        fleet = Fleet.on(started, store)
        say("starting the workers")
        await fleet.start(1 if options.planned else options.workers)
        load = Load(fleet.port, seed=options.seed, clients=options.clients, rate=options.rate)
        await _begin(load)
        faults = Faults(fleet, store, load)
        begun = time.monotonic()
        final: list[Operation] = []
        try:
            async with load.running():
                if options.planned:
                    await _planned(record, fleet, load, say, begun)
                else:
                    own_disk = isinstance(store, Directory) and store.disk is not None
                    await _faults(record, fleet, load, faults, say, begun, own_disk)
        except Invalid as exc:
            record.invalid = str(exc)
        except NotReady as exc:
            record.broken = str(exc)
        record.seconds = time.monotonic() - begun
        say("reading every key")
        final = await load.read_all(FINAL_READ_S)
        await fleet.stop()
        say("judging")
        record.history = load.history
        record.violations = judge(load.history)
        record.lost = lost(load.history, final)
        record.unreadable = [read.key for read in final if read.outcome != "ok"]
        record.recoveries_s = faults.recoveries
        record.answers = dict(load.answers)
        record.hits = dict(store.proxy.hits) if isinstance(store, Bucket) else {}
        record.exits = fleet.exits
        record.traces = [each.log.name for each in started.started if "Traceback" in each.output]
    return record


async def _begin(load: Load) -> None:
    """Write the keys that are there all the time."""
    connection = Connection(load.port)
    for number in range(FIXED):
        await load.operate(connection, -1, "put", fixed_key(number), b"0.%d.000" % number)
    connection.close()


async def _faults(
    record: Record, fleet: Fleet, load: Load, faults: Faults, say: Say, begun: float, own_disk: bool
) -> None:
    options = record.options
    kinds = options.faults or kinds_of(options.store, own_disk=own_disk)
    plan = schedule(options.seed, kinds, network=options.store == "s3" and not options.faults)
    while time.monotonic() - begun < options.seconds:
        fault = next(plan)
        try:
            async with _watched(record, str(fault), load, say, begun):
                await faults.make(fault)
                await fleet.ready()
                await _answers(load)
        except Impossible as exc:
            record.impossible.append(f"{fault.kind}: {exc}")
        if options.plant and (judge(load.history) or record.planned_failures):
            record.found_after_s = time.monotonic() - begun
            return


async def _planned(record: Record, fleet: Fleet, load: Load, say: Say, begun: float) -> None:
    """1 to 4 workers, a rolling restart, and back to 1, again and again."""
    options = record.options
    while True:
        async with _watched(record, "scale-up", load, say, begun):
            for _ in range(3):
                fleet.start_worker()
            await fleet.ready()
        async with _watched(record, "rolling-restart", load, say, begun):
            for worker_id in fleet.workers:
                await fleet.stop_worker(worker_id)
                fleet.start_worker(worker_id)
                await fleet.ready()
        async with _watched(record, "scale-down", load, say, begun):
            await asyncio.gather(*(fleet.stop_worker(worker_id) for worker_id in fleet.workers[1:]))
            await fleet.ready()
        if options.plant and record.planned_failures:
            record.found_after_s = time.monotonic() - begun
            return
        if time.monotonic() - begun >= options.seconds:
            return


@contextlib.asynccontextmanager
async def _watched(record: Record, kind: str, load: Load, say: Say, begun: float) -> AsyncIterator[None]:
    """Around a fault: enough load before it, new keys during it, a pause after it, and its figures."""
    rate = await enough(load.rate, record.options.rate)
    load.era += 1
    at, failed = time.monotonic(), load.failures()
    say(f"{at - begun:6.1f} s  {len(load.history):7} operations  {rate:4.0f}/s  {kind}")
    yield
    seconds = time.monotonic() - at
    await asyncio.sleep(SETTLE_S)
    record.made.append(Made(kind, at - begun, seconds, rate, load.failures() - failed))


async def enough(measure: Callable[[], float], asked: float, wait_s: float = RATE_WAIT_S) -> float:
    """Wait until enough operations go through; their rate. Raises Invalid."""
    begun, best = time.monotonic(), 0.0
    while True:
        rate, waited = measure(), time.monotonic() - begun
        best = max(best, rate)
        if rate >= RATE_MIN and (rate >= asked * FULL_SHARE or waited > FULL_WAIT_S):
            return rate
        if waited > wait_s:
            raise Invalid(
                f"at most {best:.0f} operations a second went through for {wait_s:.0f} s; "
                f"a fault counts from {RATE_MIN:.0f} on"
            )
        await asyncio.sleep(0.1)


async def _answers(load: Load) -> None:
    """Wait until the sampled keys answer. Raises NotReady."""
    connection = Connection(load.port)
    deadline = time.monotonic() + FINAL_READ_S
    for number in range(FIXED):
        while (await load.operate(connection, -2, "get", fixed_key(number))).outcome != "ok":
            if time.monotonic() > deadline:
                raise NotReady(f"a key did not answer for {FINAL_READ_S:.0f} s after a fault")
            await asyncio.sleep(0.1)
    connection.close()


def fault_names(made: Iterable[Made]) -> Iterator[str]:
    """The kind of each fault, and what was beside it."""
    for each in made:
        yield from each.kind.split("+")
