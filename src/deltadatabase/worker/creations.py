"""Whether a put should try to create an entity before anybody has looked for it. Pure.

Of an entity that is not cached nobody knows whether it exists. A put that looks first asks the store
twice for a new entity. One that tries the create first asks once, but three times, and sends the
document twice, where there is one. What the schema's last such puts met tells which is likely.
"""

from __future__ import annotations

from typing import Final

from deltadatabase.limits import CREATE_UNSEEN_BYTES_MAX, CREATIONS_NOTED_MAX
from deltadatabase.model import Command, Op

SURE: Final = 8
WRONG: Final = 4
"""An entity that was there after all weighs as much as so many that were not: a create that is wasted
costs more than a look, and so creates are tried while four out of five succeed."""


class Creations:
    """Remembers of each schema what puts of entities that nobody had looked for have met.

    It begins hopeful, and the first wrong guess ends that.
    """

    def __init__(self) -> None:
        self._scores: dict[str, int] = {}

    def expected(self, command: Command) -> bool:
        """Whether the first write of an entity that is not cached should be tried as a create.

        Never where a create cannot be the answer: any other write, and a condition on what is there,
        have to be decided on the entity itself.
        """
        return (
            command.op is Op.PUT
            and command.if_match is None
            and len(command.document) <= CREATE_UNSEEN_BYTES_MAX
            and self._scores.get(command.schema_id, 0) >= 0
        )

    def note(self, schema_id: str, *, created: bool) -> None:
        """Learn that a put met no object, or that it met one."""
        score = self._scores.get(schema_id, 0)
        if score == SURE and created:
            return
        if schema_id not in self._scores and len(self._scores) >= CREATIONS_NOTED_MAX:
            del self._scores[next(iter(self._scores))]
        self._scores[schema_id] = min(score + 1, SURE) if created else max(score - WRONG, -SURE)
