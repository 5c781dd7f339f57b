"""Lists through real workers, while entities are written and workers join, drain and are killed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence

import httpx
import pytest
from support.programs import Programs
from support.weed import S3Server

from deltadatabase.storage.paths import escape_key, listing_order
from integration.cluster import Cluster, discreet_programs, s3_arguments

pytestmark = pytest.mark.integration

STAYING = [f"stay {number}" for number in range(80)]


@pytest.fixture
def started(tmp_path) -> Iterator[Programs]:
    with discreet_programs(tmp_path) as programs:
        yield programs


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path) -> Sequence[str]:
    if request.param == "directory":
        return (f"-shared-fs={tmp_path / 'db'}",)
    server: S3Server = request.getfixturevalue("weed")
    return s3_arguments(server, f"lists-{os.urandom(6).hex()}")


def patient(client: httpx.Client, method: str, url: str, **options: object) -> httpx.Response:
    """Ask until it is not 503: a worker is just going, or coming."""
    while True:
        reply = client.request(method, url, **options)  # type: ignore[arg-type]
        if reply.status_code != 503:
            return reply


def walk(client: httpx.Client, limit: int, prefix: str = "") -> list[str]:
    """The keys of a whole list, from page to page by its links."""
    target, keys = f"/entities/notes?limit={limit}&prefix={prefix}", []
    while target:
        reply = patient(client, "GET", target)
        assert reply.status_code == 200, reply.text
        keys += [item["key"] for item in reply.json()["items"]]
        target = reply.links["next"]["url"] if "next" in reply.links else ""
    return keys


class Writer(threading.Thread):
    """Puts and deletes keys of its own, and looks for each in a list after it was told so."""

    def __init__(self, url: str, number: int, end: threading.Event) -> None:
        super().__init__()
        self.url = url
        self.number = number
        self.end = end
        self.checked = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=20.0) as client:
            turn = 0
            while not self.end.is_set():
                turn += 1
                key = f"w{self.number}-{turn % 7}"
                self._change(client, key, put=turn % 3 > 0)

    def _change(self, client: httpx.Client, key: str, *, put: bool) -> None:
        if put:
            reply = patient(client, "PUT", "/entity/notes", content=f'{{"{key}": {{}}}}')
        else:
            reply = patient(client, "DELETE", "/entity/notes", params={"key": key})
        if reply.status_code == 504:
            return  # Nobody knows.
        assert reply.status_code == 200, reply.text
        if (key in walk(client, 3, prefix=key)) is not put:
            self.wrong.append(f"{key} put={put}")
        self.checked += 1


def test_lists_are_right_while_workers_come_and_go(started, store, tmp_path) -> None:
    cluster = Cluster(started, store, tmp_path / "state").start("one", "two", "three")
    end = threading.Event()
    writers = [Writer(cluster.url, number, end) for number in range(2)]
    with httpx.Client(base_url=cluster.url, timeout=20.0) as client:
        body = ",".join(f'"{key}": {{"n": 1}}' for key in STAYING)
        assert client.put("/entity/notes", content=f"{{{body}}}").status_code == 200
        expected = sorted(STAYING, key=lambda key: listing_order(escape_key(key)))
        for writer in writers:
            writer.start()
        try:
            for change in (
                lambda: None,
                lambda: cluster.start_worker("four"),
                lambda: cluster.workers.pop("one").stop(),
                lambda: cluster.workers.pop("two").kill(),
                lambda: cluster.start_worker("one"),
            ):
                moving = threading.Thread(target=change)
                moving.start()
                for limit in (9, 1000):
                    keys = walk(client, limit)
                    assert len(set(keys)) == len(keys), "listed twice"
                    assert [key for key in keys if key in set(STAYING)] == expected
                moving.join()
        finally:
            end.set()
            for writer in writers:
                writer.join()
        assert [writer.wrong for writer in writers] == [[], []]
        assert all(writer.checked > 5 for writer in writers)
        counted = client.get("/api/schemas?counts=true").json()
        left = walk(client, 1000)
        assert counted == [{"schema_id": "notes", "entities": len(left), "complete": True, "schema": False}]
        items = client.get("/entities/notes?include=document&limit=80&prefix=stay").json()["items"]
        assert [item["document"] for item in items] == [{"n": 1}] * len(STAYING)
    # The one that was started last may not be up yet, and a program that is not up is not ended well.
    cluster.ready(3)
    assert set(cluster.stop()) == {0}
