"""The file of the audit log: JSON lines, appended whole, and reopened when it was moved away."""

from __future__ import annotations

import io
import logging
import logging.handlers
import os
from pathlib import Path
from typing import Any, Final, final

import msgspec

from deltadatabase.clock import Clock, rfc3339
from deltadatabase.errors import StartupError
from deltadatabase.telemetry.logging import get_logger, redact

MODE: Final = 0o600

_log = get_logger(__name__)


@final
class AuditFile:
    """Appends events. A write that fails is warned of once until one succeeds, and never raises.

    Args:
        path: made with mode 0600; an existing file keeps its mode.
        clock: wall time of the lines.

    Raises:
        StartupError: ``bad_flag``: it cannot be opened.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        try:
            self._handler = _LineHandler(path)
        except OSError as exc:
            raise StartupError(
                f"-audit-log: the file cannot be opened: {exc.strerror}", code="bad_flag"
            ) from None

    def write(self, fields: dict[str, object]) -> None:
        """Append one line: the time, then the fields."""
        event: dict[str, Any] = {"time": rfc3339(self._clock.wall_ms()), **fields}
        line = msgspec.json.encode(redact(None, "info", event)).decode()
        self._handler.handle(logging.makeLogRecord({"msg": line, "args": None}))

    def close(self) -> None:
        """Give the file back."""
        self._handler.close()


class _LineHandler(logging.handlers.WatchedFileHandler):
    """Writes each line with one system call, so that several processes may share the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self._lost = 0
        self._torn = False

    def _open(self) -> io.TextIOWrapper:
        # Not the umask's mode, which lets others read.
        return open(
            self.baseFilename,
            "a",
            encoding="utf-8",
            opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, MODE),
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.reopenIfNeeded()
            if self.stream is None:
                # Moved away before, and could not be made again then.
                self.stream = self._open()
                self._statstream()
            # A full disk may have taken a part of the line before: that one ends here.
            data = ("\n" * self._torn + record.getMessage() + "\n").encode()
            written = os.write(self.stream.fileno(), data)
            if written < len(data):
                self._torn = True
                raise OSError("short write")
        except (OSError, ValueError) as exc:
            self._lost += 1
            if self._lost == 1:
                reason = exc.strerror if isinstance(exc, OSError) else None
                _log.warning("the audit log cannot be written", reason=reason or "closed or full")
            return
        self._torn = False
        if self._lost:
            _log.warning("the audit log can be written again", lines_lost=self._lost)
            self._lost = 0
