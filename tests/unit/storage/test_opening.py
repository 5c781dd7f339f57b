from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.clocks import FakeClock, SeededRandom

from deltadatabase.errors import DeltaError, StartupError, Unavailable
from deltadatabase.settings.values import Secret
from deltadatabase.storage.base import ObjectInfo
from deltadatabase.storage.objects import MemoryObjects, S3Settings
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
    settings = S3Settings(endpoint=None, bucket="b", access_key=Secret("a"), secret_key=Secret("s"))
    target = {"memory": None, "directory": tmp_path / "new" / "data", "bucket": settings}[kind]
    store = await open_store(target, clock=FakeClock(), random=SeededRandom())
    assert store.backend == backend
    await store.close()


async def test_settings_that_make_no_client_are_refused() -> None:
    with pytest.raises(StartupError) as caught:
        await open_store(
            S3Settings(endpoint="not a url", bucket="b"), clock=FakeClock(), random=SeededRandom()
        )
    assert caught.value.code == "store_refused"
    assert "not a url" not in caught.value.detail


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
