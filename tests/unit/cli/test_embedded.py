"""An embedded worker's store may be away for a moment while it is opened."""

from __future__ import annotations

import pytest
from sim.loop import run
from support.fake_store import FakeStore
from support.workers import KEYRING

from deltadatabase.cli import embedded
from deltadatabase.errors import StartupError, Unavailable
from deltadatabase.model import StoreReport
from deltadatabase.worker.presence import Presence


class _LoopClock:
    def wall_ms(self) -> int:
        return 1_700_000_000_000

    def monotonic_s(self) -> float:
        return embedded.asyncio.get_running_loop().time()


async def _examined(failures: int, wait_s: float) -> StoreReport:
    store, left = FakeStore(), failures

    def fail(operation: str, path: str) -> None:
        nonlocal left
        if left:
            left -= 1
            raise Unavailable("down")

    store.before = fail
    presence = Presence(store, "w", clock=_LoopClock(), random=lambda size: b"r" * size)
    return await embedded._examined(store, KEYRING, presence, wait_s=wait_s)


@pytest.fixture(autouse=True)
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "clock", _LoopClock())


def test_it_tries_again_until_the_store_answers() -> None:
    assert run(_examined(3, 60.0)).database.database_id


def test_it_gives_up_in_one_line_after_the_time() -> None:
    with pytest.raises(StartupError, match="could not be examined within 60 s") as caught:
        run(_examined(1_000_000, 60.0))
    assert caught.value.code == "store_unreachable"
