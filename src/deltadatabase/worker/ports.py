"""What the worker needs from others, declared by their user."""

from __future__ import annotations

from typing import Protocol

from deltadatabase.model import Header


class Sealer(Protocol):
    """Seals and opens entities (``crypto.envelope.Sealer``)."""

    @property
    def key_id(self) -> bytes:
        """Id of the master key that it seals with."""
        ...

    def seal(self, header: Header, document: bytes) -> bytes: ...

    def open(self, data: bytes, schema_id: str, key: str) -> tuple[Header, bytes]: ...


class Sidecar(Protocol):
    """Takes note of a committed object, to describe it in a derived file later."""

    def note(self, schema_id: str, key: str, sealed: bytes) -> None: ...

    def forget(self, schema_id: str, key: str) -> None: ...


class StoredNames(Protocol):
    """Follows which entities have an object in the store (``worker.name_index.NameIndexes``)."""

    def stored(self, name: tuple[str, str]) -> None: ...

    def removed(self, name: tuple[str, str]) -> None: ...


class CheckedSchema(Protocol):
    """One version of a schema, ready to check documents (``schema.validator``)."""

    @property
    def hash(self) -> str: ...

    def check(self, key: str, document: bytes) -> None: ...

    def demands_conditions(self, key: str) -> bool: ...


class Schemas(Protocol):
    """The schemas in force (``schema.registry.SchemaRegistry``)."""

    def cached(self, schema_id: str, revision: int) -> CheckedSchema | None: ...

    async def get(self, schema_id: str, revision: int) -> CheckedSchema: ...


class Lease(Protocol):
    """Whether this worker may still issue writes: its membership is known to be alive."""

    @property
    def membership(self) -> int:
        """Counts the memberships; work of an earlier one must not be finished in a later one."""
        ...

    def holds(self) -> bool: ...
