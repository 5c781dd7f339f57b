"""The security event that a damaged or forged entity is, in the audit log."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

from deltadatabase.clock import Clock
from deltadatabase.model import Command
from deltadatabase.telemetry.audit import Action, Audit, Outcome

SAY_AGAIN_S: Final = 60.0
NAMES_MAX: Final = 1000


@final
class IntegrityAlarm:
    """Tells of each entity that fails its integrity check, at most once a minute.

    The entity's key is left out, because keys may be personal data: the request id leads to who
    asked, and a scrub names what is damaged.

    Args:
        clock: monotonic time.
        audit: where it is told.
    """

    def __init__(self, clock: Clock, audit: Audit) -> None:
        self._clock = clock
        self._audit = audit
        self._said: OrderedDict[tuple[str, str], float] = OrderedDict()

    def raised(self, command: Command) -> None:
        """Take note of a command that met such an entity."""
        name = (command.schema_id, command.key)
        now_s = self._clock.monotonic_s()
        said_s = self._said.get(name)
        if said_s is not None and now_s - said_s < SAY_AGAIN_S:
            return
        self._said[name] = now_s
        self._said.move_to_end(name)
        if len(self._said) > NAMES_MAX:
            self._said.popitem(last=False)
        self._audit.event(
            Action.INTEGRITY_FAILURE,
            Outcome.FAILED,
            request_id=command.request_id,
            code="integrity",
            schema_id=command.schema_id,
            shard=command.shard,
        )
