from deltadatabase import errors
from unit.gateway.rest_fakes import Client, FakeDatabase


async def test_health_needs_neither_credentials_nor_the_store(client: Client, database: FakeDatabase) -> None:
    database.failure = errors.Unavailable("down")
    reply = await client("GET", "/health", key=None)
    assert (reply.status, reply.json()) == (200, {"status": "ok", "version": "1.2.3"})
    assert (await client("GET", "/livez", key=None)).json() == {"status": "ok"}


async def test_readiness_names_each_check(client: Client) -> None:
    reply = await client("GET", "/readyz", key=None)
    assert (reply.status, reply.json()["status"]) == (200, "ok")
    assert [check["name"] for check in reply.json()["checks"]] == ["workers", "master_key"]


async def test_readiness_says_which_check_failed(client: Client, database: FakeDatabase) -> None:
    database.ready = False
    reply = await client("GET", "/readyz", key=None)
    assert (reply.status, reply.json()["error"]) == (503, "wrong_master_key")
    assert [check["passed"] for check in reply.json()["checks"]] == [True, False]
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["retry-after"] == "1"
    assert reply.json()["request_id"] == reply.headers["x-request-id"]
