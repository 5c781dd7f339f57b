from __future__ import annotations

import io
import json
import logging
import logging.config

import pytest
import structlog

from deltadatabase.errors import Unavailable
from deltadatabase.settings import Secret
from deltadatabase.telemetry.logging import (
    GRANIAN_LOGGING,
    change_level,
    configure,
    get_logger,
    level_in_force,
    redact,
    toggle_debug,
)


@pytest.fixture(autouse=True)
def _restore_logging():
    root = logging.getLogger()
    ours = logging.getLogger("deltadatabase")
    before = (root.handlers[:], root.level, ours.level, logging.raiseExceptions)
    yield
    root.handlers[:], level, our_level, logging.raiseExceptions = before
    root.setLevel(level)
    ours.setLevel(our_level)
    structlog.reset_defaults()


@pytest.fixture
def stream():
    return io.StringIO()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines(stream):
    configure("info", "json", stream=stream)
    get_logger("deltadatabase.worker.commit").info("entity stored", schema_id="notes", version=3)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "entity stored",
        "level": "info",
        "logger": "worker.commit",
        "schema_id": "notes",
        "version": 3,
    }


def test_text_lines_without_colour_off_a_terminal(stream):
    configure("info", "text", stream=stream)
    get_logger("gateway").warning("worker lost", worker_id="w-1")
    text = stream.getvalue()
    assert "[warning] worker lost [gateway] worker_id=w-1" in text
    assert "\x1b" not in text


def test_text_is_coloured_on_a_terminal_unless_forbidden():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for colour in (True, False):
        stream = Terminal()
        configure("info", "text", stream=stream, colour=colour)
        get_logger("gateway").warning("worker lost")
        assert ("\x1b" in stream.getvalue()) is colour


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["d", "i", "w", "e"]),
        ("info", ["i", "w", "e"]),
        ("warning", ["w", "e"]),
        ("error", ["e"]),
    ],
)
def test_levels(stream, level, expected):
    configure(level, "json", stream=stream)
    log = get_logger("x")
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    assert [line["event"] for line in lines(stream)] == expected


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("level", ["debug", "info"])
def test_secrets_and_documents_do_not_get_out(stream, level, format):
    configure(level, format, stream=stream)
    get_logger("x").warning(
        "event",
        key="hunter2",
        document=b"hunter2",
        token="hunter2",
        Authorization="Bearer hunter2",
        admin_key="hunter2",
        session_token="hunter2",
        value=Secret("hunter2"),
        nested={"password": "hunter2", "deep": [{"s3-secret-key": "hunter2"}, Secret("hunter2")]},
        raw=b"hunter2",
        error=ValueError("hunter2"),
    )
    logging.getLogger("other").warning("a secret: %s", Secret("hunter2"))
    assert "event" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_what_is_no_secret_stays():
    event = {"event": "e", "key_id": "ab", "admin-key": "set", "master-key": "", "keys": 3, "token": None}
    assert redact(None, "info", dict(event)) == event


def test_bytes_become_their_number_and_long_texts_are_cut():
    shown = redact(None, "info", {"raw": b"12345", "text": "x" * 9000})
    assert shown["raw"] == "<5 bytes>"
    assert len(shown["text"]) == 2001


def test_no_value_can_forge_a_line(stream):
    configure("info", "text", stream=stream)
    get_logger("x").info("event\nforged", worker_id="a\nforged\x1b[31m\u2028")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def raise_unavailable():
    try:
        raise OSError("/a/path, a document")
    except OSError as exc:
        raise Unavailable("the store does not answer") from exc


@pytest.mark.parametrize("format", ["text", "json"])
def test_exceptions_have_no_trace_above_debug(stream, format):
    configure("info", format, stream=stream)
    log = get_logger("x")
    try:
        raise_unavailable()
    except Unavailable as exc:
        log.exception("failed")
        log.error("failed", exc_info=exc)
        log.warning("failed", error=exc)
        logging.getLogger("asyncio").error("failed\nfuture: <Task /a/path>", exc_info=exc)
    written = stream.getvalue()
    assert len(written.splitlines()) == 4
    assert written.count("Unavailable") == 4
    assert written.count("the store does not answer") == 4
    assert "Traceback" not in written
    assert "/a/path" not in written


def test_exceptions_are_named(stream):
    configure("info", "json", stream=stream)
    try:
        raise_unavailable()
    except Unavailable:
        get_logger("x").exception("failed")
    try:
        {}["a document"]
    except KeyError:
        get_logger("x").exception("failed")
    ours, foreign = lines(stream)
    assert (ours["error"], ours["code"], ours["detail"]) == (
        "Unavailable",
        "unavailable",
        "the store does not answer",
    )
    assert foreign["error"] == "KeyError"
    assert "code" not in foreign
    assert "a document" not in json.dumps(foreign)


@pytest.mark.parametrize("format", ["text", "json"])
def test_exceptions_have_a_trace_at_debug(stream, format):
    configure("debug", format, stream=stream)
    try:
        raise_unavailable()
    except Unavailable:
        get_logger("x").exception("failed")
    assert "Traceback" in stream.getvalue()


def test_other_libraries_are_heard_from_warning_upward(stream):
    configure("info", "json", stream=stream)
    logging.getLogger("grpc._cython").info("chatter")
    logging.getLogger("grpc._cython").warning("heard %d", 7)
    assert [line["event"] for line in lines(stream)] == ["heard 7"]


def test_granian_ends_in_the_same_stream(stream):
    configure("info", "json", stream=stream)
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, **GRANIAN_LOGGING})
    logging.getLogger("_granian").error("worker failed")
    assert [line["logger"] for line in lines(stream)] == ["_granian"]


def test_a_later_configuration_replaces_an_earlier_one(stream):
    configure("info", "text", stream=io.StringIO())
    log = get_logger("x")
    log.info("first")
    configure("info", "json", stream=stream)
    log.info("second")
    assert [line["event"] for line in lines(stream)] == ["second"]


def test_the_level_changes_while_everything_else_stays(stream):
    configure("info", "json", stream=stream, colour=False)
    log = get_logger("deltadatabase.worker.commit")
    log.debug("unseen")
    assert change_level("debug") == "info"
    log.debug("seen")
    assert change_level("error") == "debug"
    log.warning("unseen again")
    assert [line["event"] for line in lines(stream)] == ["seen"]
    assert level_in_force() == "error"


@pytest.mark.parametrize(
    ("chosen", "steps"), [("warning", ["debug", "warning"]), ("debug", ["info", "debug"])]
)
def test_a_toggle_goes_to_debug_and_back_to_what_was_chosen(chosen, steps, stream):
    configure(chosen, "text", stream=stream)
    assert [toggle_debug() for _ in range(4)] == steps * 2
    change_level("error")
    toggle_debug()
    toggle_debug()
    assert level_in_force() == (chosen if chosen != "debug" else "info")


def test_a_level_cannot_be_changed_before_there_is_one():
    logging.getLogger().handlers[:] = []
    assert (change_level("debug"), toggle_debug(), level_in_force()) == ("", "", "")
