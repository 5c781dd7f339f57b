from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltadatabase import errors
from deltadatabase.client.changing import Event, EventReader, follow
from deltadatabase.client.exporting import WholeFile, export_lines
from deltadatabase.client.lines import Lines
from deltadatabase.client.requests import Failure
from deltadatabase.client.scanning import scan
from unit.client.driving import Driver, ok, refused

TORN = Failure(sent=True)
AWAY = Failure(sent=False)


def line(key):
    return json.dumps({"key": key, "document": 1}).encode()


def cut(text, cuts):
    """The text in blocks, cut wherever."""
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[begin:end] for begin, end in itertools.pairwise(edges)]


@given(st.lists(st.binary().filter(lambda line: b"\n" not in line)), st.lists(st.integers(0)))
def test_lines_are_the_same_however_the_stream_is_cut(lines, cuts):
    text = b"".join(line + b"\n" for line in lines) + b"rest"
    reader = Lines()
    assert [line for block in cut(text, cuts) for line in reader.feed(block)] == lines
    assert reader.rest == b"rest"


# -- export ----------------------------------------------------------------------------


def test_an_export_is_taken_up_again_behind_its_last_whole_line():
    blocks = [line("a") + b"\n" + line("b")[:4], TORN, line("b") + b"\n", None]
    driver = Driver(ok(), ok(), blocks=blocks)
    driver.run(export_lines("notes", driver.means, prefix="", after=None))
    assert [*itertools.chain(*driver.emitted)] == [line("a"), line("b")]
    assert [request.path for request in driver.requests] == ["/export/notes", "/export/notes?after=a"]


def test_a_server_that_is_away_in_the_middle_is_waited_for():
    driver = Driver(ok(), AWAY, refused(503), ok(), blocks=[line("a/b") + b"\n", TORN, None])
    driver.run(export_lines("notes", driver.means, prefix="a", after=None))
    assert driver.requests[-1].path == "/export/notes?prefix=a&after=a%2Fb"


def test_an_export_that_ends_within_a_line_has_not_ended():
    driver = Driver(ok(), ok(), blocks=[line("a"), None, line("a") + b"\n", None])
    driver.run(export_lines("notes", driver.means, prefix="", after=None))
    assert driver.emitted == [[line("a")]]


def test_an_export_that_gets_nowhere_ends():
    driver = Driver(*[ok()] * 1000, blocks=[TORN] * 1000)
    with pytest.raises(errors.Unavailable):
        driver.run(export_lines("notes", driver.means, prefix="", after=None))
    driver = Driver(refused(403))
    with pytest.raises(errors.Denied):
        driver.run(export_lines("notes", driver.means, prefix="", after=None))


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "notes.ndjson"
    path.write_bytes(b"before")

    def interrupted():
        with WholeFile(path) as file:
            file.write([b"half"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert path.read_bytes() == b"before"
    with WholeFile(path) as file:
        assert file.write([b"1", b"2"]) == 4
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"1\n2\n"
    assert [each.name for each in tmp_path.iterdir()] == ["notes.ndjson"]


# -- changes ---------------------------------------------------------------------------


def event(token, key, **more):
    data = {"key": key, "version": 1, "etag": '"1-a"', "updated_at": "2026-11-28T00:00:00.000Z", **more}
    return f"id: {token}\nevent: change\ndata: {json.dumps(data)}\n\n".encode()


STREAM = (
    b": hello\r\nretry: 1000\n\nid: t1\nevent: change\ndata: 1\ndata:2\n\nid: t2\n\n: beat\n\n"
    b"data\ndata\n\nevent: x\n\n"
)


@given(st.lists(st.integers(0)))
def test_events_are_the_same_however_the_stream_is_cut(cuts):
    reader = EventReader()
    events = [event for block in cut(STREAM, cuts) for event in reader.feed(block)]
    assert events == [Event("change", "1\n2", "t1"), Event("", "", "t2"), Event("message", "\n", "t2")]


def changes_of(driver, since=None, include=None):
    return follow("notes", driver.means, since=since, include=include, as_=Any)


def test_changes_go_on_behind_the_last_one_after_every_break():
    driver = Driver(
        ok(b'{"changes":[],"next":"t0","more":false}'),
        ok(),
        AWAY,
        refused(503),
        ok(),
        refused(410, "changes_gone"),
        blocks=[
            event("t1", "a", deleted=True) + event("t2", "b"),
            b"id: t3\n\n",
            TORN,
            event("t4", "c"),
            None,
        ],
    )
    with pytest.raises(errors.Gone):
        driver.run(changes_of(driver))
    assert [(change.key, change.token, change.deleted) for change in driver.emitted] == [
        ("a", "t1", True),
        ("b", "t2", False),
        ("c", "t4", False),
    ]
    assert [request.headers.get("last-event-id") for request in driver.requests] == [
        None,
        None,
        "t3",
        "t3",
        "t3",
        "t4",
    ]
    assert driver.requests[1].path == "/changes/notes?feed=eventsource&since=t0"


def test_a_server_that_was_never_there_is_not_waited_for_for_ever():
    driver = Driver(*[AWAY] * 1000)
    with pytest.raises(errors.Unavailable):
        driver.run(changes_of(driver, since="t0"))


def test_documents_come_with_the_changes_when_asked_for():
    driver = Driver(ok(), refused(403), blocks=[event("t1", "a", document={"x": 1}), TORN])
    with pytest.raises(errors.Denied):
        driver.run(changes_of(driver, since="t0", include="document"))
    assert driver.emitted[0].value == {"x": 1}
    assert "include=document" in driver.requests[0].path


# -- scan ------------------------------------------------------------------------------


def test_a_scan_tells_what_would_be_refused():
    seen = []
    blocks = [
        b'{"checked":1,"refused":0}\n{"key":"a","version":3,"errors":[]}\n',
        TORN,
        b'{"key":"a","version":3,"errors":[]}\n{"done":true,"checked":2,"refused":1}\n',
    ]
    driver = Driver(ok(), ok(), blocks=blocks)
    report = driver.run(scan("notes", {}, driver.means, progress=lambda *counts: seen.append(counts)))
    assert (report.checked, report.refused) == (2, 1)
    assert [entity.key for entity in report.entities] == ["a"]
    assert seen == [(1, 0)]


def test_a_scan_that_never_ends_changed_nothing():
    driver = Driver(*[ok()] * 1000, blocks=[TORN] * 1000)
    with pytest.raises(errors.Unavailable):
        driver.run(scan("notes", {}, driver.means, progress=None))
