from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from support.clocks import FakeClock, SeededRandom

from deltadatabase.errors import DeltaError, StartupError, Unavailable
from deltadatabase.settings.values import Secret
from deltadatabase.storage.base import ObjectInfo
from deltadatabase.storage.objects import MemoryObjects, S3Objects, S3Settings
from deltadatabase.storage.opening import open_store, wait_for_store


class ComesUp(MemoryObjects):
    """Fails its first listings."""

    def __init__(self, failures: list[DeltaError]) -> None:
        super().__init__()
        self.failures = failures

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[ObjectInfo]:
        if self.failures:
            raise self.failures.pop(0)
        return []


@pytest.mark.parametrize(
    ("kind", "backend"), [("memory", "memory"), ("directory", "directory"), ("bucket", "s3")]
)
async def test_the_target_decides_the_backend(kind: str, backend: str, tmp_path: Path) -> None:
    settings = S3Settings(endpoint=None, bucket="bucket", access_key=Secret("a"), secret_key=Secret("s"))
    target = {"memory": None, "directory": tmp_path / "new" / "data", "bucket": settings}[kind]
    store = await open_store(target, clock=FakeClock(), random=SeededRandom())
    assert store.backend == backend
    await store.close()


GOOD = S3Settings(
    endpoint="http://127.0.0.1:9000",
    bucket="some-bucket",
    access_key=Secret("a"),
    secret_key=Secret("s"),
    allow_http=True,
)


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "not a url"},
        {"endpoint": "127.0.0.1:9000"},
        {"endpoint": "ftp://127.0.0.1"},
        {"endpoint": "http://"},
        {"endpoint": "http://127.0.0.1:99999"},
        {"endpoint": "http://127.0.0.1:9000/ x"},
        {"allow_http": False},
        {"bucket": ""},
        {"bucket": "a/b"},
        {"bucket": "../b"},
        {"region": ""},
        {"access_key": Secret("")},
        {"secret_key": Secret("")},
    ],
)
async def test_settings_that_make_no_client_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(StartupError) as caught:
        await open_store(msgspec.structs.replace(GOOD, **wrong), clock=FakeClock(), random=SeededRandom())
    assert caught.value.code == "bad_flag"
    assert "127.0.0.1" not in caught.value.detail


@pytest.mark.parametrize(
    "right",
    [
        {},
        {"endpoint": "https://s3.example.org", "allow_http": False},
        {"endpoint": "http://[::1]:9000/"},
        {"path_style": False},
        {"endpoint": None, "path_style": False},
        {"access_key": Secret(""), "secret_key": Secret("")},
    ],
)
async def test_settings_that_make_a_client(right: dict[str, object]) -> None:
    store = await open_store(msgspec.structs.replace(GOOD, **right), clock=FakeClock(), random=SeededRandom())
    await store.close()


@pytest.mark.parametrize(
    ("changed", "url"),
    [
        ({}, "http://127.0.0.1:9000/some-bucket/a"),
        ({"endpoint": "https://s3.example.org/"}, "https://s3.example.org/some-bucket/a"),
        (
            {"endpoint": "https://s3.example.org", "path_style": False},
            "https://some-bucket.s3.example.org/a",
        ),
        (
            {"endpoint": None, "path_style": False, "region": "eu-west-1"},
            "https://some-bucket.s3.eu-west-1.amazonaws.com/a",
        ),
        (
            {"endpoint": None, "region": "eu-west-1"},
            "https://s3.eu-west-1.amazonaws.com/some-bucket/a",
        ),
    ],
)
async def test_where_a_bucket_is(changed: dict[str, object], url: str) -> None:
    store = S3Objects(msgspec.structs.replace(GOOD, **changed))
    assert (await store.sign("GET", "a")).partition("?")[0] == url


async def test_waiting_ends_when_the_store_answers() -> None:
    reasons: list[DeltaError] = []
    store = ComesUp([Unavailable("first")])
    await wait_for_store(store, timeout_s=10, clock=FakeClock(), on_wait=reasons.append)
    assert [reason.detail for reason in reasons] == ["first"]


async def test_waiting_ends_with_the_time() -> None:
    store = ComesUp([Unavailable("not there")] * 100)
    with pytest.raises(StartupError) as caught:
        await wait_for_store(store, timeout_s=10, clock=FakeClock(tick_s=6), on_wait=lambda reason: None)
    assert caught.value.code == "store_unreachable"
    assert "not there" in caught.value.detail


async def test_what_waiting_cannot_change_ends_it() -> None:
    store = ComesUp([Unavailable("denied", code="store_denied")])
    with pytest.raises(StartupError) as caught:
        await wait_for_store(store, timeout_s=10, clock=FakeClock(), on_wait=pytest.fail)
    assert caught.value.code == "store_refused"
