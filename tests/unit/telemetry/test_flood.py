from __future__ import annotations

import pytest

from deltadatabase.telemetry import flood
from deltadatabase.telemetry.flood import FloodGate, Suppressed, source_of


def passed(gate: FloodGate, lines: int, source: str = "192.0.2.1", now_s: float = 0.0) -> int:
    return sum(gate.passes("login", "refused", source, now_s) for _ in range(lines))


def test_the_first_lines_of_a_source_pass_and_the_others_are_counted():
    gate = FloodGate()
    assert passed(gate, 100) == flood.LINES_MAX
    assert gate.ended(59.9) == []
    assert gate.ended(60.0) == [Suppressed("login", "refused", "192.0.2.1", 80, 1)]
    assert gate.ended(120.0) == []


def test_each_minute_has_its_own_lines():
    gate = FloodGate()
    passed(gate, 100)
    gate.ended(60.0)
    assert passed(gate, 100, now_s=60.0) == flood.LINES_MAX


def test_sources_and_actions_are_told_apart():
    gate = FloodGate()
    passed(gate, 100)
    assert passed(gate, 5, "192.0.2.2") == 5
    assert gate.passes("request_refused", "refused", "192.0.2.1", 0.0)


def test_a_minute_without_suppressed_lines_has_no_end_to_be_told():
    gate = FloodGate()
    passed(gate, flood.LINES_MAX)
    assert gate.unreported_until_s() is None
    assert gate.ended(60.0) == []


def test_the_end_of_a_minute_is_asked_for_once():
    gate = FloodGate()
    passed(gate, 100, now_s=10.0)
    assert gate.unreported_until_s() == 70.0
    assert gate.unreported_until_s() is None
    gate.end()
    passed(gate, 100, now_s=80.0)
    assert gate.unreported_until_s() == 140.0


def test_many_sources_take_bounded_memory_and_write_a_bounded_number_of_lines():
    gate = FloodGate()
    sources = flood.SOURCES_MAX * 20
    lines = sum(passed(gate, 3, f"192.0.{number >> 8}.{number & 255}") for number in range(sources))
    assert lines == flood.TOTAL_MAX
    assert len(gate._counts) <= flood.SOURCES_MAX + 1
    assert len(gate._suppressed) <= flood.SOURCES_MAX + 1
    ended = gate.ended(60.0)
    assert len(ended) == flood.SUMMARIES_MAX + 1
    assert sum(item.lines for item in ended) == 3 * sources - flood.TOTAL_MAX


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_an_ipv6_host_is_one_source_whatever_address_it_takes(address, source):
    assert source_of(address) == source
