"""The store contract that every backend and wrapper fulfils; ``tests/contract`` checks it."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec

from deltadatabase.errors import Corrupt, Internal


class When(enum.Enum):
    """Conditions of a put that need no ETag."""

    ABSENT = "absent"
    """Create: only if no object has this path."""
    ALWAYS = "always"
    """Overwrite. For derived objects and templates, never for entities."""


Condition = When | str
"""A ``When``, or the ETag that must still be current."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """An object as read: its bytes, its ETag (opaque, the store's) and its time in ms."""

    data: bytes
    etag: str
    updated_ms: int


class ObjectInfo(msgspec.Struct, frozen=True, gc=False):
    """An object as listed. ``etag`` may be "" where a backend does not list it for free."""

    path: str
    size_bytes: int
    etag: str
    updated_ms: int


class Store(Protocol):
    """Objects by path. Every method is cancellable; a put once issued may still land.

    Raises (all methods):
        Unavailable: the store cannot be reached or refuses; certainly nothing was changed.
        OutcomeUnknown: changes only (put, remove, delete): it may or may not have been applied.
        StoreFull: puts only: no room, or read-only.
    """

    backend: str
    removes: bool
    """Whether ``remove`` is supported. Where it is not, an entity's tombstone stays."""

    async def put(self, path: str, data: bytes, condition: Condition) -> str:
        """Store ``data`` atomically and durably; return the new ETag.

        Raises:
            AlreadyExists: ``When.ABSENT`` and there is one.
            VersionMismatch: the ETag is not current, or there is no object.
        """
        ...

    async def get(self, path: str) -> Stored:
        """Read the newest committed object.

        Whoever may write to the store may put an object of any size there: one that is larger than
        this store's ``object_bytes_max`` is refused by its size, before its bytes are read.

        Raises:
            NotFound: there is none.
            Corrupt: it is too large, or not a file.
        """
        ...

    async def settle(self, path: str) -> None:
        """Make durable what a read of this path has shown.

        A read may show an object whose writer has not made it durable yet, and perhaps never will,
        because it was killed. Who acknowledges a write because a read shows it calls this first.

        Raises:
            Unavailable: it is not known to be durable.
        """
        ...

    async def get_if_changed(self, path: str, etag: str) -> Stored | None:
        """Like ``get``; None while ``etag`` is still current. Raises NotFound, Corrupt."""
        ...

    async def head(self, path: str) -> ObjectInfo:
        """Describe an object of any size, with its ETag. Raises NotFound.

        Of an object that ``get`` refuses the ETag may be "", which no condition meets.
        """
        ...

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        """Objects whose path starts with ``prefix`` (a folder: ends with ``/``), recursively.

        In ascending byte order of the path, only paths greater than ``after``, at most
        ``limit``; fewer than ``limit`` means that there are no more.
        """
        ...

    async def folders(self, prefix: str) -> Sequence[str]:
        """Names (without slash) of the folders directly below ``prefix``, ascending."""
        ...

    def scan(self, prefix: str) -> AsyncGenerator[Sequence[str]]:
        """Names of what is directly in the folder ``prefix``, in any order, in parts of bounded size.

        For the directory backend, where ``list`` has to look at a whole folder for each page. Each
        object that is there from the beginning to the end comes, unless it is overwritten meanwhile;
        of others some.

        Raises:
            Internal: this store lists in order; ask ``list``.
        """
        ...

    async def describe(self, prefix: str, names: Sequence[str]) -> Sequence[ObjectInfo | None]:
        """Describe objects directly in a folder, without their ETags; None for each that is not there.

        Raises:
            Internal: as ``scan``.
        """
        ...

    async def folder_ms(self, prefix: str) -> int:
        """When a name last came into the folder or left it; 0: there is no such folder.

        Raises:
            Internal: as ``scan``.
        """
        ...

    async def remove(self, path: str, etag: str) -> None:
        """Remove an object if it is still the one that ``etag`` names, atomically and durably.

        Raises:
            VersionMismatch: the ETag is not current, or there is no object.
            Internal: the store does not support it (``removes`` is False).
        """
        ...

    async def delete(self, path: str) -> None:
        """Remove an object unconditionally; absent is fine. Never for entities."""
        ...

    async def close(self) -> None:
        """Release connections, locks and threads."""
        ...


def no_scan() -> Internal:
    """The error of a store that lists in order where it is asked for the names of a folder."""
    return Internal("this store lists in order; it has no scan")


def too_large() -> Corrupt:
    """The error for an object that is refused by its size, or because it is no plain file."""
    return Corrupt("the stored object is larger than this program takes; it was not read")
