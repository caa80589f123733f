"""What of a version's failures its breaker hears, through the parts of a serving process. Its clock and the deadlines' are moved by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from app.errors import DeadlineExceeded, ModelFailed, ModelUnavailable
from app.kernel.clock import Deadline
from app.kernel.tensors import Scores
from app.prediction.breakers import BreakerState
from app.prediction.loop_watch import TICK_S
from app.prediction.runtimes.calls import quarantined
from app.prediction.types import RouteRequest
from tests.support.predicting import CLINIC, Process
from tests.support.serving import compiled_route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from app.kernel.tensors import Batch

pytestmark = pytest.mark.unit
CLOSED, OPEN, HALF_OPEN = BreakerState


class Told:
    """A runtime that does as it is told."""

    kind, busy = "sklearn", False

    def __init__(self) -> None:
        self.does: Callable[[], None] = lambda: None
        self.asked = 0

    async def infer(self, batch: Batch, _deadline: Deadline) -> Scores:
        self.asked += 1
        self.does()
        return Scores(values=batch.numbers.sum(axis=1))

    async def close(self) -> None: ...


class Asked(Process):
    """Production is an estimator without a fallback."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.runtime, self.route = Told(), compiled_route(None)
        self.serve()

    async def begin(self) -> None:
        async def estimator(*_: Any) -> Told:
            return self.runtime

        self.opener.estimator = estimator  # type: ignore[method-assign,assignment]
        await self.pool.warm(CLINIC, [self.route])
        self.loop.begin()

    @property
    def state(self) -> BreakerState:
        return self.breakers.state(CLINIC, self.route)

    async def within(self, seconds: float, number: int = 1) -> float | None:
        context = self.context()._replace(deadline=Deadline.after(seconds, self.clock))
        return (await self.predictor.predict(context, RouteRequest("sum"), [number, 2])).value

    def passes(self, seconds: float, *, held_up: bool = False) -> None:
        """So much time; the loop was there, or not."""
        step = seconds if held_up else TICK_S
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until - 1e-9:
            self.clock.advance(step)
            self.loop.woke()

    def late(self, *, there_s: float, held_up_s: float) -> None:
        self.passes(there_s)
        self.passes(held_up_s, held_up=True)
        raise DeadlineExceeded("The model did not answer in time.")

    async def fails(self, times: int, error: type[Exception] = DeadlineExceeded, *, first: int = 0) -> None:
        """So many requests, each with an input of its own."""
        for number in range(first, first + times):
            with pytest.raises(error):
                await self.within(2.0, number)


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Asked]:
    made = Asked(tmp_path)
    await made.begin()
    yield made
    await made.pool.close()


async def test_a_version_that_is_late_while_the_loop_is_there_is_left_alone(process: Asked) -> None:
    process.runtime.does = lambda: process.late(there_s=2.0, held_up_s=0.0)
    await process.fails(5)
    assert process.state is OPEN


async def test_deadlines_missed_because_the_loop_was_held_up_say_nothing_of_the_version(process: Asked) -> None:
    process.runtime.does = lambda: process.late(there_s=0.05, held_up_s=1.95)
    await process.fails(40)
    assert (process.state, process.runtime.asked) == (CLOSED, 40)


async def test_deadlines_that_passed_while_the_loop_was_held_up_say_nothing_of_the_version(process: Asked) -> None:
    """The answer may have lain there when the time was up."""
    process.runtime.does = lambda: process.late(there_s=1.0, held_up_s=3.0)
    await process.fails(40)
    assert (process.state, process.runtime.asked) == (CLOSED, 40)


async def test_a_version_that_hangs_is_found_also_by_a_loop_that_is_busy(process: Asked) -> None:
    def hangs() -> None:
        for _ in range(20):
            process.passes(0.1, held_up=True)
        raise DeadlineExceeded("The model did not answer in time.")

    process.runtime.does = hangs
    await process.fails(5)
    assert process.state is OPEN


async def test_a_try_that_is_refused_as_known_bad_input_lets_the_next_request_try(process: Asked) -> None:
    def broken() -> None:
        raise ModelFailed("broken", problems=[{"problem": "ESTIMATOR"}])

    def refused() -> None:
        raise quarantined(-11)

    process.runtime.does = broken
    await process.fails(5, ModelFailed)
    assert process.state is OPEN
    process.clock.advance(6.1)
    process.runtime.does = refused
    await process.fails(3, ModelFailed, first=10)
    assert (process.state, process.runtime.asked) == (HALF_OPEN, 8)
    process.runtime.does = lambda: None
    assert await process.within(2.0) == 3.0
    assert process.state is CLOSED


async def test_a_try_that_is_refused_as_known_bad_input_does_not_keep_the_next_from_opening_it_again(process: Asked) -> None:
    def raises(error: ModelFailed) -> Callable[[], None]:
        def fail() -> None:
            raise error

        return fail

    broken = ModelFailed("broken", problems=[{"problem": "ESTIMATOR"}])
    process.runtime.does = raises(broken)
    await process.fails(5, ModelFailed)
    process.clock.advance(6.1)
    process.runtime.does = raises(quarantined(-11))
    await process.fails(1, ModelFailed, first=10)
    process.runtime.does = raises(broken)
    with pytest.raises(ModelFailed, match="broken"):
        await process.within(2.0, 77)
    with pytest.raises(ModelUnavailable, match="failed too often"):
        await process.within(2.0, 78)
    assert process.state is OPEN
