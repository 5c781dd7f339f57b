import asyncio
import json
import tracemalloc
from typing import Any

import msgspec
import pytest

from deltadatabase import limits
from deltadatabase.auth.accounts import Accounts
from deltadatabase.errors import Invalid, TooLarge
from deltadatabase.gateway.app import GatewayOptions, create_app
from deltadatabase.gateway.asgi import ASGIApp, Receive, Scope, Send
from deltadatabase.gateway.batch import lane_of, parse_batch, rounds
from deltadatabase.gateway.batching import Batches
from unit.gateway.conftest import MakeClient
from unit.gateway.rest_fakes import Client, CountingRandom, FakeDatabase, TestClock


def encoded(*requests: dict[str, Any], defaults: dict[str, Any] | None = None) -> bytes:
    batch: dict[str, Any] = {"requests": list(requests)}
    if defaults is not None:
        batch["defaults"] = defaults
    return json.dumps(batch).encode()


def test_what_a_request_does_not_say_the_defaults_do() -> None:
    body = b"""{"defaults": {"method": "put", "path": "/a", "body": 1,
                            "headers": {"If-Match": "x", "Accept": "y"}},
      "requests": [{}, {"path": "/b?c=%20", "headers": {"if-match": " z "}, "body": {"q":  1.50}},
                   {"method": "GET", "body": null}]}"""
    first, second, third = parse_batch(body)
    assert (first.method, first.target, bytes(first.body or b"")) == ("PUT", "/a", b"1")
    assert dict(first.headers) == {
        b"if-match": b"x",
        b"accept": b"y",
        b"content-type": b"application/json",
    }
    assert (second.target, bytes(second.body or b"")) == ("/b?c=%20", b'{"q":  1.50}')
    assert dict(second.headers)[b"if-match"] == b"z"
    assert (third.method, bytes(third.body or b"")) == ("GET", b"null")


HOSTILE = [
    b"", b"[]", b"{}", b'{"requests":{}}', b'{"requests":[]}', b'{"requests":[1]}', b'{"requests":[{}]}',
    b'{"requests":[{"path":1}]}', b'{"requests":[{"path":"/a"}],"secret":1}', b"\xff", b"[" * 100_000,
    b'{"requests":[{"path":"/a","secret":1}]}', b'{"requests":[{"path":"/a","headers":{"accept":1}}]}',
    b'{"requests":[{"path":"/a","body":' + b"[" * 100_000,
    b'{"requests":[{"path":"/a","headers":null}]}', b'{"requests":[{"path":null}]}',
    b'{"requests":[],"defaults":null}',
    *(
        encoded({"path": path})
        for path in (
            "", "a", "http://127.0.0.1/a", "//host/a", "/a b", "/a\r\nx: y", "/a#b", "/é", "/a\x00", "*",
            "/batch", "/batch/", "/batch?x", "/%62atch", "/import/a", "/export/a", "/changes/a?since=1",
            "/exp%6Frt/a", "/schema/a?dry_run=true&scan=true", "/schem%61s/a?sc%61n=true",
        )
    ),
    *(encoded({"path": "/a", "method": method}) for method in ("TRACE", "OPTIONS", "CONNECT", "", "G\r\nET")),
    *(
        encoded({"path": "/a", "headers": headers})
        for headers in (
            {"Host": "x"}, {"Content-Length": "1"}, {"Transfer-Encoding": "chunked"}, {"Authorization": "x"},
            {"Connection": "close"}, {"X-Forwarded-For": "1.2.3.4"}, {"Origin": "x"}, {"Expect": "x"},
            {"Accept": "a\r\nhost: b"}, {"Accept": "a\x00"}, {"Accept": "é"}, {"Accept: a\r\nx": "b"},
            {"": "x"}, {"If-Match": "a", "if-match": "b"}, {"Accept\x00": "a"}, {"Upgrade": "h2c"},
            {"Cookie": "a"},
        )
    ),
    encoded({"path": "/a"}, defaults={"headers": {"host": "x"}}),
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE)
def test_a_malformed_batch_is_refused_without_a_word_of_it(body: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        parse_batch(body)
    assert caught.value.code == "bad_batch"
    assert "secret" not in caught.value.detail
    assert (
        "request 0" in caught.value.detail
        or "defaults" in caught.value.detail
        or "holds" in caught.value.detail
    )


def test_a_batch_has_a_bounded_number_of_requests() -> None:
    assert len(parse_batch(encoded(*[{"path": "/a"}] * 100))) == 100
    with pytest.raises(TooLarge):
        parse_batch(b'{"requests": [' + b"{}," * 100 + b"{}]}")
    with pytest.raises(TooLarge):
        parse_batch(encoded({"path": "/a", "headers": {f"h{number}": "" for number in range(2000)}}))
    with pytest.raises(TooLarge):
        parse_batch(encoded({"path": "/a"}, defaults={"headers": {"accept": "x" * 17_000}}))
    with pytest.raises(TooLarge):
        parse_batch(encoded(*[{"path": "/a"}] * 101))


@pytest.mark.parametrize(
    ("method", "target", "lane"),
    [
        ("GET", "/entity/s?key=a", ("s", "a")),
        ("DELETE", "/entity/s?key=a%2Bb", ("s", "a+b")),
        ("PUT", "/entity/s", None),
        ("PUT", "/entity/s?key=a", None),
        ("GET", "/entity/s", None),
        ("GET", "/entity/s?key=%zz", None),
        ("PUT", "/entities/s/a%2Fb", ("s", "a/b")),
        ("PUT", "/entities/%73/%61", ("s", "a")),
        ("GET", "/entities/s", None),
        ("GET", "/entities/s/", None),
        ("GET", "/entities/s/a/b", None),
        ("GET", "/entities/s/%ff", None),
        ("GET", "/api/me", None),
    ],
)
def test_requests_of_one_entity_share_a_lane(method: str, target: str, lane: object) -> None:
    assert lane_of(method, target) == lane


def test_what_concerns_more_than_one_entity_is_a_round_of_its_own() -> None:
    a, b = ("s", "a"), ("s", "b")
    assert list(rounds([a, b, a, None, b, None, None, a])) == [
        [[0, 2], [1]],
        [[3]],
        [[4]],
        [[5]],
        [[6]],
        [[7]],
    ]
    assert list(rounds([])) == []


async def test_a_batch_is_answered_in_order(client: Client) -> None:
    reply = await client(
        "POST",
        "/batch",
        b'{"defaults":{"path":"/entity/chat?key=k"},"requests":['
        b'{"method":"PUT","path":"/entity/chat","body":{"k":{"x":  1.50}}},{},'
        b'{"headers":{"If-None-Match":"\\"1-aa\\""}},{"path":"/entity/chat?key=none"},'
        b'{"method":"HEAD"},{"method":"DELETE"},{},{"path":"/docs"},{"path":"/nothing"},'
        b'{"method":"PUT","path":"/entity/chat","body":{"k":1,"bad/key":2}},{"method":"PATCH"}]}',
    )
    assert reply.status == 200
    responses = reply.json()["responses"]
    statuses = [response["status"] for response in responses]
    assert statuses == [200, 200, 304, 404, 200, 200, 404, 200, 404, 400, 405]
    assert b'"body":{"x":  1.50}' in reply.body, "byte for byte"
    assert responses[0]["body"] == {"status": "ok", "versions": {"k": 1}}
    assert responses[0]["path"] == "/entity/chat"
    assert responses[1]["headers"]["etag"] == '"1-aa"'
    assert responses[2]["body"] is None
    assert responses[3]["body"]["error"] == "not_found"
    assert responses[4]["body"] is None
    assert responses[7]["body"].startswith("<!doctype html>")
    assert responses[9]["body"]["error"] == "invalid_key"
    assert responses[10]["headers"]["allow"] == "GET, HEAD, PUT, DELETE"
    outer = reply.headers["x-request-id"]
    assert [response["headers"]["x-request-id"] for response in responses] == [
        f"{outer}.{number}" for number in range(11)
    ]
    assert not {name for response in responses for name in response["headers"]} & {
        "connection",
        "content-length",
    }


async def test_resources_keep_their_conditions_and_names_in_a_batch(
    client: Client, database: FakeDatabase
) -> None:
    def write(method: str, body: object = None, **headers: str) -> dict[str, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return {"method": method, "path": "/entities/chat/k", "headers": named} | (
            {} if method == "DELETE" else {"body": body}
        )

    merge = "application/merge-patch+json"
    reply = await client(
        "POST",
        "/batch",
        encoded(
            write("PUT", {"a": 1}, if_none_match="*", idempotency_key="one"),
            write("PUT", {"a": 1}, if_none_match="*", idempotency_key="one"),
            write("PUT", {"a": 2}, if_none_match="*", idempotency_key="one"),
            write("PUT", {"a": 2}, if_match='"7-aa"'),
            write("PATCH", {"b": 2}, if_match='"1-aa"', content_type=merge, idempotency_key="two"),
            write("PATCH", {"b": 2}, if_match='"1-aa"', content_type=merge, idempotency_key="two"),
            write("DELETE", if_match='"1-aa"'),
            write("DELETE", if_match='"2-aa"', idempotency_key="three"),
            write("DELETE", if_match='"2-aa"', idempotency_key="three"),
            {"path": "/entities/chat/k"},
        ),
    )
    responses = reply.json()["responses"]
    assert [one["status"] for one in responses] == [201, 201, 422, 412, 200, 200, 412, 204, 204, 404]
    repeats = [at for at, one in enumerate(responses) if "idempotent-replayed" in one["headers"]]
    assert repeats == [1, 5, 8]
    assert responses[3]["headers"]["etag"] == '"1-aa"'
    assert [version for version, _ in database.history["chat", "k"]] == [1, 2, 3]


async def test_each_request_needs_its_own_right(client: Client) -> None:
    made = await client("POST", "/api/keys", b'{"name":"r","permissions":["read"],"schemas":["chat"]}')
    key = made.json()["secret"]
    body = encoded(
        {"path": "/entity/chat?key=a"},
        {"path": "/entity/other?key=a"},
        {"method": "PUT", "path": "/entity/chat", "body": {"a": 1}},
        {"path": "/api/keys"},
        {"path": "/api/me"},
    )
    reply = await client("POST", "/batch", body, key=key)
    assert [one["status"] for one in reply.json()["responses"]] == [404, 403, 403, 403, 200]
    for wrong in (None, "wrong"):
        assert (await client("POST", "/batch", body, key=wrong)).status == 401


async def test_a_keys_rate_counts_each_request(client: Client) -> None:
    made = await client("POST", "/api/keys", b'{"name":"r","permissions":["read"],"rate_per_s":5}')
    reply = await client("POST", "/batch", encoded(*[{"path": "/api/me"}] * 8), key=made.json()["secret"])
    assert [one["status"] for one in reply.json()["responses"]] == [200] * 4 + [429] * 4


async def test_nothing_of_a_malformed_batch_is_executed(client: Client, database: FakeDatabase) -> None:
    good = {"method": "PUT", "path": "/entity/chat", "body": {"a": 1}}
    for bad in ({"path": "/batch"}, {"path": "http://x/"}, {"path": "/a", "headers": {"authorization": "x"}}):
        reply = await client("POST", "/batch", encoded(good, bad))
        assert (reply.status, reply.json()["error"]) == (400, "bad_batch")
    assert not database.documents
    assert (await client("POST", "/batch", b'"' + b"x" * limits.BATCH_BODY_BYTES_MAX + b'"')).status == 413


@pytest.mark.parametrize("path", ["/%2e/batch", "/./batch", "/x/../batch", "/batch%2F", "/%2fbatch"])
async def test_no_spelling_gets_a_batch_into_a_batch(client: Client, path: str) -> None:
    inner = {"requests": [{"path": "/health"}]}
    reply = await client("POST", "/batch", encoded({"method": "POST", "path": path, "body": inner}))
    if reply.status == 200:
        assert reply.json()["responses"][0]["status"] in (400, 404)
    else:
        assert reply.status == 400


async def test_documents_of_the_limit_fit_and_larger_ones_are_refused_alone(make_client: MakeClient) -> None:
    client = make_client(body_bytes_max=100_000)
    requests = [
        {"method": "PUT", "path": "/entity/chat", "body": {"k": "x" * size}} for size in (99_000, 100_000)
    ]
    reply = await client("POST", "/batch", encoded(*requests * 50))
    assert [one["status"] for one in reply.json()["responses"]] == [200, 413] * 50


async def test_answers_that_are_too_large_together_are_left_out(make_client: MakeClient) -> None:
    client = make_client(body_bytes_max=limits.MIB)
    document = json.dumps("x" * (limits.MIB - 100)).encode()
    await client("PUT", "/entity/chat", b'{"k":%b}' % document)
    reply = await client("POST", "/batch", encoded(*[{"path": "/entity/chat?key=k"}] * 100))
    assert len(reply.body) < limits.BATCH_ANSWER_BYTES_MAX + limits.MIB
    responses = reply.json()["responses"]
    assert [one["status"] for one in responses] == [200] * 32 + [413] * 68
    assert responses[-1]["body"]["error"] == "too_large"


def scope() -> Scope:
    return {"type": "http", "headers": [(b"host", b"h"), (b"cookie", b"c")], "client": ("127.0.0.1", 1)}


class Recorder:
    """An application that notes what is under way at once."""

    def __init__(self, body: bytes = b"1") -> None:
        self.events: list[str] = []
        self.under_way: set[str] = set()
        self.together: set[frozenset[str]] = set()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.headers: list[Any] = []
        self.body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["method"] + scope["raw_path"].decode().rpartition("/")[2]
        self.headers.append(scope["headers"])
        self.events.append("+" + name)
        assert name not in self.under_way
        self.under_way.add(name)
        self.together.add(frozenset(self.under_way))
        for _ in range(3):
            await asyncio.sleep(0)
        await self.go_on.wait()
        self.under_way.discard(name)
        self.events.append("-" + name)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.body})


async def run(app: Recorder, *requests: dict[str, Any]) -> Any:
    batches = Batches()
    batches.serve_through(app)
    return msgspec.json.decode(await batches.run(parse_batch(encoded(*requests)), scope(), "r"))


async def test_entities_are_served_beside_each_other_and_everything_else_waits() -> None:
    app = Recorder()
    a, b = {"path": "/entities/s/a"}, {"path": "/entities/s/b"}
    await run(app, a, b, a | {"method": "PUT"}, {"path": "/entities/s"}, b | {"method": "PUT"})
    assert frozenset({"GETa", "GETb"}) in app.together
    assert app.events.index("-GETa") < app.events.index("+PUTa"), "one entity's requests keep their order"
    barrier = app.events.index("+GETs")
    assert {"-GETa", "-GETb", "-PUTa"} <= set(app.events[:barrier])
    assert app.events[barrier:] == ["+GETs", "-GETs", "+PUTb", "-PUTb"]
    assert all(b"cookie" not in dict(headers) and dict(headers)[b"host"] == b"h" for headers in app.headers)


async def test_a_bounded_number_is_under_way() -> None:
    app = Recorder()
    await run(app, *[{"path": f"/entities/s/{number}"} for number in range(100)])
    assert max(map(len, app.together)) == limits.BATCH_AT_ONCE_MAX


async def test_when_the_client_leaves_what_was_begun_ends() -> None:
    app = Recorder()
    app.go_on.clear()
    batches = Batches()
    batches.serve_through(app)
    requests = parse_batch(encoded(*[{"path": "/entities/s/a"}, {"path": "/entities/s/b"}] * 2))
    task = asyncio.create_task(batches.run(requests, scope(), "r"))
    while len(app.under_way) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    app.go_on.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert sorted(app.events) == ["+GETa", "+GETb", "-GETa", "-GETb"]


async def test_the_answer_of_a_write_that_does_not_fit_still_tells_that_it_was_done() -> None:
    app = Recorder(b"x" * (limits.BATCH_ANSWER_BYTES_MAX + 1))
    answer = await run(app, {"path": "/entities/s/a", "method": "PATCH"}, {"path": "/entities/s/a"})
    write, read = answer["responses"]
    assert (write["status"], write["body"], write["omitted"]) == (200, None, True)
    assert read["status"] == 413


async def test_an_answer_that_breaks_off_is_none() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"[1", "more_body": True})

    answer = await run(app, {"path": "/a"})  # type: ignore[arg-type]
    assert answer["responses"][0]["status"] == 503


async def test_each_request_passes_what_is_around_the_application(
    rest_accounts: list[Accounts], rest_clock: TestClock
) -> None:
    seen: list[str] = []

    def around(app: ASGIApp) -> ASGIApp:
        async def noting(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope["path"])
            await app(scope, receive, send)

        return noting

    database = FakeDatabase()
    app = create_app(
        database,
        database,
        database,
        database,
        database.rotation,
        rest_accounts[0],
        GatewayOptions(version="1"),
        clock=rest_clock,
        random=CountingRandom(),
        around=around,
    )
    reply = await Client(app)("POST", "/batch", encoded({"path": "/api/me"}, {"path": "/entity/a?key=b"}))
    assert [one["status"] for one in reply.json()["responses"]] == [200, 404]
    assert seen == ["/batch", "/api/me", "/entity/a"]


def test_a_batch_of_millions_of_requests_is_not_taken_apart():
    body = b'{"requests": [' + b"{}," * 1_000_000 + b"{}]}"
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            parse_batch(body)
        assert tracemalloc.get_traced_memory()[1] < 4 * limits.MIB
    finally:
        tracemalloc.stop()
