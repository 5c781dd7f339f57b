"""What a worker tells Prometheus: that it counts, and only what has happened."""

from __future__ import annotations

import pytest
from support.clocks import FakeClock
from support.families import check_families

from deltadatabase.errors import NotFound
from deltadatabase.model import Command, Op, Result
from deltadatabase.telemetry.metrics import PROCESS_FAMILIES
from deltadatabase.worker.metrics import FAMILIES, WorkerMetrics


class Handler:
    """Takes a quarter of a second for everything but cached reads."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    def fast(self, command: Command) -> Result | None:
        return Result() if command.key == "cached" else None

    async def execute(self, command: Command) -> Result:
        self._clock.advance(0.25)
        if command.key == "missing":
            raise NotFound("there is none")
        return Result()


def samples(metrics: WorkerMetrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics.collect()
        for sample in metric.samples
    }


async def test_commands_are_counted_by_outcome_and_timed_by_operation() -> None:
    clock = FakeClock()
    metrics = WorkerMetrics(clock)
    handler = metrics.metered(Handler(clock))
    assert handler.fast(Command(op=Op.GET, key="cached")) is not None
    for key in ("a", "missing"):
        assert handler.fast(Command(op=Op.GET, key=key)) is None
        try:
            await handler.execute(Command(op=Op.GET, key=key))
        except NotFound:
            assert key == "missing"
    seen = samples(metrics)
    assert seen["deltadatabase_worker_commands_total", "get", "ok"] == 1
    assert seen["deltadatabase_worker_commands_total", "get", "not_found"] == 1
    assert seen["deltadatabase_worker_command_duration_seconds_sum", "get"] == pytest.approx(0.5)
    assert seen["deltadatabase_worker_command_duration_seconds_bucket", "get", "0.1"] == 0
    assert seen["deltadatabase_worker_command_duration_seconds_bucket", "get", "0.25"] == 2
    assert seen["deltadatabase_worker_commands_in_flight",] == 0


def test_every_family_is_exported_before_a_store_is_open() -> None:
    exported = {metric.name for metric in WorkerMetrics(FakeClock()).collect()}
    assert exported == {family.name.removesuffix("_total") for family in FAMILIES}


def test_names_and_helps_keep_the_conventions() -> None:
    check_families((*PROCESS_FAMILIES, *FAMILIES))
