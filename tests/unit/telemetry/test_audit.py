from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import stat
from pathlib import Path

import pytest
import structlog

from deltadatabase.errors import StartupError
from deltadatabase.settings import Secret
from deltadatabase.telemetry import audit as module
from deltadatabase.telemetry.audit import Action, Audit, Outcome, host_of
from deltadatabase.telemetry.flood import LINES_MAX
from deltadatabase.telemetry.logging import configure

NOW_MS = 1_700_000_000_000


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def wall_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def _restore_logging():
    loggers = [logging.getLogger(name) for name in ("", "deltadatabase", "deltadatabase.audit")]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    raising = logging.raiseExceptions
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
    logging.raiseExceptions = raising
    structlog.reset_defaults()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def refuse(audit: Audit, times: int = 1, address: str = "192.0.2.1") -> None:
    for _ in range(times):
        audit.event(Action.REQUEST_REFUSED, Outcome.REFUSED, address=address)


def test_an_event_is_a_line_of_the_file(clock, path):
    audit = Audit(clock, path)
    audit.event(
        Action.KEY_CREATED,
        Outcome.OK,
        principal="admin",
        request_id="r-1",
        address="192.0.2.1",
        subject="k-1",
        expires_at=None,
    )
    assert lines(path) == [
        {
            "time": "2023-11-14T22:13:20.000Z",
            "action": "key_created",
            "outcome": "ok",
            "principal": "admin",
            "request_id": "r-1",
            "address": "192.0.2.1",
            "subject": "k-1",
        }
    ]
    audit.close()


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_an_event_is_logged_whatever_the_level(clock, level):
    stream = io.StringIO()
    configure(level, "json", stream=stream)
    Audit(clock).event(Action.LOGIN, Outcome.OK, principal="admin")
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    del line["time"]
    assert line == {
        "event": "audit",
        "logger": "audit",
        "level": "info",
        "action": "login",
        "outcome": "ok",
        "principal": "admin",
    }


def test_secrets_do_not_get_into_either(clock, path):
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    audit = Audit(clock, path)
    audit.event(
        Action.LOGIN, Outcome.REFUSED, principal="a\nb", token="dk_x", admin_key="dk_x", any=Secret("dk_x")
    )
    audit.close()
    for text in (stream.getvalue(), path.read_text()):
        assert "dk_x" not in text
        assert text.count("\n") == 1


def test_the_file_is_ours_alone_and_appended_to(clock, path):
    mask = os.umask(0)
    try:
        first = Audit(clock, path)
    finally:
        os.umask(mask)
    refuse(first)
    first.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = Audit(clock, path)
    refuse(second)
    second.close()
    assert len(lines(path)) == 2


def test_a_file_that_was_moved_away_is_made_again(clock, path):
    audit = Audit(clock, path)
    refuse(audit)
    path.rename(path.with_suffix(".1"))
    refuse(audit, 2)
    audit.close()
    assert len(lines(path.with_suffix(".1"))) == 1
    assert len(lines(path)) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_folder_that_is_away_for_a_time_loses_lines_and_raises_nothing(clock, tmp_path):
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    folder = tmp_path / "logs"
    folder.mkdir()
    audit = Audit(clock, folder / "audit.jsonl")
    folder.rename(tmp_path / "moved")
    refuse(audit, 3)
    folder.mkdir()
    refuse(audit)
    audit.close()
    assert len(lines(folder / "audit.jsonl")) == 1
    warnings = [json.loads(line) for line in stream.getvalue().splitlines() if "warning" in line]
    assert [line["event"] for line in warnings] == [
        "the audit log cannot be written",
        "the audit log can be written again",
    ]
    assert warnings[1]["lines_lost"] == 3


def test_a_full_disk_fails_nothing_and_is_warned_of_once(clock):
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    audit = Audit(clock, Path("/dev/full"))
    refuse(audit, 5)
    audit.close()
    warnings = [json.loads(line) for line in stream.getvalue().splitlines() if "warning" in line]
    assert [line["reason"] for line in warnings] == ["No space left on device"]


def test_a_line_that_a_full_disk_cut_does_not_spoil_the_next(clock, path, monkeypatch):
    audit = Audit(clock, path)
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:10]))
    refuse(audit)
    monkeypatch.undo()
    refuse(audit)
    audit.close()
    torn, good = path.read_text().splitlines()
    assert len(torn) == 10
    assert json.loads(good)["action"] == "request_refused"


def test_a_file_that_cannot_be_opened_stops_the_start(clock, tmp_path):
    with pytest.raises(StartupError) as refused:
        Audit(clock, tmp_path / "missing" / "audit.jsonl")
    assert str(tmp_path) not in refused.value.detail


def test_two_processes_may_share_a_file(clock, path):
    one, other = Audit(clock, path), Audit(clock, path)
    for _ in range(50):
        one.event(Action.LOGIN, Outcome.OK)
        other.event(Action.LOGIN, Outcome.OK)
    one.close()
    other.close()
    assert len(lines(path)) == 100


def test_refusals_of_one_address_are_counted_after_the_first(clock, path):
    audit = Audit(clock, path)
    refuse(audit, 1000)
    refuse(audit, 1, "192.0.2.2")
    assert len(lines(path)) == LINES_MAX + 1
    clock.now_s = 61.0
    refuse(audit)
    *_, said, last = lines(path)
    assert (said["suppressed"], said["address"], said["action"]) == (980, "192.0.2.1", "request_refused")
    assert "suppressed" not in last
    audit.close()


def test_what_went_well_is_always_written(clock, path):
    audit = Audit(clock, path)
    for _ in range(100):
        audit.event(Action.LOGIN, Outcome.OK, address="192.0.2.1")
    audit.close()
    assert len(lines(path)) == 100


def test_what_was_suppressed_is_said_at_the_end_of_the_program(clock, path):
    audit = Audit(clock, path)
    refuse(audit, 30)
    audit.close()
    assert lines(path)[-1]["suppressed"] == 10


async def test_what_was_suppressed_is_said_though_nothing_more_happens(clock, path, monkeypatch):
    monkeypatch.setattr(module, "_TIMER_SLACK_S", -59.99)
    audit = Audit(clock, path)
    refuse(audit, 30)
    clock.now_s = 60.0
    async with asyncio.timeout(5):
        while "suppressed" not in lines(path)[-1]:
            await asyncio.sleep(0.001)
    audit.close()


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("ipv4:192.0.2.1:50123", "192.0.2.1"),
        ("ipv6:[2001:db8::1]:50123", "2001:db8::1"),
        ("ipv6:%5B::1%5D:50123", "::1"),
        ("ipv6:[::ffff:192.0.2.1]:50123", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:1:2", "::ffff:1:2"),
        ("unix:", "unix:"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("", ""),
    ],
)
def test_a_peer_of_grpc_is_named_by_its_host(address, host):
    assert host_of(address) == host


def test_many_ports_of_one_peer_are_one_source(clock, path):
    audit = Audit(clock, path)
    for port in range(1000, 1100):
        audit.event(Action.WORKER_REFUSED, Outcome.REFUSED, address=f"ipv4:192.0.2.1:{port}")
    assert len(lines(path)) == LINES_MAX
    audit.close()
