from __future__ import annotations

import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase import errors
from deltadatabase.client import importing
from deltadatabase.client.importing import as_line, import_lines, lines_of
from deltadatabase.client.requests import Failure
from deltadatabase.gateway.ndjson import parse_line
from unit.client.driving import Driver, ok, refused


def counts(**members):
    return ok(msgspec.json.encode(members))


def run(driver, *, skip_existing=False, skip_lines=0, on_error="continue", progress=None):
    return driver.run(
        import_lines(
            "notes",
            driver.means,
            skip_existing=skip_existing,
            skip_lines=skip_lines,
            on_error=on_error,
            progress=progress,
        )
    )


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(importing, "REQUEST_LINES", 3)


LINES = [b'{"key":"%d","document":1}' % number for number in range(8)]


def test_lines_go_out_in_bounded_requests_and_are_summed_up(small):
    seen = []
    driver = Driver(*[counts(lines=3, imported=3, created=1)] * 2, counts(lines=2, imported=2), source=LINES)
    report = run(driver, progress=seen.append)
    assert (report.lines, report.imported, report.created, report.failed) == (8, 8, 2, 0)
    assert b"".join(request.body for request in driver.requests).splitlines() == LINES
    assert [progress.lines for progress in seen] == [3, 6, 8]


def test_numbers_of_lines_count_through_all_requests(small):
    bad = {"line": 2, "error": "invalid", "detail": "no", "key": "k"}
    answers = [counts(lines=3, failed=1, errors=[bad]), counts(lines=3, failed=1, errors=[bad])]
    driver = Driver(*answers, counts(lines=2, failed=0), source=LINES)
    report = run(driver)
    assert [error.line for error in report.errors] == [2, 5]
    assert report.failed == 2


def test_lines_that_are_done_are_left_out(small):
    driver = Driver(counts(lines=3, imported=3), counts(lines=1, imported=1), source=LINES)
    report = run(driver, skip_lines=4)
    assert report.lines == 8 and report.imported == 4
    assert driver.requests[0].body.splitlines() == LINES[4:7]


def test_nothing_to_do_is_no_request():
    assert run(Driver()).lines == 0
    assert run(Driver(source=LINES), skip_lines=99).lines == 8


def test_a_request_that_was_torn_is_sent_again(small):
    driver = Driver(Failure(sent=True), counts(lines=2, imported=2), source=LINES[:2])
    assert run(driver, skip_existing=True).imported == 2
    assert driver.requests[0] == driver.requests[1]
    assert driver.requests[0].path == "/import/notes?skip_existing=true"


def test_who_breaks_off_says_where_to_go_on(small):
    driver = Driver(counts(lines=3, imported=3), refused(507, "store_full"), source=LINES)
    with pytest.raises(errors.StoreFull) as caught:
        run(driver)
    assert caught.value.__notes__ == ["the first 3 lines are done; go on with skip_lines=3"]


def test_the_first_refused_line_can_end_it(small):
    driver = Driver(counts(lines=1, failed=1, stopped_at=2), source=LINES)
    report = run(driver, on_error="stop")
    assert report.stopped and report.lines == 2
    assert len(driver.requests) == 1 and "on_error=stop" in driver.requests[0].path


def test_only_so_many_errors_are_kept(small, monkeypatch):
    monkeypatch.setattr(importing, "ERRORS_MAX", 2)
    bad = [{"line": line, "error": "invalid"} for line in (1, 2, 3)]
    driver = Driver(*[counts(lines=3, failed=3, errors=bad)] * 2, counts(lines=2), source=LINES)
    report = run(driver)
    assert len(report.errors) == 2 and report.failed == 6


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
)
def test_pairs_become_lines(key, value):
    line = as_line((key, value))
    assert b"\n" not in line
    assert msgspec.json.decode(line) == {"key": key, "document": value}


def test_a_document_over_several_lines_becomes_one():
    line = as_line(("a", b'{\n "x": 0.10\r\n}\n'))
    assert line == b'{"key":"a","document":{  "x": 0.10  },"text":"{\\n \\"x\\": 0.10\\r\\n}\\n"}'
    assert parse_line(line, 100) == ("a", b'{\n "x": 0.10\r\n}\n')


@pytest.mark.parametrize("item", [1, None, ("a",), (1, 2), {"key": "a"}, b"1\n2"])
def test_what_is_no_line_is_refused(item):
    with pytest.raises(errors.Invalid) as caught:
        as_line(item)
    assert caught.value.code == "bad_line"


def test_a_line_without_end_is_not_held_in_memory(monkeypatch):
    monkeypatch.setattr(importing, "LINE_BYTES_MAX", 10)
    lines = lines_of(io.BytesIO(b"x" * 1_000_000))
    with pytest.raises(errors.TooLarge):
        as_line(next(lines))
    assert [as_line(line) for line in lines_of(io.BytesIO(b"1234567890\r\n\n12"))] == [
        b"1234567890",
        b"",
        b"12",
    ]
