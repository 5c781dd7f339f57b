"""What the REST API says and accepts of keys and sessions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from deltadatabase.auth.account_file import StoredKey
from deltadatabase.auth.policy import Permission
from deltadatabase.clock import rfc3339
from deltadatabase.errors import Invalid
from deltadatabase.settings import parse_duration

NAME_CHARACTERS_MAX: Final = 100
SCHEMA_PATTERNS_MAX: Final = 100
RATE_PER_S_MAX: Final = 100_000

_SCHEMA_PATTERN: Final = re.compile(r"[A-Za-z0-9_.*-]{1,100}")


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a login. ``expires_at`` is RFC 3339 in UTC."""

    token: str
    client_id: str
    expires_at: str
    permissions: tuple[Permission, ...]

    def __repr__(self) -> str:
        return f"Session(client_id={self.client_id!r}, expires_at={self.expires_at})"


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new API key; its secret is shown this once.

    ``schemas`` is there only for a key that is limited to schema ids, ``rate_per_s`` only for
    one that is limited to so many requests a second.
    """

    id: str
    name: str
    secret: str
    permissions: tuple[Permission, ...]
    created_at: str
    expires_at: str | None
    schemas: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    rate_per_s: int | msgspec.UnsetType = msgspec.UNSET

    def __repr__(self) -> str:
        return f"CreatedKey(id={self.id!r}, name={self.name!r})"


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An API key in the list.

    ``key_hash`` is the hex SHA-256 of its secret; ``enabled`` is false once it has expired;
    ``last_used_at`` tells of the key and its sessions, null for one that was never used.
    """

    id: str
    name: str
    key_hash: str
    permissions: tuple[Permission, ...]
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    enabled: bool
    schemas: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    rate_per_s: int | msgspec.UnsetType = msgspec.UNSET


def created_key(key: StoredKey, secret: str) -> CreatedKey:
    """The answer that shows a new key's secret."""
    return CreatedKey(
        id=key.id,
        name=key.name,
        secret=secret,
        permissions=key.permissions,
        created_at=rfc3339(key.created_ms),
        expires_at=None if key.expires_ms is None else rfc3339(key.expires_ms),
        schemas=msgspec.UNSET if key.schemas is None else key.schemas,
        rate_per_s=msgspec.UNSET if key.rate_per_s is None else key.rate_per_s,
    )


def key_info(key: StoredKey, last_used_ms: int | None, now_ms: int) -> KeyInfo:
    """A key as the list shows it at ``now_ms``."""
    return KeyInfo(
        id=key.id,
        name=key.name,
        key_hash=key.hash.hex(),
        permissions=key.permissions,
        created_at=rfc3339(key.created_ms),
        expires_at=None if key.expires_ms is None else rfc3339(key.expires_ms),
        last_used_at=None if last_used_ms is None else rfc3339(last_used_ms),
        enabled=key.expires_ms is None or now_ms < key.expires_ms,
        schemas=msgspec.UNSET if key.schemas is None else key.schemas,
        rate_per_s=msgspec.UNSET if key.rate_per_s is None else key.rate_per_s,
    )


def in_order(permissions: frozenset[Permission]) -> tuple[Permission, ...]:
    """Permissions in the order in which they are shown."""
    return tuple(permission for permission in Permission if permission in permissions)


def checked_name(name: str, field: str) -> str:
    """A name without white space around it. Raises Invalid, naming the field."""
    name = name.strip()
    if not name or len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise Invalid(f"{field} must have 1 to {NAME_CHARACTERS_MAX} printable characters")
    return name


def checked_permissions(permissions: Sequence[str]) -> tuple[Permission, ...]:
    """The permissions asked for, each once, in order. Raises Invalid."""
    try:
        granted = frozenset(Permission(permission) for permission in permissions)
    except ValueError:
        granted = frozenset()
    if not granted:
        raise Invalid("permissions must name at least one of read, write, admin, and nothing else")
    return in_order(granted)


def checked_schemas(schemas: Sequence[str], granted: Sequence[Permission]) -> tuple[str, ...]:
    """Patterns that limit a key to schema ids. Raises Invalid, also where they limit an admin."""
    if not 1 <= len(schemas) <= SCHEMA_PATTERNS_MAX or not all(map(_SCHEMA_PATTERN.fullmatch, schemas)):
        raise Invalid(
            f"schemas must list 1 to {SCHEMA_PATTERNS_MAX} schema ids, in which * stands for any characters"
        )
    if Permission.ADMIN in granted:
        raise Invalid("a key with the permission admin cannot be limited to schemas")
    return tuple(schemas)


def checked_rate(rate_per_s: int) -> int:
    """A key's own limit of requests a second. Raises Invalid."""
    if not 1 <= rate_per_s <= RATE_PER_S_MAX:
        raise Invalid(f"rate_per_s must be a whole number from 1 to {RATE_PER_S_MAX}")
    return rate_per_s


def lifetime_ms(expires_in: str) -> int:
    """A key's life in milliseconds from a duration such as ``24h``. Raises Invalid."""
    try:
        lifetime_s = parse_duration(expires_in)
    except ValueError:
        lifetime_s = 0.0
    if lifetime_s < 0.001:
        raise Invalid("expires_in must be a positive duration such as 24h or 7d")
    return round(lifetime_s * 1000)
