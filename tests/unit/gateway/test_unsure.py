import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sim.loop import run

from deltadatabase.errors import Corrupt, Unavailable
from deltadatabase.gateway.unsure import AGAIN_S, UnsureWrites


class Looks:
    """Answers looks in turn, the last one for ever, and notes when they came."""

    def __init__(self, *answers: bool | Exception) -> None:
        self._answers = list(answers)
        self._begun_s = asyncio.get_running_loop().time()
        self.at_s: list[float] = []
        self.overflows = 0

    async def __call__(self, schema_id: str, key: str, write_id: bytes) -> bool:
        self.at_s.append(asyncio.get_running_loop().time() - self._begun_s)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def overflow(self) -> None:
        self.overflows += 1


def in_virtual_time(story: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        run(story())

    return test


async def followed(looks: Looks) -> list[float]:
    unsure = UnsureWrites(looks, on_overflow=looks.overflow)
    unsure.add("s", "k", b"w")
    assert len(unsure) == 1
    await asyncio.sleep(1000.0)
    assert len(unsure) == 0
    return looks.at_s


@in_virtual_time
async def test_a_write_that_is_not_found_is_looked_for_again() -> None:
    assert await followed(Looks(False)) == [0.0, 5.0, 20.0, 60.0]


@in_virtual_time
async def test_a_write_that_is_found_is_looked_for_no_more() -> None:
    assert await followed(Looks(False, True)) == [0.0, 5.0]


@in_virtual_time
async def test_a_failed_last_look_is_made_up_for() -> None:
    away = Unavailable("no worker")
    assert await followed(Looks(False, away, away, away, away, False)) == [
        *(0.0, 5.0, 20.0, 60.0),
        *(60.0 + AGAIN_S, 60.0 + 2 * AGAIN_S),
    ]


@in_virtual_time
async def test_a_damaged_entity_is_left_alone() -> None:
    assert await followed(Looks(Corrupt("damaged"))) == [0.0]


@in_virtual_time
async def test_too_many_are_told_of() -> None:
    looks = Looks(False)
    unsure = UnsureWrites(looks, on_overflow=looks.overflow, count_max=2)
    for number in range(5):
        unsure.add("s", str(number), b"w")
    assert (looks.overflows, len(unsure)) == (3, 2)
    await unsure.close()
    unsure.add("s", "k", b"w")
    assert len(unsure) == 0


@pytest.mark.parametrize("count", [0, 3])
def test_closing_ends_all(count: int) -> None:
    async def story() -> None:
        looks = Looks(False)
        unsure = UnsureWrites(looks, on_overflow=looks.overflow)
        for number in range(count):
            unsure.add("s", str(number), b"w")
        await unsure.close()
        assert len(unsure) == 0

    run(story())
