"""The loop stays awake for a client that asks again as soon as it has its answer, and for nobody else."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.polling import IN_A_ROW, WITHIN_S, Polling
from tests.unit.web.test_outgoing import GET, Process

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.unit

SHORT, LONG = WITHIN_S / 2, WITHIN_S * 2
STEP_S = WITHIN_S / 10  # what a turn of the loop takes


class Loop:
    """A clock, and turns of a loop that nobody else has anything for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.ready: list[Callable[[], None]] = []
        self.yielded = 0
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)
        monkeypatch.setattr(os, "sched_yield", self.step_aside)
        self.polling = Polling(lambda: self.now)

    def step_aside(self) -> None:
        self.yielded += 1

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.ready.append(callback)

    def pause(self, seconds: float) -> float:
        """Lets so many seconds pass behind an answer, until the next request comes; for how many of them the loop was awake."""
        self.polling.answered()
        began, end = self.now, self.now + seconds
        while self.ready and self.now < end:
            self.now += STEP_S
            self.ready.pop()()
        awake = min(self.now, end) - began
        self.now = end
        self.polling.asked()
        if self.ready:
            self.ready.pop()()
        assert self.ready == []
        return awake


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    return Loop(monkeypatch)


def test_the_loop_stays_awake_for_who_asks_again_at_once_from_the_fifth_answer_on(loop: Loop) -> None:
    assert [loop.pause(SHORT) for _ in range(IN_A_ROW)] == [0.0] * IN_A_ROW
    assert [loop.pause(SHORT) for _ in range(3)] == pytest.approx([SHORT] * 3)


def test_it_stays_awake_for_nobody_for_longer_than_a_bound(loop: Loop) -> None:
    for _ in range(IN_A_ROW):
        loop.pause(SHORT)
    assert WITHIN_S < loop.pause(1.0) <= WITHIN_S + 2 * STEP_S


def test_who_needs_the_core_goes_first_in_each_turn(loop: Loop) -> None:
    for _ in range(IN_A_ROW):
        loop.pause(SHORT)
    assert loop.yielded == 0
    loop.pause(SHORT)
    assert loop.yielded == 1 + SHORT / STEP_S


def test_one_long_pause_and_the_loop_sleeps_as_before(loop: Loop) -> None:
    for _ in range(IN_A_ROW):
        loop.pause(SHORT)
    loop.pause(LONG)
    assert [loop.pause(SHORT) for _ in range(IN_A_ROW)] == [0.0] * IN_A_ROW


@given(st.lists(st.sampled_from([SHORT, WITHIN_S * 0.99, LONG, 1.0])))
def test_the_loop_is_awake_behind_so_many_short_pauses_and_never_otherwise(pauses: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        loop = Loop(patched)
        awake = [loop.pause(pause) > 0 for pause in pauses]
    before = [pauses[max(0, number - IN_A_ROW) : number] for number in range(len(pauses))]
    assert awake == [len(last) == IN_A_ROW and max(last) <= WITHIN_S for last in before]


class Noted(Polling):
    """What the protocol says, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def asked(self) -> None:
        self.told.append("asked")

    def answered(self) -> None:
        self.told.append("answered")


async def test_the_protocol_says_when_somebody_asks_and_when_a_request_is_answered_that_was_alone() -> None:
    process = Process(under_way=0)
    process.made_by.polling = polling = Noted()
    (first, _), (second, _) = process.connect(), process.connect()
    for _ in range(2):
        first.data_received(GET)
        await process.answered()
    first.data_received(GET)
    second.data_received(GET)
    await process.answered()
    assert polling.told == ["asked", "answered"] * 2 + ["asked", "asked"]
