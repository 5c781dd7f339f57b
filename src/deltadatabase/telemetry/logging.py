"""Logging: one line for an event on stderr, as text or JSON, with secrets and documents taken out.

Events are short constant sentences; what varies goes into named fields. The standard
library's loggers (granian, grpc, asyncio) end in the same stream and pass the same redaction.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from deltadatabase.errors import DeltaError
from deltadatabase.settings import Secret

REDACTED: Final = "<redacted>"

GRANIAN_LOGGING: Final[dict[str, Any]] = {
    "formatters": {},
    "handlers": {},
    "loggers": {
        "_granian": {"handlers": [], "propagate": True},
        "granian.access": {"handlers": [], "propagate": True},
    },
}
"""For granian's ``log_dictconfig``: without it, granian writes to stdout past our redaction."""

LEVELS: Final = ("debug", "info", "warning", "error")
_OURS: Final = "deltadatabase"
_SECRET_FIELDS: Final = frozenset(
    {"authorization", "body", "cookie", "document", "headers", "key", "passphrase", "password"}
    | {"payload", "plaintext", "proof", "secret", "token"}
)
_SECRET_ENDINGS: Final = ("_key", "_secret", "_token", "_password", "_document", "_body")
_TEXT_MAX: Final = 2000
_TRACE_FIELDS: Final = frozenset({"exc_info", "exception", "stack", "stack_info"})


def configure(level: str, format: str, *, stream: TextIO | None = None, colour: bool = True) -> None:
    """Set logging up for the whole process; a later call replaces an earlier one.

    Call it before ``grpc`` is imported: its C core is told here to keep off stderr.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``. Stack traces appear at ``debug``
            only. Other libraries are heard from ``warning`` upward, at ``debug`` from ``info``.
        format: ``text`` for people, or ``json``, one object a line.
        stream: where lines go; stderr by default.
        colour: allow colours in text; a stream that is no terminal never gets them.
    """
    # Written for grpc, never read. Its handlers of a fork cost connections whenever a child is started.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # noqa: TID251
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # noqa: TID251
    target = stream or sys.stderr
    debugging = level == "debug"
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _short_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        *([] if debugging else [name_error, _first_line]),
        redact,
        *([structlog.processors.format_exc_info] if debugging else []),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *chain,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(level, format, target, colour=colour)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=chain,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(format, colour=colour and target.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    chosen = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(logging.INFO if debugging else max(chosen, logging.WARNING))
    logging.getLogger(_OURS).setLevel(chosen)
    # Who was refused is asked afterwards, when it is too late to raise the level.
    logging.getLogger(f"{_OURS}.audit").setLevel(min(chosen, logging.INFO))
    logging.raiseExceptions = debugging  # a closed stderr is no reason to write to it


def level_in_force() -> str:
    """The level of the last ``configure`` or ``change_level``; "" before the first."""
    handler = _present()
    return handler.level_name if handler else ""


def change_level(level: str) -> str:
    """Log from ``level`` (of ``LEVELS``) on, all else as configured; return the level until now.

    Where logging was never configured, as in a test, nothing is changed.
    """
    assert level in LEVELS
    handler = _present()
    if handler is None:
        return ""
    former = handler.level_name
    configure(level, handler.format_name, stream=handler.stream, colour=handler.colour)
    if (new := _present()) is not None:
        new.chosen = handler.chosen
    return former


def toggle_debug() -> str:
    """Switch to ``debug``, or back to the level that was configured (``info`` where that is debug)."""
    handler = _present()
    if handler is None:
        return ""
    if handler.level_name != "debug":
        level = "debug"
    else:
        level = handler.chosen if handler.chosen != "debug" else "info"
    change_level(level)
    return level


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler; remembers how logging was set up, since the setup belongs to the process."""

    def __init__(self, level: str, format: str, stream: TextIO, *, colour: bool) -> None:
        super().__init__(stream)
        self.level_name = level
        self.chosen = level
        self.format_name = format
        self.colour = colour


def _present() -> _Handler | None:
    return next((one for one in logging.getLogger().handlers if isinstance(one, _Handler)), None)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module (``__name__``); works before ``configure`` too."""
    full_name = name if name.split(".")[0] == _OURS else f"{_OURS}.{name}"
    return structlog.stdlib.get_logger(full_name)


def name_error(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put class, code and detail of an exception in the place of its stack trace.

    The detail of a foreign exception is left out: it may hold paths, URLs or documents.
    """
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        event.setdefault("error", error)
    return event


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide secrets and documents by the names of their fields, at any depth, and by their types.

    An exception becomes its class (with code and detail, if it is ours), bytes become their
    number, and control characters are escaped, so that no value can forge a line.
    """
    error = event.get("error")
    if isinstance(error, DeltaError):
        event.setdefault("code", error.code)
        event.setdefault("detail", error.detail)
    for name, value in event.items():
        if name not in _TRACE_FIELDS and not name.startswith("_"):
            event[name] = _redacted(name, value)
    return event


def _redacted(name: str, value: object) -> object:
    if isinstance(value, Secret):
        return REDACTED
    if _is_secret(name) and not (value is None or isinstance(value, bool) or value in ("", "set")):
        return REDACTED
    if isinstance(value, str):
        return _printable(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, Mapping):
        return {str(inner): _redacted(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted("", item) for item in value]
    return _printable(str(value))


def _is_secret(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    return plain in _SECRET_FIELDS or plain.endswith(_SECRET_ENDINGS)


def _printable(text: str) -> str:
    cut = text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "…"
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def _first_line(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut what asyncio and grpc add below the first line: paths, tasks, the text of exceptions."""
    text = str(event.get("event", ""))
    event["event"] = text.partition("\n")[0]
    return event


def _short_logger_name(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    name = record.name if record is not None else logger.name
    event["logger"] = name.removeprefix(f"{_OURS}.")
    return event


def _renderer(format: str, *, colour: bool) -> Processor:
    if format == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(
        colors=colour, timestamp_key="time", pad_event_to=0, pad_level=False, sort_keys=False
    )
