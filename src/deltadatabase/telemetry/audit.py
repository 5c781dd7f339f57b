"""The audit log: who came in, who was refused, and what was changed about access, never content.

Each event is a line of the logger ``audit``, whatever the log level, and a JSON line in a file
if one is named. What strangers can cause at will is counted after the first few (``FloodGate``),
so that nobody fills a disk, or hides what he does, by being refused again and again.
"""

from __future__ import annotations

import asyncio
import enum
import threading
from pathlib import Path
from typing import Final, final
from urllib.parse import unquote

from deltadatabase.clock import Clock
from deltadatabase.telemetry.audit_file import AuditFile
from deltadatabase.telemetry.flood import FloodGate, Suppressed
from deltadatabase.telemetry.logging import get_logger

_TIMER_SLACK_S: Final = 0.1

_log = get_logger("audit")


class Action(enum.StrEnum):
    """What was done, or tried."""

    LOGIN = "login"
    REQUEST_REFUSED = "request_refused"
    KEY_CREATED = "key_created"
    KEY_DELETED = "key_deleted"
    SCHEMA_PUT = "schema_put"
    SCHEMA_DELETED = "schema_deleted"
    WORKER_ADMITTED = "worker_admitted"
    WORKER_REFUSED = "worker_refused"
    WORKER_RENEWED = "worker_renewed"
    ROTATION_STARTED = "rotation_started"
    ROTATION_PAUSED = "rotation_paused"
    KEYS_ROTATED = "keys_rotated"
    LOG_LEVEL_CHANGED = "log_level_changed"
    INTEGRITY_FAILURE = "integrity_failure"


class Outcome(enum.StrEnum):
    """How it ended. What was refused or failed is written with a limit; what failed is logged as an error."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It may have been done."""
    REFUSED = "refused"
    FAILED = "failed"


_LIMITED: Final = frozenset({Outcome.REFUSED, Outcome.FAILED})
_COUNTED_FROM_START: Final[tuple[tuple[str, ...], ...]] = (
    ("login", "refused"),
    ("request_refused", "refused"),
    ("worker_refused", "refused"),
    ("integrity_failure", "failed"),
)


@final
class Audit:
    """Writes audit events. Safe to call from several threads; never raises, never waits for a peer.

    Args:
        clock: wall time for the lines of the file, monotonic time for the minutes of the gate.
        file: appended to as JSON lines; None: the log stream alone.

    Raises:
        StartupError: ``bad_flag``: the file cannot be opened.
    """

    def __init__(self, clock: Clock, file: Path | None = None) -> None:
        self._clock = clock
        self._file = None if file is None else AuditFile(file, clock)
        self._gate = FloodGate()
        # From the start, so that the first refusal is seen as a rise.
        self._counts = dict.fromkeys(_COUNTED_FROM_START, 0)
        self._lock = threading.Lock()

    def event(
        self,
        action: Action,
        outcome: Outcome,
        *,
        principal: str = "",
        request_id: str = "",
        address: str = "",
        **fields: object,
    ) -> None:
        """Write one event, or only count it: see ``FloodGate``.

        Args:
            action: what was done.
            outcome: how it ended.
            principal: name of who did it: a client id, a worker id.
            request_id: leads to the request's other lines.
            address: where it came from: a host, or what gRPC calls a peer.
            fields: more, under the names that docs/security.md lists. They pass the redaction
                of the log; ``None`` and ``""`` are left out.
        """
        host = host_of(address)
        with self._lock:
            name = (str(action), str(outcome))
            self._counts[name] = self._counts.get(name, 0) + 1
        if outcome in _LIMITED:
            with self._lock:
                now_s = self._clock.monotonic_s()
                over = self._gate.ended(now_s)
                passes = self._gate.passes(action, outcome, host, now_s)
                ends_s = self._gate.unreported_until_s()
            self._tell(over)
            if ends_s is not None:
                self._tell_later(ends_s - now_s)
            if not passes:
                return
        self._write(action, outcome, principal=principal, request_id=request_id, address=host, fields=fields)

    def counts(self) -> dict[tuple[str, ...], int]:
        """Number of events until now by action and outcome."""
        with self._lock:
            return dict(self._counts)

    def settle(self) -> None:
        """Say what was suppressed in a minute that is over."""
        with self._lock:
            over = self._gate.ended(self._clock.monotonic_s())
        self._tell(over)

    def close(self) -> None:
        """Say what was suppressed until now, and close the file."""
        with self._lock:
            over = self._gate.end()
        self._tell(over)
        if self._file is not None:
            self._file.close()

    def _tell(self, over: list[Suppressed]) -> None:
        for item in over:
            self._write(
                Action(item.action),
                Outcome(item.outcome),
                principal="",
                request_id="",
                address=item.source,
                fields={"suppressed": item.lines, "sources": item.sources if item.sources > 1 else None},
            )

    def _tell_later(self, delay_s: float) -> None:
        """Without an event loop, the next event or the end says it."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        loop.call_later(delay_s + _TIMER_SLACK_S, self.settle)

    def _write(
        self,
        action: Action,
        outcome: Outcome,
        *,
        principal: str,
        request_id: str,
        address: str,
        fields: dict[str, object],
    ) -> None:
        named: dict[str, object] = {
            "action": str(action),
            "outcome": str(outcome),
            "principal": principal,
            "request_id": request_id,
            "address": address,
            **fields,
        }
        shown = {name: value for name, value in named.items() if value is not None and value != ""}
        if outcome is Outcome.FAILED:
            _log.error("security event", **shown)
        else:
            _log.info("audit", **shown)
        if self._file is not None:
            self._file.write(shown)


def host_of(address: str) -> str:
    """The host of an address: gRPC's ``ipv4:host:port`` and ``ipv6:[host]:port`` lose the rest.

    IPv4 inside IPv6, as a socket of both families shows it, becomes what it is.
    """
    kind, colon, rest = address.partition(":")
    if colon and kind in ("ipv4", "ipv6"):
        address = unquote(rest).rpartition(":")[0].strip("[]")
    mapped = address.removeprefix("::ffff:")
    return mapped if "." in mapped else address
