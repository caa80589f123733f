"""Whatever takes too long ends with a TimeoutError, by one timer for all; whatever else cancels a task still cancels it."""

from __future__ import annotations

import asyncio

import pytest

from app.graphql.http.time_limit import TimeLimit

pytestmark = pytest.mark.unit


async def for_ever(limit: TimeLimit) -> None:
    with limit.begun():
        await asyncio.Event().wait()


async def test_work_that_takes_too_long_ends_with_a_timeout_and_its_task_goes_on() -> None:
    limit = TimeLimit(0.001)
    with pytest.raises(TimeoutError):
        await for_ever(limit)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # not cancelled any more


async def test_the_limit_tells_whether_it_was_too_late() -> None:
    limited = TimeLimit(0.001).begun()
    with pytest.raises(TimeoutError), limited:
        await asyncio.Event().wait()
    assert limited.expired
    with (other := TimeLimit(60.0).begun()):
        pass
    assert not other.expired


async def test_each_of_many_is_ended_also_when_those_before_it_were_in_time() -> None:
    limit = TimeLimit(0.01)
    for _ in range(3):
        with limit.begun():
            await asyncio.sleep(0)
    ended = await asyncio.gather(*(for_ever(limit) for _ in range(5)), return_exceptions=True)
    assert [type(error) for error in ended] == [TimeoutError] * 5


async def test_one_timer_serves_all() -> None:
    limit, loop = TimeLimit(60.0), asyncio.get_running_loop()
    timers = []
    call_at = loop.call_at
    loop.call_at = lambda *args, **more: timers.append(call_at(*args, **more)) or timers[-1]  # type: ignore[func-returns-value,method-assign]
    try:
        for _ in range(100):
            with limit.begun():
                pass
    finally:
        loop.call_at = call_at  # type: ignore[method-assign]
    assert len(timers) == 1
    timers[0].cancel()


async def test_a_task_that_is_cancelled_by_somebody_else_is_cancelled() -> None:
    task = asyncio.create_task(for_ever(TimeLimit(60.0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_that_is_late_and_cancelled_by_somebody_else_is_cancelled() -> None:
    limit = TimeLimit(60.0)

    async def work() -> None:
        with limit.begun() as limited:
            limited.expire()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_works_own_stays_what_it_is() -> None:
    async def work() -> None:
        with TimeLimit(0.001).begun():
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("own")  # while it is being ended

    with pytest.raises(ValueError, match="own"):
        await work()


def test_a_limit_outlives_its_event_loop() -> None:
    limit = TimeLimit(0.001)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            asyncio.run(for_ever(limit))
