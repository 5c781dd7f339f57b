"""What a token gives, and how a request presents one. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from deltadatabase.auth.policy import Permission, Principal
from deltadatabase.auth.rate import RateLimit

ADMIN: Final = "admin"
DEV: Final = "dev"


class Grant(msgspec.Struct, frozen=True, gc=False):
    """What a token gives, until when, and the limit that it shares with the others of its key."""

    principal: Principal
    expires_ms: int | None
    rate: RateLimit | None = None

    def expired(self, now_ms: int) -> bool:
        """Whether it is over."""
        return self.expires_ms is not None and now_ms >= self.expires_ms


ADMIN_PRINCIPAL: Final = Principal(
    client_id=ADMIN, permissions=frozenset(Permission), is_admin=True, schemas=None, key_id=ADMIN
)
DEV_PRINCIPAL: Final = Principal(
    client_id=DEV, permissions=frozenset(Permission), is_admin=True, schemas=None, key_id=DEV
)
ADMIN_GRANT: Final = Grant(ADMIN_PRINCIPAL, None)
DEV_GRANT: Final = Grant(DEV_PRINCIPAL, None)


def dev_client(client_id: str) -> Principal:
    """Who logs in with a mere client id in dev mode: he reads and writes."""
    permissions = frozenset((Permission.READ, Permission.WRITE))
    return Principal(client_id=client_id, permissions=permissions, is_admin=False, schemas=None, key_id=DEV)


def digest_of(token: str) -> bytes:
    """The SHA-256 that a token is found by."""
    # A header or JSON body may hold lone surrogates; they must not raise.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def bearer_token(authorization: str | None) -> str | None:
    """The token of a bearer header (RFC 6750, section 2.1); the scheme's case does not matter."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
