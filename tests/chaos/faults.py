"""Makes each fault happen on the real processes, and takes it back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from chaos.clients import FIXED, Connection, Load, fixed_key
from chaos.fleet import Bucket, Directory, Fleet
from chaos.schedule import NETWORK, Fault

WORKERS_MIN: Final = 2
WORKERS_MAX: Final = 6
ANSWER_TIMEOUT_S: Final = 60.0
AFTERMATH_S: Final = 2.0
"""A network fault beside a worker's death goes on for so long after the next worker's start."""

_PROBES: Final = 100_000
"""Client numbers from here on ask only after a worker was killed."""


class Faults:
    """Makes faults.

    Args:
        fleet: the processes.
        store: of the fleet.
        load: the clients; after a worker was killed its keys are asked for through it.

    Attributes:
        recoveries: seconds from each worker's death until every sampled key had answered.
    """

    def __init__(self, fleet: Fleet, store: Bucket | Directory, load: Load) -> None:
        self._fleet = fleet
        self._store = store
        self._load = load
        self.recoveries: list[float] = []

    async def make(self, fault: Fault) -> None:
        """Make a fault and take it back. Raises Impossible, NotReady."""
        if fault.kind in NETWORK:
            async with self._network(fault.kind, fault.share):
                await asyncio.sleep(fault.seconds)
            return
        async with self._network(fault.beside, fault.share):
            await self._makers[fault.kind](self, fault)

    @contextlib.asynccontextmanager
    async def _network(self, kind: str, share: float) -> AsyncIterator[None]:
        if not kind:
            yield
            return
        assert isinstance(self._store, Bucket), kind
        self._store.proxy.begin(kind, share)
        try:
            yield
        finally:
            self._store.proxy.end()

    def _pick(self, fault: Fault) -> str:
        workers = self._fleet.workers
        return workers[int(fault.pick * len(workers))]

    async def _kill_worker(self, fault: Fault) -> None:
        worker_id = self._pick(fault)
        killed = time.monotonic()
        self._fleet.kill_worker(worker_id)
        # With a broken network beside it no key need answer before that has ended.
        answers = None if fault.beside else asyncio.create_task(self._sampled_keys_answer(killed))
        await asyncio.sleep(fault.seconds)
        self._fleet.start_worker("" if fault.renamed else worker_id)
        if answers is None:
            await asyncio.sleep(AFTERMATH_S)
        else:
            self.recoveries.append(await answers)

    async def _sampled_keys_answer(self, since: float) -> float:
        """Ask for each of a sample of keys until it answers; the seconds until the last one did."""

        async def ask(number: int) -> None:
            connection = Connection(self._load.port)
            while time.monotonic() - since < ANSWER_TIMEOUT_S:
                asked = await self._load.operate(connection, _PROBES + number, "get", fixed_key(number))
                if asked.outcome == "ok":
                    break
                await asyncio.sleep(0.02)
            connection.close()

        await asyncio.gather(*(ask(number) for number in range(FIXED)))
        return time.monotonic() - since

    async def _pause_worker(self, fault: Fault) -> None:
        with self._fleet.stopped(self._fleet.program(self._pick(fault))):
            await asyncio.sleep(fault.seconds)

    async def _kill_main(self, fault: Fault) -> None:
        await self._fleet.restart_main(fault.seconds)

    async def _pause_main(self, fault: Fault) -> None:
        with self._fleet.stopped(self._fleet.cluster.main):
            await asyncio.sleep(fault.seconds)

    async def _join(self, fault: Fault) -> None:
        if len(self._fleet.workers) >= WORKERS_MAX:
            await self._leave(fault)
        self._fleet.start_worker()
        await self._fleet.ready()

    async def _leave(self, fault: Fault) -> None:
        if len(self._fleet.workers) <= WORKERS_MIN:
            await self._join(fault)
        await self._fleet.stop_worker(self._pick(fault))
        await self._fleet.ready()

    async def _rolling_restart(self, fault: Fault) -> None:
        for worker_id in self._fleet.workers:
            await self._fleet.stop_worker(worker_id)
            self._fleet.start_worker(worker_id)
            await self._fleet.ready()

    async def _stutter(self, fault: Fault) -> None:
        ends = time.monotonic() + fault.seconds
        rng = random.Random(fault.pick)
        while time.monotonic() < ends:
            worker_id = rng.choice(self._fleet.workers)
            with self._fleet.stopped(self._fleet.program(worker_id)):
                await asyncio.sleep(rng.choice([0.0, 0.02, 0.2]))
            await asyncio.sleep(rng.uniform(0.0, 0.05))

    async def _restart_store(self, fault: Fault) -> None:
        assert isinstance(self._store, Bucket)
        await self._store.restart(fault.seconds, kill=fault.kind == "kill-store")

    async def _pause_store(self, fault: Fault) -> None:
        assert isinstance(self._store, Bucket)
        self._store.server.pause()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._store.server.resume()

    async def _disk_full(self, fault: Fault) -> None:
        assert isinstance(self._store, Directory)
        with self._store.full():
            await asyncio.sleep(fault.seconds)

    async def _read_only(self, fault: Fault) -> None:
        assert isinstance(self._store, Directory)
        async with self._store.read_only():
            await asyncio.sleep(fault.seconds)

    _makers: Final[dict[str, Callable[[Faults, Fault], Awaitable[None]]]] = {
        "kill-worker": _kill_worker,
        "pause-worker": _pause_worker,
        "nudge-worker": _pause_worker,
        "kill-main": _kill_main,
        "pause-main": _pause_main,
        "join": _join,
        "leave": _leave,
        "rolling-restart": _rolling_restart,
        "stutter": _stutter,
        "restart-store": _restart_store,
        "kill-store": _restart_store,
        "pause-store": _pause_store,
        "disk-full": _disk_full,
        "read-only": _read_only,
    }
