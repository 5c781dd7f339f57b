"""What the schema in force says of a write, before it waits for its turn."""

from __future__ import annotations

from deltadatabase.clock import Clock
from deltadatabase.errors import Conflict, PreconditionRequired
from deltadatabase.limits import DOCUMENT_BYTES_MAX_DEFAULT
from deltadatabase.model import Command
from deltadatabase.schema.patch import Patch, parse_patch
from deltadatabase.worker.ports import CheckedSchema, Schemas


class Checked:
    """How a check of a write against its schema went.

    Attributes:
        schema_hash: of the schema that the document holds to.
        spent_us: how long it took so far.
    """

    __slots__ = ("schema_hash", "spent_us")

    def __init__(self, schema_hash: str, spent_us: int = 0) -> None:
        self.schema_hash = schema_hash
        self.spent_us = spent_us


class Patching(Checked):
    """What a PATCH does to the document that it meets, and whether the schema allows it. A ``Change``."""

    def __init__(self, command: Command, patch: Patch, schema: CheckedSchema, clock: Clock) -> None:
        self._key = command.key
        self._bytes_max = command.document_bytes_max or DOCUMENT_BYTES_MAX_DEFAULT
        self._patch = patch
        self._schema = schema
        self._clock = clock
        super().__init__(schema.hash)

    def __call__(self, document: bytes) -> bytes:
        """The patched document. Raises ``Invalid``, ``Conflict``, ``TooLarge``."""
        started_s = self._clock.monotonic_s()
        try:
            patched = self._patch.apply(document, self._bytes_max)
            self._schema.check(self._key, patched)
        finally:
            self.spent_us += int((self._clock.monotonic_s() - started_s) * 1e6)
        return patched


class Checks:
    """Holds writes against their schemas. Fetches a schema that this worker does not have."""

    def __init__(self, schemas: Schemas, clock: Clock) -> None:
        self._schemas = schemas
        self._clock = clock

    async def document(self, command: Command) -> Checked:
        """Check the document of a PUT or VALIDATE.

        Raises:
            Invalid: the schema refuses it.
            PreconditionRequired: the schema wants conditions.
            Conflict: ``schema_changed``, ``template_invalid``.
        """
        started = self._clock.monotonic_s()
        schema = await self._schema(command)
        if command.schema_hash and schema.hash != command.schema_hash:
            raise Conflict("schema changed while documents were being checked", code="schema_changed")
        schema.check(command.key, command.document)
        spent_us = int((self._clock.monotonic_s() - started) * 1e6)
        return Checked(schema.hash, spent_us)

    async def patch(self, command: Command) -> Patching:
        """Read a PATCH.

        Raises:
            Invalid: ``bad_patch``.
            DeltaError: as ``document``.
        """
        patch = parse_patch(command.document, command.number)
        return Patching(command, patch, await self._schema(command), self._clock)

    async def delete(self, command: Command) -> None:
        """Check a DELETE.

        Raises:
            PreconditionRequired: the schema wants conditions.
        """
        try:
            await self._schema(command)
        except Conflict:
            # What is stored is no schema. It demands nothing, and whoever cleans up may go on.
            return

    async def _schema(self, command: Command) -> CheckedSchema:
        schema = self._schemas.cached(command.schema_id, command.revision)
        if schema is None:
            schema = await self._schemas.get(command.schema_id, command.revision)
        conditional = command.if_match is not None or command.if_none_match is not None
        if not conditional and schema.demands_conditions(command.key):
            raise PreconditionRequired("its schema wants If-Match or If-None-Match with each write")
        return schema
