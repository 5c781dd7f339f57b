from __future__ import annotations

import pytest
from msgspec.structs import replace

from deltadatabase.gateway.metrics import RotationMetrics, objects_left
from deltadatabase.gateway.rotation import Count, Phase, Progress
from unit.gateway.rest_fakes import FakeRotation

NEW, OLD = "aa", "bb"
STATUS = replace(FakeRotation().status(), primary=NEW, readable=[NEW, OLD])
WALK = Progress(phase=Phase.RESEALING, to_key=NEW, total=100, checked=60)


@pytest.mark.parametrize(
    ("progress", "left"),
    [
        (Progress(), {}),
        (replace(WALK, phase=Phase.SETTLING, total=0, checked=0), {}),
        (WALK, {OLD: 40}),
        (replace(WALK, checked=100, damaged=2, unreadable=1, phase=Phase.BLOCKED), {OLD: 3}),
        (replace(WALK, checked=103, phase=Phase.FINISHED), {OLD: 0}),
        (replace(WALK, to_key=OLD, phase=Phase.FINISHED), {}),
    ],
)
def test_objects_left_for_a_former_key(progress: Progress, left: dict[str, int]) -> None:
    assert objects_left(replace(STATUS, progress=progress)) == left


def test_a_count_tells_it_before_a_rotation() -> None:
    count = Count(complete=True, total=5, checked=5, keys={NEW: 3, OLD: 2})
    assert objects_left(replace(STATUS, count=count)) == {OLD: 2}
    assert objects_left(replace(STATUS, count=replace(count, complete=False))) == {}


def test_the_samples_are_those_of_the_status() -> None:
    samples = [sample for metric in RotationMetrics(FakeRotation()).collect() for sample in metric.samples]
    assert {sample.name for sample in samples} == {
        "deltadatabase_rotation_running",
        "deltadatabase_rotation_objects_damaged",
    }
