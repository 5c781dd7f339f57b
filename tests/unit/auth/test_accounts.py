from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deltadatabase.auth.account_file import AccountFile, StoredSession
from deltadatabase.auth.accounts import SESSIONS_PER_KEY_MAX, Accounts
from deltadatabase.auth.policy import Permission
from deltadatabase.auth.throttle import FAILURES_MAX, WINDOW_S
from deltadatabase.errors import (
    Invalid,
    NotFound,
    RateLimited,
    StartupError,
    StoreFull,
    Unauthenticated,
    Unavailable,
)

ADMIN_KEY = "the-admin-key-of-this-test"
START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


class FakeClock:
    def __init__(self) -> None:
        self.now_ms = START_MS

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000


class FakeRandom:
    """Never repeats itself, over restarts either."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, size: int, /) -> bytes:
        self._calls += 1
        return hashlib.shake_128(str(self._calls).encode()).digest(size)


Opener = Callable[..., Accounts]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "accounts.sqlite"


@pytest.fixture
def start(path: Path, clock: FakeClock) -> Iterator[Opener]:
    """Open the accounts; called again, it is a restart."""
    running: list[Accounts] = []
    random = FakeRandom()

    def open_accounts(*, admin_key: str | None = ADMIN_KEY, dev_mode: bool = False) -> Accounts:
        while running:
            running.pop().close()
        accounts = Accounts(
            path,
            clock=clock,
            random=random,
            admin_key=admin_key,
            client_ttl_s=24 * 3600.0,
            dev_mode=dev_mode,
        )
        running.append(accounts)
        return accounts

    yield open_accounts
    while running:
        running.pop().close()


@pytest.fixture
def accounts(start: Opener) -> Accounts:
    return start()


def shown(answer: object) -> Any:
    """An answer as a client gets it."""
    return msgspec.json.decode(msgspec.json.encode(answer))


def bearer(token: str) -> str:
    return f"Bearer {token}"


# Authentication


def test_the_admin_key_has_every_right(accounts: Accounts) -> None:
    admin = accounts.authenticate(bearer(ADMIN_KEY))
    assert (admin.client_id, admin.is_admin, admin.schemas) == ("admin", True, None)
    assert admin.permissions == frozenset(Permission)


@pytest.mark.parametrize("header", [f"bearer {ADMIN_KEY}", f"BEARER  {ADMIN_KEY} "])
def test_the_schemes_case_does_not_matter(accounts: Accounts, header: str) -> None:
    assert accounts.authenticate(header).is_admin


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (None, "missing"),
        ("", "missing"),
        ("Bearer", "missing"),
        ("Bearer ", "missing"),
        (f"Basic {ADMIN_KEY}", "missing"),
        (ADMIN_KEY, "missing"),
        ("Bearer wrong-token", "not accepted"),
        (f"Bearer {ADMIN_KEY}x", "not accepted"),
        ("Bearer \ud800", "not accepted"),
    ],
)
def test_without_a_valid_token_the_answer_says_what_to_do(
    accounts: Accounts, header: str | None, what: str
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        accounts.authenticate(header)
    assert "Authorization: Bearer" in caught.value.detail
    assert what in caught.value.detail
    assert "deltadb admin-key" in caught.value.detail
    assert ADMIN_KEY not in caught.value.detail
    assert "wrong-token" not in caught.value.detail


@pytest.mark.parametrize("admin_key", [None, ""])
def test_without_an_admin_key_nobody_is_admin(start: Opener, admin_key: str | None) -> None:
    accounts = start(admin_key=admin_key)
    for header in (None, "Bearer ", "Bearer None"):
        with pytest.raises(Unauthenticated):
            accounts.authenticate(header)


def test_wrong_bearers_are_never_throttled(accounts: Accounts) -> None:
    for _ in range(3 * FAILURES_MAX):
        with pytest.raises(Unauthenticated):
            accounts.authenticate(bearer("wrong"))


# Keys


def test_a_key_works_at_once_and_carries_its_rights(accounts: Accounts) -> None:
    created = accounts.create_key("ada", ["write", "read", "read"], None, ["chat.*"])
    principal = accounts.authenticate(bearer(created.secret))
    assert principal.client_id == "ada"
    assert principal.permissions == {Permission.READ, Permission.WRITE}
    assert (principal.is_admin, principal.schemas, principal.key_id) == (False, ("chat.*",), created.id)


def test_answers_have_the_documented_fields(accounts: Accounts) -> None:
    created = accounts.create_key("ada", ["write", "read"], "24h")
    assert created.secret.startswith("dk_")
    assert shown(created) == {
        "id": created.id,
        "name": "ada",
        "secret": created.secret,
        "permissions": ["read", "write"],
        "created_at": "2023-11-14T22:13:20.000Z",
        "expires_at": "2023-11-15T22:13:20.000Z",
    }
    assert shown(accounts.list_keys()) == [
        {
            "id": created.id,
            "name": "ada",
            "key_hash": hashlib.sha256(created.secret.encode()).hexdigest(),
            "permissions": ["read", "write"],
            "created_at": "2023-11-14T22:13:20.000Z",
            "expires_at": "2023-11-15T22:13:20.000Z",
            "last_used_at": None,
            "enabled": True,
        }
    ]
    session = accounts.login(created.secret, None, "127.0.0.1")
    assert shown(session) == {
        "token": session.token,
        "client_id": "ada",
        "expires_at": "2023-11-15T22:13:20.000Z",
        "permissions": ["read", "write"],
    }


def test_a_key_without_expiry_says_null_and_a_limited_one_its_schemas(accounts: Accounts) -> None:
    created = accounts.create_key("ada", ["read"], "", ["chat.*"])
    assert shown(created)["expires_at"] is None
    (listed,) = shown(accounts.list_keys())
    assert (listed["expires_at"], listed["schemas"]) == (None, ["chat.*"])


def test_a_key_with_the_permission_admin_is_admin(accounts: Accounts) -> None:
    created = accounts.create_key("root", ["admin"])
    assert accounts.authenticate(bearer(created.secret)).is_admin


def test_an_expired_key_is_refused_and_listed_as_disabled(accounts: Accounts, clock: FakeClock) -> None:
    created = accounts.create_key("ada", ["read"], "1h")
    clock.now_ms += HOUR_MS - 1
    accounts.authenticate(bearer(created.secret))
    clock.now_ms += 1
    with pytest.raises(Unauthenticated):
        accounts.authenticate(bearer(created.secret))
    with pytest.raises(Unauthenticated):
        accounts.login(created.secret, None, "127.0.0.1")
    assert [key.enabled for key in accounts.list_keys()] == [False]


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "a\nb", "a\x00b", "\ud800"])
def test_unusable_names_are_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(Invalid, match="name"):
        accounts.create_key(name, ["read"])


@pytest.mark.parametrize("permissions", [[], ["delete"], ["read", "root"], ["READ"], [""]])
def test_unusable_permissions_are_refused(accounts: Accounts, permissions: list[str]) -> None:
    with pytest.raises(Invalid, match="permissions"):
        accounts.create_key("ada", permissions)


@pytest.mark.parametrize("expires_in", ["0", "0s", "-1h", "soon", "24", "1h-2h", "9" * 30 + "d"])
def test_unusable_expiries_are_refused(accounts: Accounts, expires_in: str) -> None:
    with pytest.raises(Invalid, match="expires_in"):
        accounts.create_key("ada", ["read"], expires_in)
    assert accounts.list_keys() == []


@pytest.mark.parametrize("schemas", [[], [""], ["a/b"], ["a,b"], ["x" * 101], ["a"] * 101, ["chat\n"]])
def test_unusable_schema_patterns_are_refused(accounts: Accounts, schemas: list[str]) -> None:
    with pytest.raises(Invalid, match="schemas"):
        accounts.create_key("ada", ["read"], None, schemas)


def test_an_admin_key_cannot_be_limited(accounts: Accounts) -> None:
    with pytest.raises(Invalid):
        accounts.create_key("root", ["admin"], None, ["chat.*"])


def test_deleting_a_key_ends_it_and_its_sessions_alone(accounts: Accounts) -> None:
    doomed, kept = (accounts.create_key(name, ["read"]) for name in ("doomed", "kept"))
    tokens = [accounts.login(key.secret, None, "127.0.0.1").token for key in (doomed, doomed, kept)]
    accounts.delete_key(doomed.id)
    for token in (doomed.secret, *tokens[:2]):
        with pytest.raises(Unauthenticated):
            accounts.authenticate(bearer(token))
    for token in (kept.secret, tokens[2]):
        accounts.authenticate(bearer(token))
    assert [key.id for key in accounts.list_keys()] == [kept.id]
    with pytest.raises(NotFound):
        accounts.delete_key(doomed.id)


def test_a_deletion_is_on_disk_before_it_returns(accounts: Accounts, path: Path, tmp_path: Path) -> None:
    created = accounts.create_key("ada", ["read"])
    accounts.login(created.secret, None, "127.0.0.1")
    accounts.delete_key(created.id)
    # What a crash right now would leave behind: the file and its log, copied without closing.
    copy = tmp_path / "crashed.sqlite"
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM keys").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (0,)


def test_what_is_not_on_disk_is_not_in_force(accounts: Accounts) -> None:
    created = accounts.create_key("ada", ["read"])
    accounts.close()
    for change in (
        lambda: accounts.create_key("eve", ["read"]),
        lambda: accounts.delete_key(created.id),
        lambda: accounts.login(created.secret, None, "127.0.0.1"),
    ):
        with pytest.raises(Unavailable):
            change()
    assert [key.name for key in accounts.list_keys()] == ["ada"]
    accounts.authenticate(bearer(created.secret))


def test_a_key_deleted_during_its_login_opens_no_session(path: Path, clock: FakeClock) -> None:
    during_login: list[Callable[[], None]] = []
    random = FakeRandom()

    def interrupted(size: int, /) -> bytes:
        while during_login:
            during_login.pop()()
        return random(size)

    accounts = Accounts(
        path, clock=clock, random=interrupted, admin_key=None, client_ttl_s=60.0, dev_mode=False
    )
    with closing(accounts):
        created = accounts.create_key("ada", ["read"])
        during_login.append(lambda: accounts.delete_key(created.id))
        with pytest.raises(Unauthenticated):
            accounts.login(created.secret, None, "127.0.0.1")
        assert accounts.list_keys() == []


# Sessions


def test_a_session_has_the_rights_of_its_key(accounts: Accounts) -> None:
    created = accounts.create_key("ada", ["read"], None, ["chat.*"])
    session = accounts.login(created.secret, None, "127.0.0.1")
    assert accounts.authenticate(bearer(session.token)) == accounts.authenticate(bearer(created.secret))
    admin = accounts.login(ADMIN_KEY, "ignored", "127.0.0.1")
    assert (admin.client_id, admin.permissions) == ("admin", tuple(Permission))
    assert accounts.authenticate(bearer(admin.token)).is_admin


def test_a_session_ends_after_its_time(accounts: Accounts, clock: FakeClock) -> None:
    token = accounts.login(ADMIN_KEY, None, "127.0.0.1").token
    clock.now_ms += 24 * HOUR_MS - 1
    accounts.authenticate(bearer(token))
    clock.now_ms += 1
    with pytest.raises(Unauthenticated):
        accounts.authenticate(bearer(token))


def test_a_session_does_not_outlive_its_key(accounts: Accounts, clock: FakeClock) -> None:
    created = accounts.create_key("ada", ["read"], "1h")
    session = accounts.login(created.secret, None, "127.0.0.1")
    assert session.expires_at == created.expires_at
    clock.now_ms += HOUR_MS
    with pytest.raises(Unauthenticated):
        accounts.authenticate(bearer(session.token))


def test_a_session_token_opens_no_further_session(accounts: Accounts) -> None:
    created = accounts.create_key("ada", ["read"])
    for key in (created.secret, ADMIN_KEY):
        token = accounts.login(key, None, "127.0.0.1").token
        with pytest.raises(Unauthenticated):
            accounts.login(token, None, "127.0.0.1")


def test_a_keys_oldest_sessions_end_when_there_are_too_many(start: Opener, path: Path) -> None:
    accounts = start()
    ada, other = (accounts.create_key(name, ["read"]) for name in ("ada", "other"))
    others = accounts.login(other.secret, None, "127.0.0.1").token
    accounts.close()
    tokens = [f"ds_{number}" for number in range(SESSIONS_PER_KEY_MAX)]
    with closing(AccountFile(path)) as file:
        file.replace_sessions(
            added=[
                StoredSession(
                    hash=hashlib.sha256(token.encode()).digest(),
                    issuer=ada.id,
                    binding=b"",
                    client_id="ada",
                    expires_ms=START_MS + 1000 + number,
                )
                for number, token in enumerate(tokens)
            ]
        )
    accounts = start()
    for _ in range(2):
        for token in tokens:
            accounts.authenticate(bearer(token))
        tokens.append(accounts.login(ada.secret, None, "127.0.0.1").token)
        with pytest.raises(Unauthenticated):
            accounts.authenticate(bearer(tokens.pop(0)))
    accounts.authenticate(bearer(others))


@pytest.mark.parametrize(("key", "client_id"), [(None, None), ("", ""), ("", None), (None, "")])
def test_a_login_needs_a_key(accounts: Accounts, key: str | None, client_id: str | None) -> None:
    with pytest.raises(Invalid):
        accounts.login(key, client_id, "127.0.0.1")


def test_a_client_id_alone_opens_nothing_outside_dev_mode(accounts: Accounts) -> None:
    with pytest.raises(Unauthenticated):
        accounts.login(None, "ada", "127.0.0.1")


# Throttling


def test_failed_logins_of_an_address_are_throttled(accounts: Accounts, clock: FakeClock) -> None:
    for number in range(FAILURES_MAX):
        with pytest.raises(Unauthenticated):
            accounts.login(f"{number:08}-wrong", None, "10.0.0.1")
        clock.now_ms += 1000
    with pytest.raises(RateLimited) as caught:
        accounts.login("something-else", None, "10.0.0.1")
    assert caught.value.retry_after_s == WINDOW_S - FAILURES_MAX
    with pytest.raises(Unauthenticated):
        accounts.login("something-else", None, "10.0.0.2")
    clock.now_ms += round((WINDOW_S - FAILURES_MAX) * 1000)
    with pytest.raises(Unauthenticated):
        accounts.login("something-else", None, "10.0.0.1")


def test_failed_logins_with_one_key_prefix_are_throttled(accounts: Accounts) -> None:
    for number in range(FAILURES_MAX):
        with pytest.raises(Unauthenticated):
            accounts.login(f"dk_abcde{number}", None, f"10.0.0.{number}")
    with pytest.raises(RateLimited):
        accounts.login("dk_abcdeXYZ", None, "10.1.1.1")
    with pytest.raises(Unauthenticated):
        accounts.login("dk_other", None, "10.1.1.1")


def test_a_good_key_is_not_slowed_by_the_failures_of_others(accounts: Accounts) -> None:
    for _ in range(2 * FAILURES_MAX):
        with pytest.raises((Unauthenticated, RateLimited)):
            accounts.login(ADMIN_KEY[:-1], None, "10.0.0.1")
    assert accounts.login(ADMIN_KEY, None, "10.0.0.1").client_id == "admin"


# Restarts


def test_keys_and_sessions_survive_a_restart(start: Opener) -> None:
    accounts = start()
    created = accounts.create_key("ada", ["read"], "7d", ["chat.*", "users"])
    tokens = [accounts.login(key, None, "127.0.0.1").token for key in (created.secret, ADMIN_KEY)]
    before = [accounts.authenticate(bearer(token)) for token in (created.secret, *tokens)]
    listed = accounts.list_keys()
    accounts = start()
    assert [accounts.authenticate(bearer(token)) for token in (created.secret, *tokens)] == before
    assert accounts.list_keys() == listed
    accounts.delete_key(created.id)
    accounts = start()
    for token in (created.secret, tokens[0]):
        with pytest.raises(Unauthenticated):
            accounts.authenticate(bearer(token))
    accounts.authenticate(bearer(tokens[1]))


@pytest.mark.parametrize("admin_key", ["another-admin-key", None])
def test_another_admin_key_ends_the_old_ones_sessions(start: Opener, admin_key: str | None) -> None:
    token = start().login(ADMIN_KEY, None, "127.0.0.1").token
    for accounts in (start(admin_key=admin_key), start()):
        with pytest.raises(Unauthenticated):
            accounts.authenticate(bearer(token))


def test_sessions_that_ended_meanwhile_are_dropped_from_the_file(
    start: Opener, clock: FakeClock, path: Path
) -> None:
    start().login(ADMIN_KEY, None, "127.0.0.1")
    clock.now_ms += 24 * HOUR_MS
    start().close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (0,)


# Dev mode


@pytest.mark.parametrize("header", [None, "Bearer unknown", "Basic x"])
def test_dev_mode_gives_full_rights_to_anybody(start: Opener, header: str | None) -> None:
    principal = start(admin_key=None, dev_mode=True).authenticate(header)
    assert (principal.client_id, principal.is_admin) == ("dev", True)


def test_dev_mode_opens_sessions_by_client_id(start: Opener) -> None:
    accounts = start(admin_key=None, dev_mode=True)
    session = accounts.login(None, "ada", "127.0.0.1")
    assert (session.client_id, session.permissions) == ("ada", (Permission.READ, Permission.WRITE))
    principal = accounts.authenticate(bearer(session.token))
    assert (principal.client_id, principal.is_admin) == ("ada", False)
    with pytest.raises(Invalid):
        accounts.login(None, "a\nb", "127.0.0.1")
    with pytest.raises(Unauthenticated):
        accounts.login("wrong", None, "127.0.0.1")
    restarted = start(admin_key=None, dev_mode=True)
    assert restarted.authenticate(bearer(session.token)).client_id == "ada"


def test_dev_sessions_end_with_dev_mode(start: Opener) -> None:
    token = start(admin_key=None, dev_mode=True).login(None, "ada", "127.0.0.1").token
    with pytest.raises(Unauthenticated):
        start().authenticate(bearer(token))


def test_dev_mode_and_an_admin_key_exclude_each_other(start: Opener) -> None:
    with pytest.raises(StartupError) as caught:
        start(admin_key=ADMIN_KEY, dev_mode=True)
    assert caught.value.code == "bad_flag"
    assert ADMIN_KEY not in caught.value.detail


# Secrets


def test_text_forms_hide_secrets(accounts: Accounts) -> None:
    created = accounts.create_key("ada", ["read"])
    session = accounts.login(created.secret, None, "127.0.0.1")
    text = "".join(map(repr, (created, session, accounts, accounts.list_keys()))) + f"{created}{session}"
    assert created.secret not in text
    assert session.token not in text


def test_no_token_is_in_the_file(accounts: Accounts, path: Path) -> None:
    created = accounts.create_key("ada", ["read"])
    session = accounts.login(created.secret, None, "127.0.0.1")
    accounts.login(ADMIN_KEY, None, "127.0.0.1")
    accounts.close()
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert hashlib.sha256(created.secret.encode()).digest() in stored
    for secret in (created.secret, session.token, ADMIN_KEY):
        assert secret.encode() not in stored
    assert hashlib.sha256(ADMIN_KEY.encode()).digest() not in stored


# Last use


def used(accounts: Accounts) -> list[str | None]:
    return [key.last_used_at for key in accounts.list_keys()]


def on_disk(path: Path) -> list[int | None]:
    """What another connection could read; the owner's lock is exclusive, so look at a copy."""
    copy = path.with_suffix(".copy")
    for suffix in ("", "-wal"):
        source = Path(f"{path}{suffix}")
        if source.exists():
            Path(f"{copy}{suffix}").write_bytes(source.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        return [row[0] for row in connection.execute("SELECT last_used_ms FROM keys ORDER BY rowid")]


def test_the_list_tells_when_a_key_or_its_session_was_last_presented(
    accounts: Accounts, clock: FakeClock
) -> None:
    created = accounts.create_key("ada", ["read"])
    accounts.create_key("idle", ["read"])
    assert used(accounts) == [None, None]
    accounts.authenticate(bearer(created.secret))
    assert used(accounts) == ["2023-11-14T22:13:20.000Z", None]
    clock.now_ms += 1000
    token = accounts.login(created.secret, None, "").token
    clock.now_ms += 1000
    accounts.authenticate(bearer(token))
    assert used(accounts) == ["2023-11-14T22:13:22.000Z", None]
    with pytest.raises(Unauthenticated):
        accounts.authenticate(bearer(created.secret + "x"))
    assert used(accounts) == ["2023-11-14T22:13:22.000Z", None]


def test_a_request_writes_nothing_and_the_last_use_is_saved_later(
    accounts: Accounts, path: Path, clock: FakeClock
) -> None:
    created = accounts.create_key("ada", ["read"])
    accounts.authenticate(bearer(created.secret))
    assert on_disk(path) == [None]
    accounts.save_last_used()
    assert on_disk(path) == [START_MS]
    changes = accounts._file._connection.total_changes
    accounts.save_last_used()
    assert accounts._file._connection.total_changes == changes


def test_the_last_use_survives_a_restart(start: Opener, clock: FakeClock) -> None:
    accounts = start()
    created = accounts.create_key("ada", ["read"])
    clock.now_ms += 5000
    accounts.authenticate(bearer(created.secret))
    assert used(start()) == ["2023-11-14T22:13:25.000Z"]


def test_a_failing_disk_loses_the_last_use_and_nothing_else(start: Opener) -> None:
    accounts = start()
    created = accounts.create_key("ada", ["read"])
    accounts.authenticate(bearer(created.secret))
    accounts._file._connection.execute("PRAGMA query_only = 1").close()
    with pytest.raises(StoreFull):
        accounts.save_last_used()
    assert used(accounts) == ["2023-11-14T22:13:20.000Z"]
    accounts.close()
    restarted = start()
    assert used(restarted) == [None]
    restarted.authenticate(bearer(created.secret))


# A key's own rate


def allowed(accounts: Accounts, token: str, tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            accounts.authenticate(bearer(token))
        except RateLimited as exc:
            assert exc.retry_after_s is not None and 0 < exc.retry_after_s <= 1
        else:
            count += 1
    return count


def test_a_keys_own_rate_holds_for_it_and_all_its_sessions(accounts: Accounts, clock: FakeClock) -> None:
    created = accounts.create_key("ada", ["read"], rate_per_s=10)
    assert shown(created)["rate_per_s"] == shown(accounts.list_keys())[0]["rate_per_s"] == 10
    one, other = (accounts.login(created.secret, None, "").token for _ in range(2))
    clock.now_ms += 1000
    assert (
        allowed(accounts, one, 4) + allowed(accounts, other, 4) + allowed(accounts, created.secret, 4) == 10
    )
    with pytest.raises(RateLimited):
        accounts.login(created.secret, None, "")
    clock.now_ms += 300
    assert allowed(accounts, other, 9) == 3
    clock.now_ms += 3_600_000
    assert allowed(accounts, other, 99) == 10


def test_a_rate_slows_nobody_else(accounts: Accounts) -> None:
    slow, free = accounts.create_key("slow", ["read"], rate_per_s=1), accounts.create_key("free", ["read"])
    twin = accounts.create_key("twin", ["read"], rate_per_s=1)
    assert allowed(accounts, slow.secret, 5) == 1
    assert allowed(accounts, twin.secret, 5) == 1
    assert allowed(accounts, free.secret, 50) == allowed(accounts, ADMIN_KEY, 50) == 50


def test_a_rate_holds_after_a_restart_too(start: Opener, clock: FakeClock) -> None:
    accounts = start()
    created = accounts.create_key("ada", ["read"], rate_per_s=2)
    token = accounts.login(created.secret, None, "").token
    accounts = start()
    assert allowed(accounts, token, 5) == 2
    assert shown(accounts.list_keys())[0]["rate_per_s"] == 2


def test_asking_again_of_a_counted_request_is_not_counted(accounts: Accounts) -> None:
    created = accounts.create_key("ada", ["read"], rate_per_s=1)
    accounts.authenticate(bearer(created.secret))
    for _ in range(5):
        assert accounts.confirm(bearer(created.secret)).key_id == created.id


@pytest.mark.parametrize("rate", [0, -1, 100_001, 10**30])
def test_a_rate_that_makes_no_sense_is_refused(accounts: Accounts, rate: int) -> None:
    with pytest.raises(Invalid):
        accounts.create_key("ada", ["read"], rate_per_s=rate)
    assert accounts.list_keys() == []


def test_an_unlimited_key_says_nothing_of_a_rate(accounts: Accounts) -> None:
    assert "rate_per_s" not in shown(accounts.create_key("ada", ["read"]))
    assert "rate_per_s" not in shown(accounts.list_keys())[0]


# The end of a key is final


def test_a_deleted_or_expired_admin_key_changes_nothing_any_more(
    accounts: Accounts, clock: FakeClock
) -> None:
    deleted, expiring = accounts.create_key("d", ["admin"]), accounts.create_key("e", ["admin"], "1h")
    both = [accounts.authenticate(bearer(key.secret)) for key in (deleted, expiring)]
    victim = accounts.create_key("victim", ["read"], by=both[0])
    accounts.delete_key(deleted.id)
    clock.now_ms += HOUR_MS
    for principal in both:
        with pytest.raises(Unauthenticated):
            accounts.create_key("heir", ["admin"], by=principal)
        with pytest.raises(Unauthenticated):
            accounts.delete_key(victim.id, by=principal)
    assert [key.name for key in accounts.list_keys()] == ["e", "victim"]
    admin = accounts.authenticate(bearer(ADMIN_KEY))
    accounts.delete_key(victim.id, by=admin)


def test_asking_again_finds_a_key_gone(accounts: Accounts) -> None:
    created = accounts.create_key("ada", ["read"])
    token = accounts.login(created.secret, None, "").token
    accounts.delete_key(created.id)
    for gone in (created.secret, token, None, "x"):
        with pytest.raises(Unauthenticated):
            accounts.confirm(bearer(gone) if gone else None)


def test_one_ipv6_network_is_one_source_of_failed_logins(accounts: Accounts) -> None:
    for number in range(FAILURES_MAX):
        with pytest.raises(Unauthenticated):
            accounts.login(f"{number}-wrong", None, f"2001:db8::{number:x}")
    with pytest.raises(RateLimited):
        accounts.login("another", None, "2001:db8::ffff")
    with pytest.raises(Unauthenticated):
        accounts.login("another", None, "2001:db8:0:1::1")


# A file of version 1


def test_a_file_of_version_1_keeps_its_keys_and_sessions(path: Path, start: Opener) -> None:
    path.write_bytes((Path(__file__).parents[2] / "vectors" / "accounts-v1.db").read_bytes())
    ada, ops, session, admin_session = (
        "dk_Ah1WIj-rQJPZaRMdLPcdckFtEaoNhdXNNXR101C02IA",
        "dk_B2lbCZImvJSvFyKbZCIeagTigpKt5wgy-I3GhktcpMk",
        "ds_Ypls2DwXh69YC_L4bo3sWUJ7z4U5NIV7fcPVyTM3aYk",
        "ds_CIU-0R_SRc2Ebsnufxeks90ety1JYJDiPhyiacSbAfY",
    )
    for _ in range(2):
        accounts = start(admin_key="the-admin-key-of-this-test")
        assert accounts.authenticate(bearer(ada)).schemas == ("chat.*", "users")
        assert accounts.authenticate(bearer(ops)).is_admin
        assert accounts.authenticate(bearer(session)).key_id == "6ae7946fa77c68d6"
        assert accounts.authenticate(bearer(admin_session)).key_id == "admin"
    assert used(accounts) == ["2023-11-14T22:13:20.000Z"] * 2
    limited = accounts.create_key("new", ["read"], rate_per_s=3)
    accounts = start(admin_key="the-admin-key-of-this-test")
    assert shown(accounts.list_keys())[2]["rate_per_s"] == 3
    assert accounts.authenticate(bearer(limited.secret)).client_id == "new"
