"""Conditions and repeats of ``/entities`` through real processes and real stores."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from chaos.proxy import Message, Proxy
from support.programs import Programs
from support.weed import S3Server

from integration.cluster import Cluster, discreet_programs, s3_arguments

pytestmark = pytest.mark.integration

CLIENTS = 8
ROUNDS = 12
INCREMENTS = 10


@pytest.fixture(scope="module", params=["s3", "directory"])
def url(request, tmp_path_factory) -> Iterator[str]:
    """Three workers on one store."""
    folder = tmp_path_factory.mktemp("resources")
    store = (
        s3_arguments(request.getfixturevalue("weed"), "delta-resources")
        if request.param == "s3"
        else (f"-shared-fs={folder / 'db'}",)
    )
    with discreet_programs(folder) as programs:
        yield Cluster(programs, store, folder / "state").start("proc-1", "proc-2", "proc-3").url


@pytest.fixture
def started(tmp_path) -> Iterator[Programs]:
    with discreet_programs(tmp_path) as programs:
        yield programs


def at_once(count: int, call: Callable[[httpx.Client, int], Any], url: str) -> list[Any]:
    """Call with each of so many clients at the same moment."""
    gate = threading.Barrier(count)

    def one(number: int) -> Any:
        with httpx.Client(base_url=url, timeout=20.0) as client:
            client.get("/livez")
            gate.wait()
            return call(client, number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_one_of_many_conditional_writers_wins(url):
    """On keys of all three workers, over creation, change and deletion."""

    def race(client: httpx.Client, number: int) -> list[tuple[int, str, str]]:
        answers = []
        for key in range(ROUNDS):
            path = f"/entities/race/k{key}"
            created = client.put(path, json=number, headers={"If-None-Match": "*"})
            first = client.get(path).headers["etag"]
            changed = client.put(path, json=number, headers={"If-Match": first})
            answers += [(created.status_code, created.headers["etag"], first)]
            answers += [(changed.status_code, changed.headers["etag"], first)]
        return answers

    by_client = at_once(CLIENTS, race, url)
    for key in range(ROUNDS):
        created = Counter(answers[2 * key][0] for answers in by_client)
        assert created == {201: 1, 412: CLIENTS - 1}
        # Each changed the version that it had seen; of those that saw the same one, one won.
        winners = Counter(answers[2 * key + 1][2] for answers in by_client if answers[2 * key + 1][0] == 200)
        assert winners and set(winners.values()) == {1}
        assert {answers[2 * key + 1][0] for answers in by_client} <= {200, 412}
        etags = [answers[2 * key + 1][1] for answers in by_client if answers[2 * key + 1][0] == 200]
        assert httpx.get(f"{url}/entities/race/k{key}").headers["etag"] in etags

    def delete(client: httpx.Client, _number: int) -> int:
        etag = client.get("/entities/race/k0").headers.get("etag", '"none"')
        return client.delete("/entities/race/k0", headers={"If-Match": etag}).status_code

    assert Counter(at_once(CLIENTS, delete, url))[204] == 1


def test_clients_count_together_by_etag(url):
    path = "/entities/counters/visits"
    httpx.put(url + path, json=0)

    def count(client: httpx.Client, _number: int) -> int:
        tries = 0
        for _ in range(INCREMENTS):
            while True:
                tries += 1
                seen = client.get(path)
                again = client.put(path, json=seen.json() + 1, headers={"If-Match": seen.headers["etag"]})
                if again.status_code == 200:
                    break
                assert again.status_code == 412
        return tries

    assert sum(at_once(CLIENTS, count, url)) >= CLIENTS * INCREMENTS
    assert httpx.get(url + path).json() == CLIENTS * INCREMENTS


def test_no_update_is_lost_and_no_etag_comes_back(url):
    path = f"{url}/entities/notes/lost"
    httpx.delete(path)
    first = httpx.put(path, json={"text": "a"})
    assert first.status_code == 201
    seen = {"If-Match": first.headers["etag"]}
    # A weak tag matches nothing, and is no absent condition either.
    weak = httpx.put(path, json={"text": "weak"}, headers={"If-Match": "W/" + first.headers["etag"]})
    assert weak.status_code == 412
    assert httpx.put(path, json={"text": "mine"}, headers=seen).status_code == 200
    theirs = httpx.put(path, json={"text": "theirs"}, headers=seen)
    assert theirs.status_code == 412
    assert theirs.headers["etag"] == httpx.get(path).headers["etag"]
    assert httpx.delete(path).status_code == 204
    again = httpx.put(path, json={"text": "a"})
    assert (again.status_code, httpx.get(path).json()) == (201, {"text": "a"})
    # The same document as then, and not the same entity.
    assert again.headers["etag"] != first.headers["etag"]
    assert httpx.put(path, json={"text": "b"}, headers=seen).status_code == 412
    assert httpx.get(path, headers={"If-None-Match": first.headers["etag"]}).status_code == 200
    assert httpx.get(path, headers={"If-None-Match": again.headers["etag"]}).status_code == 304


def test_repeats_at_once_are_one_write(url):
    path = "/entities/notes/named"

    def send(client: httpx.Client, _number: int) -> tuple[int, bytes, str]:
        answer = client.put(path, json=[1], headers={"Idempotency-Key": '"once"'})
        return answer.status_code, answer.content, answer.headers.get("idempotent-replayed", "")

    answers = at_once(CLIENTS, send, url)
    assert {answer[:2] for answer in answers} == {answers[0][:2]}
    assert Counter(answer[2] for answer in answers) == {"": 1, "true": CLIENTS - 1}
    other = httpx.put(url + path, json=[2], headers={"Idempotency-Key": "once"})
    assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")
    assert httpx.get(url + path).json() == [1]


def test_patches_at_once_all_count(url):
    """Merge patches of different members, and a JSON patch that holds for one of all."""
    path = "/entities/notes/patched"
    httpx.put(url + path, json={"turn": 0})

    def patch(client: httpx.Client, number: int) -> tuple[int, int, str]:
        headers = {"Content-Type": "application/merge-patch+json", "Idempotency-Key": f"p{number}"}
        merged = [client.patch(path, json={f"m{number}": number}, headers=headers) for _ in range(2)]
        assert [answer.headers.get("idempotent-replayed") for answer in merged] == [None, "true"]
        assert (
            merged[0].json()[f"m{number}"] == number
            and merged[0].headers["etag"] == merged[1].headers["etag"]
        )
        turn = [{"op": "test", "path": "/turn", "value": 0}, {"op": "replace", "path": "/turn", "value": 1}]
        headers = {"Content-Type": "application/json-patch+json"}
        turned = client.patch(path, json=turn, headers=headers)
        return merged[0].status_code, turned.status_code, merged[0].headers["etag"]

    answers = at_once(CLIENTS, patch, url)
    assert {answer[0] for answer in answers} == {200}
    assert Counter(answer[1] for answer in answers) == {200: 1, 409: CLIENTS - 1}
    assert len({answer[2] for answer in answers}) == CLIENTS
    assert httpx.get(url + path).json() == {"turn": 1} | {f"m{number}": number for number in range(CLIENTS)}


def test_a_schema_may_demand_conditions(url):
    httpx.put(f"{url}/schema/careful", json={"x-require-if-match": True}).raise_for_status()
    path = f"{url}/entities/careful/k"
    merge = {"Content-Type": "application/merge-patch+json"}
    created = httpx.put(path, json={}, headers={"If-None-Match": "*"})
    assert (httpx.put(path, json={}).status_code, created.status_code) == (428, 201)
    assert httpx.patch(path, json={"a": 1}, headers=merge).status_code == 428
    assert httpx.delete(path).status_code == 428
    patched = httpx.patch(path, json={"a": 1}, headers=merge | {"If-Match": created.headers["etag"]})
    assert (patched.status_code, patched.json()) == (200, {"a": 1})
    assert httpx.delete(path, headers={"If-Match": created.headers["etag"]}).status_code == 412
    assert httpx.delete(path, headers={"If-Match": patched.headers["etag"]}).status_code == 204


class LossyProxy(Proxy):
    """Loses what concerns an object: all requests, or all replies."""

    losing = False

    async def _answer(self, request: Message, upstream: Any, writer: asyncio.StreamWriter) -> bool:
        line = request.head.partition(b"\r\n")[0]
        if self.losing and b"/landed" in line:
            await upstream.ask(request)
            return False
        if self.losing and b"/never" in line:
            return False
        return await super()._answer(request, upstream, writer)


@contextlib.contextmanager
def lossy(server: S3Server) -> Iterator[LossyProxy]:
    """A proxy before a server, in a thread."""
    proxy = LossyProxy(server.ports["s3"])
    ready, ends = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with proxy.running():
            ready.set()
            await ends.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join()
        loop.close()


def test_a_write_of_unknown_outcome_is_applied_once(started, weed):
    """Two writes end with 504, then both workers are killed. Of each, the repeat finds out."""
    with lossy(weed) as proxy:
        flags = s3_arguments(weed, "delta-unknown")
        flags = (f"-s3-endpoint=http://127.0.0.1:{proxy.port}", *flags[1:])
        cluster = Cluster(started, flags, started.folder / "state").start("proc-1")

        def write(client: httpx.Client, number: int) -> httpx.Response:
            path = f"/entities/notes/{('landed', 'never')[number]}"
            return client.put(path, json="named", headers={"Idempotency-Key": "n"})

        for key in ("landed", "never"):
            for _ in range(12):
                httpx.put(f"{cluster.url}/entities/notes/{key}", json="before")
        proxy.losing = True
        answers = at_once(2, write, cluster.url)
        assert [answer.status_code for answer in answers] == [504, 504]
        cluster.main.kill()
        cluster.workers["proc-1"].kill()
        proxy.losing = False
        cluster.start("proc-2")
        httpx.put(f"{cluster.url}/entities/notes/landed", json="after")
        httpx.put(f"{cluster.url}/entities/notes/never", json="after")
        for replayed in (("true", ""), ("true", "true")):
            answers = at_once(2, write, cluster.url)
            assert [answer.status_code for answer in answers] == [200, 200]
            assert [answer.json()["version"] for answer in answers] == [13, 14]
            assert tuple(answer.headers.get("idempotent-replayed", "") for answer in answers) == replayed
        assert httpx.get(f"{cluster.url}/entities/notes/landed").json() == "after"
        assert httpx.get(f"{cluster.url}/entities/notes/never").json() == "named"
