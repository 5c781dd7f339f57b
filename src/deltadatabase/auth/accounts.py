"""API keys and sessions: who presents which token, for how long.

Everything that a request needs is in memory, so authentication is one digest and one
dictionary lookup; every change is in the file before it takes effect (``account_file``).
Tokens have 256 random bits, so they are found by their plain SHA-256: there is nothing to
guess, and a lookup by digest tells nothing about a token through its timing.
"""

from __future__ import annotations

import base64
import hmac
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from deltadatabase.auth.account_file import AccountFile, StoredKey, StoredSession
from deltadatabase.auth.contract import (
    CreatedKey,
    KeyInfo,
    Session,
    checked_name,
    checked_permissions,
    checked_rate,
    checked_schemas,
    created_key,
    in_order,
    key_info,
    lifetime_ms,
)
from deltadatabase.auth.grants import (
    ADMIN,
    ADMIN_GRANT,
    ADMIN_PRINCIPAL,
    DEV,
    DEV_GRANT,
    Grant,
    bearer_token,
    dev_client,
    digest_of,
)
from deltadatabase.auth.policy import Permission, Principal
from deltadatabase.auth.rate import RateLimit
from deltadatabase.auth.throttle import FailureThrottle
from deltadatabase.clock import Clock, Random, rfc3339
from deltadatabase.errors import (
    DeltaError,
    Invalid,
    NotFound,
    RateLimited,
    StartupError,
    Unauthenticated,
)
from deltadatabase.telemetry.flood import source_of
from deltadatabase.telemetry.logging import get_logger

SESSIONS_PER_KEY_MAX: Final = 1000
"""More open sessions of one key end its oldest."""

_KEY_PREFIX_CHARACTERS: Final = 8

_log = get_logger(__name__)


@final
class Accounts:
    """Issues, verifies and ends API keys and sessions.

    Safe to call from several threads. ``authenticate``, ``list_keys`` and a refused ``login``
    do no I/O; a successful ``login``, ``create_key``, ``delete_key`` and ``save_last_used`` wait
    for the disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        random: Random,
        admin_key: str | None,
        client_ttl_s: float,
        dev_mode: bool,
    ) -> None:
        """Open the accounts file, or create it in an existing directory.

        Args:
            path: the SQLite file.
            clock: wall time for expiry, monotonic time for throttling.
            random: source of tokens and ids.
            admin_key: the key with every right; None: there is none.
            client_ttl_s: life of a session, seconds.
            dev_mode: give full rights to whoever presents no known token.

        Raises:
            StartupError: the file is damaged or in use; or dev mode with an admin key.
        """
        if dev_mode and admin_key:
            raise StartupError("dev mode cannot be used together with an admin key", code="bad_flag")
        self._clock = clock
        self._random = random
        self._client_ttl_ms = round(client_ttl_s * 1000)
        self._dev_mode = dev_mode
        self._admin_hash = digest_of(admin_key) if admin_key else None
        self._throttle = FailureThrottle()
        self._lock = threading.Lock()
        self._keys: dict[str, StoredKey] = {}
        self._grants: dict[bytes, Grant] = {}
        # Wall time at which each issuer's tokens were last presented, and what the file says of it.
        self._used_ms: dict[str, int] = {}
        self._saved_ms: dict[str, int] = {}
        # Hashes of each issuer's sessions, the one that ends first in front.
        self._issued: dict[str, dict[bytes, None]] = {}
        self._file = AccountFile(path)
        try:
            self._load()
        except BaseException:
            self._file.close()
            raise

    def authenticate(self, authorization: str | None) -> Principal:
        """Find out who makes a request with this ``Authorization`` header.

        Raises:
            Unauthenticated: outside dev mode, without a valid bearer token.
            RateLimited: the key and its sessions made more requests than it may.
        """
        grant = self._presented(authorization)
        if grant.rate is not None:
            self._count(grant.rate)
        return grant.principal

    def confirm(self, authorization: str | None) -> Principal:
        """Find out the same of a request that has been counted, and perhaps waited since.

        Raises:
            Unauthenticated: the key or session has ended.
        """
        return self._presented(authorization).principal

    def _presented(self, authorization: str | None) -> Grant:
        token = bearer_token(authorization)
        if token is not None:
            grant = self._granted(digest_of(token))
            if grant is not None:
                return grant
        if self._dev_mode:
            return DEV_GRANT
        what = "missing" if token is None else "not accepted"
        raise Unauthenticated(
            f"the header `Authorization: Bearer <key>` is {what}; `deltadb admin-key` prints the admin key"
        )

    def login(self, key: str | None, client_id: str | None, address: str) -> Session:
        """Open a session for a key or, in dev mode, for a mere client id (read and write).

        Failures are counted by address (of IPv6, by its network of 64 bits) and by the key's
        first characters. A good key is accepted whatever others did from the same address.

        Raises:
            Invalid: neither ``key`` nor ``client_id``, or an unusable client id.
            Unauthenticated: the key is wrong or has expired.
            RateLimited: the key is wrong, as were 20 others within a minute; or it and its
                sessions made more requests than it may.
        """
        if key:
            digest = digest_of(key)
            grant = self._granted(digest)
            # A session token is no key: it must not prolong itself.
            if grant is None or digest in self._issued.get(grant.principal.key_id, ()):
                raise self._login_failure(key, address)
            if grant.rate is not None:
                self._count(grant.rate)
        elif not client_id:
            raise Invalid("a key is needed to log in")
        elif not self._dev_mode:
            raise Unauthenticated("a client id alone opens no session outside dev mode: a key is needed")
        else:
            principal = dev_client(checked_name(client_id, "client_id"))
            grant = Grant(principal, None)
        return self._open_session(grant)

    def create_key(
        self,
        name: str,
        permissions: Sequence[str],
        expires_in: str | None = None,
        schemas: Sequence[str] | None = None,
        rate_per_s: int | None = None,
        *,
        by: Principal | None = None,
    ) -> CreatedKey:
        """Issue an API key.

        Args:
            name: its holder, who appears as ``client_id``.
            permissions: at least one of read, write, admin.
            expires_in: a duration such as ``24h`` or ``7d``; None or "": it does not expire.
            schemas: patterns of schema ids it is limited to (``*``: any characters); None: all.
            rate_per_s: most requests a second of it and its sessions; None: no limit.
            by: who asks; nothing happens if that key has ended by now.

        Raises:
            Invalid: an argument is unusable.
            Unauthenticated: ``by`` has ended.
        """
        name = checked_name(name, "name")
        granted = checked_permissions(permissions)
        limited = None if schemas is None else checked_schemas(schemas, granted)
        rate = None if rate_per_s is None else checked_rate(rate_per_s)
        lives_ms = lifetime_ms(expires_in) if expires_in else None
        now_ms = self._clock.wall_ms()
        secret = "dk_" + self._token()
        key = StoredKey(
            id=self._random(8).hex(),
            name=name,
            hash=digest_of(secret),
            permissions=granted,
            schemas=limited,
            created_ms=now_ms,
            expires_ms=None if lives_ms is None else now_ms + lives_ms,
            rate_per_s=rate,
        )
        with self._lock:
            self._check_in_force(by)
            self._file.add_key(key)
            self._install_key(key)
        return created_key(key, secret)

    def list_keys(self) -> list[KeyInfo]:
        """All API keys, the oldest first; expired ones stay until they are deleted."""
        now_ms = self._clock.wall_ms()
        with self._lock:
            keys = list(self._keys.values())
            used_ms = dict(self._used_ms)
        return [key_info(key, used_ms.get(key.id), now_ms) for key in keys]

    def delete_key(self, key_id: str, *, by: Principal | None = None) -> None:
        """End a key and its sessions, on disk too, before this returns; ``by``: see ``create_key``.

        Raises:
            NotFound: there is no such key.
            Unauthenticated: ``by`` has ended.
        """
        with self._lock:
            self._check_in_force(by)
            key = self._keys.get(key_id)
            if key is None:
                raise NotFound("there is no key with this id")
            self._file.delete_key(key_id)
            del self._keys[key_id]
            for digest in (key.hash, *self._issued.pop(key_id, ())):
                self._grants.pop(digest, None)
            self._used_ms.pop(key_id, None)
            self._saved_ms.pop(key_id, None)

    def save_last_used(self) -> None:
        """Write down when keys were last used, in one transaction; nothing if none was.

        Raises:
            Unavailable, StoreFull: it could not be written, and will be by a later call.
        """
        with self._lock:
            changed = {
                key_id: used_ms
                for key_id in self._keys
                if (used_ms := self._used_ms.get(key_id)) is not None
                and used_ms != self._saved_ms.get(key_id)
            }
            if changed:
                self._file.set_last_used(changed)
                self._saved_ms.update(changed)

    def close(self) -> None:
        """Write down when keys were last used, if that can be, and give the accounts file free."""
        try:
            self.save_last_used()
        except DeltaError as exc:
            _log.warning("the last use of keys could not be written", error=exc)
        finally:
            with self._lock:
                self._file.close()

    def _load(self) -> None:
        """Take over what the file holds, and drop from it what is no longer valid."""
        keys, sessions = self._file.load()
        for key in keys:
            self._install_key(key)
        now_ms = self._clock.wall_ms()
        ended = []
        for session in sessions:
            principal = self._session_principal(session)
            if principal is None or session.expires_ms <= now_ms:
                ended.append(session.hash)
            else:
                self._install_session(session, principal)
        if ended:
            self._file.replace_sessions(ended=ended)

    def _session_principal(self, session: StoredSession) -> Principal | None:
        """Whose session this is; None when its key is gone or was changed, or dev mode ended."""
        if session.issuer == ADMIN:
            valid = hmac.compare_digest(session.binding, self._binding(ADMIN, session.hash))
            return ADMIN_PRINCIPAL if valid and self._admin_hash is not None else None
        if session.issuer == DEV:
            return dev_client(session.client_id) if self._dev_mode else None
        key = self._keys.get(session.issuer)
        return None if key is None else self._grants[key.hash].principal

    def _granted(self, digest: bytes) -> Grant | None:
        """What the token with this digest gives now."""
        if self._admin_hash is not None and hmac.compare_digest(digest, self._admin_hash):
            return ADMIN_GRANT
        grant = self._grants.get(digest)
        if grant is None:
            return None
        now_ms = self._clock.wall_ms()
        if grant.expired(now_ms):
            return None
        self._used_ms[grant.principal.key_id] = now_ms
        return grant

    def _count(self, rate: RateLimit) -> None:
        wait_s = rate.take(self._clock.monotonic_s())
        if wait_s > 0:
            raise RateLimited("this key's own limit of requests a second is used up", retry_after_s=wait_s)

    def _check_in_force(self, by: Principal | None) -> None:
        """Stop what a key asked for that ended while this waited for the lock: its end is final."""
        if by is None or by.key_id in (ADMIN, DEV):
            return
        key = self._keys.get(by.key_id)
        if key is None or self._grants[key.hash].expired(self._clock.wall_ms()):
            raise Unauthenticated("the key has ended")

    def _login_failure(self, key: str, address: str) -> RateLimited | Unauthenticated:
        sources = (f"address {source_of(address)}", f"key {key[:_KEY_PREFIX_CHARACTERS]}")
        now_s = self._clock.monotonic_s()
        with self._lock:
            wait_s = self._throttle.wait_s(sources, now_s)
            if wait_s > 0:
                return RateLimited("too many failed logins", retry_after_s=math.ceil(wait_s))
            self._throttle.add(sources, now_s)
        return Unauthenticated("the key is wrong or has expired")

    def _open_session(self, grant: Grant) -> Session:
        principal = grant.principal
        issuer = principal.key_id
        now_ms = self._clock.wall_ms()
        expires_ms = now_ms + self._client_ttl_ms
        if grant.expires_ms is not None:
            expires_ms = min(expires_ms, grant.expires_ms)
        token = "ds_" + self._token()
        digest = digest_of(token)
        session = StoredSession(
            hash=digest,
            issuer=issuer,
            binding=self._binding(issuer, digest),
            client_id=principal.client_id,
            expires_ms=expires_ms,
        )
        with self._lock:
            if issuer not in (ADMIN, DEV) and issuer not in self._keys:
                # Deleted since it was looked up: a session now would outlive it.
                raise Unauthenticated("the key is wrong or has expired")
            issued = self._issued.get(issuer, {})
            surplus = len(issued) + 1 - SESSIONS_PER_KEY_MAX
            ended = [
                other
                for index, other in enumerate(issued)
                if index < surplus or self._grants[other].expired(now_ms)
            ]
            self._file.replace_sessions(added=(session,), ended=ended)
            for other in ended:
                del issued[other], self._grants[other]
            self._install_session(session, principal)
        return Session(
            token=token,
            client_id=principal.client_id,
            expires_at=rfc3339(expires_ms),
            permissions=in_order(principal.permissions),
        )

    def _install_key(self, key: StoredKey) -> None:
        principal = Principal(
            client_id=key.name,
            permissions=frozenset(key.permissions),
            is_admin=Permission.ADMIN in key.permissions,
            schemas=key.schemas,
            key_id=key.id,
        )
        self._keys[key.id] = key
        rate = None if key.rate_per_s is None else RateLimit(key.rate_per_s)
        self._grants[key.hash] = Grant(principal, key.expires_ms, rate)
        if key.last_used_ms is not None:
            self._used_ms[key.id] = self._saved_ms[key.id] = key.last_used_ms

    def _install_session(self, session: StoredSession, principal: Principal) -> None:
        key = self._keys.get(session.issuer)
        rate = None if key is None else self._grants[key.hash].rate
        self._grants[session.hash] = Grant(principal, session.expires_ms, rate)
        self._issued.setdefault(session.issuer, {})[session.hash] = None

    def _binding(self, issuer: str, digest: bytes) -> bytes:
        """Tie the admin key's sessions to it: another admin key after a restart ends them."""
        if issuer != ADMIN or self._admin_hash is None:
            return b""
        return hmac.digest(self._admin_hash, digest, "sha256")

    def _token(self) -> str:
        return base64.urlsafe_b64encode(self._random(32)).decode().rstrip("=")
