"""What of a time the loop was there, by a clock that is moved by hand."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.prediction.loop_watch import LATE_S, TICK_S, LoopWatch
from tests.support.clock import ManualClock

pytestmark = pytest.mark.unit


def watched() -> tuple[LoopWatch, ManualClock]:
    clock = ManualClock()
    watch = LoopWatch(clock)
    watch.begin()
    return watch, clock


def tick(watch: LoopWatch, clock: ManualClock, late_s: float = 0.0) -> None:
    clock.advance(TICK_S + late_s)
    watch.woke()


def test_a_loop_that_nobody_watches_is_taken_to_be_there() -> None:
    clock = ManualClock()
    clock.advance(5.0)
    assert LoopWatch(clock).there_s(1003.0, 1005.0) == 2.0


def test_what_the_loop_was_held_up_is_not_counted_and_a_punctual_tick_costs_nothing() -> None:
    watch, clock = watched()
    since = clock.monotonic()
    for late_s in (0.0, 0.004, 0.3, 0.0, 0.2):
        tick(watch, clock, late_s)
    until = clock.monotonic()
    assert watch.there_s(since, until) == pytest.approx(until - since - 0.5)
    assert watch.there_s(since + 10, until) == 0.0


def test_only_what_falls_into_the_time_is_left_out() -> None:
    watch, clock = watched()
    tick(watch, clock, 1.0)  # held up from 0.025 to 1.025
    assert watch.there_s(1000.525, 1001.025) == pytest.approx(0.0)
    tick(watch, clock)
    assert watch.there_s(1000.925, 1001.05) == pytest.approx(0.025)


def test_while_it_is_held_up_the_tick_that_did_not_come_counts() -> None:
    watch, clock = watched()
    clock.advance(0.5)
    assert watch.there_s(1000.0, 1000.46) == pytest.approx(TICK_S)
    assert watch.there_s(1000.4, 1000.5) == 0.0


def test_who_comes_too_late_to_the_end_of_the_time_cannot_tell() -> None:
    watch, clock = watched()
    for _ in range(80):
        tick(watch, clock)
    assert watch.there_s(1000.0, clock.monotonic() - LATE_S / 2) == pytest.approx(2.0 - LATE_S / 2)
    assert watch.there_s(1000.0, clock.monotonic() - LATE_S * 1.01) == 0.0


@given(st.lists(st.floats(0.0, 0.3), max_size=40), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_it_is_never_less_than_nothing_and_never_more_than_the_time(late: list[float], first: float, last: float) -> None:
    watch, clock = watched()
    for late_s in late:
        tick(watch, clock, late_s)
    end = clock.monotonic()
    since = 1000.0 + first * (end - 1000.0)
    until = since + last * (end - since)
    held = sum(late_s for late_s in late if late_s > 0.006)
    there = watch.there_s(since, until)
    assert 0.0 <= there <= until - since
    if end - until < LATE_S / 2:
        assert there >= until - since - held - 0.006 * len(late)


async def test_it_watches_the_loop_that_it_runs_in() -> None:
    clock, ticked = ManualClock(), asyncio.Event()

    class Heard(LoopWatch):
        def woke(self) -> None:
            super().woke()
            ticked.set()

    watch = Heard(clock)
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    clock.advance(2.0)  # while the loop did something else
    await asyncio.wait_for(ticked.wait(), 10)
    assert watch.there_s(1000.0, 1002.0) == pytest.approx(TICK_S)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    clock.advance(2.0)
    assert watch.there_s(1002.0, 1004.0) == pytest.approx(2.0), "nobody watches any more"
