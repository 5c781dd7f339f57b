"""Decisions on what a caller may do. Pure."""

from __future__ import annotations

import enum

import msgspec

from deltadatabase.errors import Denied


class Permission(enum.StrEnum):
    """A right that a key carries; ``ADMIN`` implies the others."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Principal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who makes a request.

    Attributes:
        client_id: name for answers and logs.
        permissions: the rights held.
        is_admin: holds every right on everything.
        schemas: patterns of the schema ids it is limited to; None: all.
        key_id: id of the key behind it, ``admin`` or ``dev``; what a key's own limits go by.
    """

    client_id: str
    permissions: frozenset[Permission]
    is_admin: bool
    schemas: tuple[str, ...] | None
    key_id: str


def require(principal: Principal, permission: Permission, schema_id: str | None = None) -> None:
    """Let the caller pass or stop it.

    Args:
        principal: who asks.
        permission: the right needed.
        schema_id: the schema id concerned; None when the call concerns none in particular.

    Raises:
        Denied: the right is missing, or the key does not reach this schema id.
    """
    if principal.is_admin:
        return
    if permission not in principal.permissions:
        raise Denied(f"this key lacks the permission {permission}")
    if schema_id is not None and not reaches(principal, schema_id):
        raise Denied("this key is limited to other schema ids")


def reaches(principal: Principal, schema_id: str) -> bool:
    """Whether the caller's key extends to this schema id; lists leave out those that it doesn't."""
    if principal.is_admin or principal.schemas is None:
        return True
    return any(pattern_matches(pattern, schema_id) for pattern in principal.schemas)


def pattern_matches(pattern: str, schema_id: str) -> bool:
    """Whether the whole schema id fits a pattern in which ``*`` stands for any characters or none.

    Takes time linear in both; a regular expression with many stars would not.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return schema_id == pattern
    *middle, last = rest
    if not schema_id.startswith(first):
        return False
    position = len(first)
    for part in middle:
        # The earliest place is enough: it leaves the most for the parts that follow.
        found = schema_id.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return len(schema_id) - position >= len(last) and schema_id.endswith(last)
