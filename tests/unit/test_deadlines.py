from __future__ import annotations

import asyncio

import pytest

from deltadatabase.deadlines import Deadlines


async def test_a_block_that_takes_too_long_ends_with_a_timeout() -> None:
    deadlines = Deadlines()
    with pytest.raises(TimeoutError), deadlines.within(0.01):
        await asyncio.sleep(30)
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    await asyncio.sleep(0)  # The task is as it was.


async def test_a_block_in_time_is_left_alone() -> None:
    deadlines = Deadlines()
    with deadlines.within(0.01) as limit:
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)
    assert not limit.passed


async def started(deadlines: Deadlines) -> asyncio.Task[None]:
    """A task that takes longer than it may."""

    async def work() -> None:
        with deadlines.within(30):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    return task


async def test_a_cancelled_task_is_cancelled_and_not_late() -> None:
    deadlines = Deadlines()

    task = await started(deadlines)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_when_the_time_is_over_stays_cancelled() -> None:
    deadlines = Deadlines()

    task = await started(deadlines)
    deadlines.pass_all()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_is_not_hidden_by_the_time_that_is_over() -> None:
    deadlines = Deadlines()

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise LookupError

    with pytest.raises(LookupError), deadlines.within(0.01):
        await work()


async def test_all_may_be_let_pass_at_once() -> None:
    deadlines = Deadlines()
    passed: list[int] = []
    numbers = [deadlines.add(60, lambda: passed.append(1)) for _ in range(3)]
    deadlines.remove(numbers[0])
    deadlines.pass_all()
    assert passed == [1, 1]


async def test_it_looks_again_after_a_while_without_any() -> None:
    deadlines = Deadlines()
    for _ in range(2):
        passed = asyncio.Event()
        deadlines.add(0.0, passed.set)
        async with asyncio.timeout(5):
            await passed.wait()
        await asyncio.sleep(0.2)
