"""The security event of a damaged entity."""

from __future__ import annotations

import pytest
from support.clocks import FakeClock

from deltadatabase.model import Command, Op
from deltadatabase.telemetry.audit import Audit
from deltadatabase.worker.alarm import NAMES_MAX, SAY_AGAIN_S, IntegrityAlarm


def get(key: str) -> Command:
    return Command(op=Op.GET, schema_id="people", key=key, shard=7, request_id="r-1")


def test_each_entity_is_said_once_a_minute_without_its_key(capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    alarm = IntegrityAlarm(clock, Audit(clock))
    for key in ("ann@example.org", "ann@example.org", "bob@example.org"):
        alarm.raised(get(key))
    said = capsys.readouterr().out
    assert said.count("security event") == 2
    assert "people" in said and "r-1" in said and "example" not in said
    clock.advance(SAY_AGAIN_S)
    alarm.raised(get("ann@example.org"))
    assert capsys.readouterr().out.count("security event") == 1


def test_what_it_remembers_is_bounded() -> None:
    alarm = IntegrityAlarm(FakeClock(), Audit(FakeClock()))
    for number in range(NAMES_MAX + 10):
        alarm.raised(get(str(number)))
    assert len(alarm._said) == NAMES_MAX
