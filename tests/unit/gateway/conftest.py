from collections.abc import Callable, Iterator

import pytest

from deltadatabase.auth.accounts import Accounts
from deltadatabase.clock import system_random
from deltadatabase.gateway.app import GatewayOptions, create_app
from deltadatabase.gateway.following import Following
from deltadatabase.gateway.used_keys import UsedKeys
from unit.gateway.rest_fakes import ADMIN_KEY, Client, CountingRandom, FakeDatabase, FeedSource, TestClock

MakeClient = Callable[..., Client]


@pytest.fixture(scope="session")
def rest_database() -> FakeDatabase:
    return FakeDatabase()


@pytest.fixture(scope="session")
def rest_clock() -> TestClock:
    return TestClock()


@pytest.fixture(scope="session")
def rest_accounts(
    tmp_path_factory: pytest.TempPathFactory, rest_clock: TestClock
) -> Iterator[list[Accounts]]:
    """Those of an ordinary and of a dev-mode gateway."""
    folder = tmp_path_factory.mktemp("accounts")
    both = [
        Accounts(
            folder / f"accounts-{dev_mode}",
            clock=rest_clock,
            random=system_random,
            admin_key=None if dev_mode else ADMIN_KEY,
            client_ttl_s=3600.0,
            dev_mode=dev_mode,
        )
        for dev_mode in (False, True)
    ]
    yield both
    for accounts in both:
        accounts.close()


@pytest.fixture(scope="session")
def rest_used_keys() -> Iterator[UsedKeys]:
    used = UsedKeys()
    yield used
    used.close()


@pytest.fixture(scope="session")
def rest_clients(
    rest_database: FakeDatabase,
    rest_accounts: list[Accounts],
    rest_clock: TestClock,
    rest_used_keys: UsedKeys,
) -> MakeClient:
    """Applications are built once for each set of options: that takes longer than a test may."""
    built: dict[tuple[tuple[str, object], ...], Client] = {}

    def make(**options: object) -> Client:
        chosen = tuple(sorted(options.items()))
        if chosen not in built:
            settings = GatewayOptions(**{"version": "1.2.3", "body_bytes_max": 1000, **options})  # type: ignore[arg-type]
            source = FeedSource(rest_database, rest_clock)
            following = Following(source, source, lambda: "d1", clock=rest_clock, random=CountingRandom())
            database, accounts = rest_database, rest_accounts[settings.dev_mode]
            app = create_app(
                database,
                database,
                database,
                database,
                database.rotation,
                accounts,
                settings,
                clock=rest_clock,
                random=CountingRandom(),
                following=following,
                used_keys=rest_used_keys,
            )
            built[chosen] = Client(app)
        return built[chosen]

    return make


@pytest.fixture
def database(
    rest_database: FakeDatabase,
    rest_accounts: list[Accounts],
    rest_clock: TestClock,
    rest_used_keys: UsedKeys,
) -> FakeDatabase:
    """The database, empty, with accounts as new."""
    rest_database.reset()
    rest_used_keys._connection.execute("DELETE FROM uses")
    rest_clock.forget_failed_logins()
    for accounts in rest_accounts:
        for key in accounts.list_keys():
            accounts.delete_key(key.id)
    return rest_database


@pytest.fixture
def make_client(rest_clients: MakeClient, database: FakeDatabase) -> MakeClient:
    """Gives a client of the whole REST application; options as in ``GatewayOptions``."""
    return rest_clients


@pytest.fixture
def client(make_client: MakeClient) -> Client:
    return make_client()
