"""Which requests go to a model's child next, and who waits for whom."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from app.errors import ModelFailed, ModelUnavailable
from app.kernel.clock import Deadline
from app.kernel.tensors import Batch
from app.prediction.quarantine import LocalMarks, Quarantine, name_of
from app.prediction.runtimes.calls import Request
from app.prediction.runtimes.waiting import Waiting
from tests.support.clock import ManualClock

pytestmark = pytest.mark.unit


class Queue:
    """What waits in one process, beside another one's quarantine over the same marks."""

    def __init__(self) -> None:
        marks = LocalMarks(ManualClock())
        self.quarantine, self.another = Quarantine("clinic/model", marks), Quarantine("clinic/model", marks)
        self.looks = asyncio.Event()
        self.waiting = Waiting(self.quarantine, 4, self.looks.set)

    def add(self, *values: float) -> list[Request]:
        added = [Request(one(value), Deadline(1e9), asyncio.get_running_loop().create_future()) for value in values]
        for request in added:
            self.waiting.add(request)
        return added

    def died_on(self, *values: float) -> None:
        for value in values:
            self.quarantine.died(name_of(one(value)), -11)

    def take(self) -> list[float]:
        return [float(request.batch.numbers[0, 0]) for request in self.waiting.take()]


def one(value: float) -> Batch:
    return Batch(1, np.array([[value]]))


@pytest.fixture
async def queue() -> Queue:
    return Queue()


async def test_as_many_go_together_as_fit_one_call_the_oldest_first(queue: Queue) -> None:
    queue.add(1, 2, 3, 4, 5, 6)
    assert (queue.take(), queue.waiting.rows, len(queue.waiting)) == ([1, 2, 3, 4], 2, 2)
    assert (queue.take(), queue.take(), queue.waiting.rows) == ([5, 6], [], 0)


async def test_what_is_tried_alone_goes_before_whatever_waits_and_in_its_order(queue: Queue) -> None:
    queue.add(1)
    fallen = queue.add(2, 3)
    assert queue.take() == [1, 2, 3]
    queue.add(4)
    queue.waiting.try_alone(fallen)
    assert queue.waiting.rows == 3
    assert [queue.take() for _ in range(3)] == [[2], [3], [4]]


async def test_a_suspect_goes_alone_and_in_its_turn(queue: Queue) -> None:
    queue.add(1, 2, 3)
    queue.died_on(2)
    assert queue.take() == [1]
    assert (queue.take(), queue.waiting.on_trial, queue.another.begin_trial()) == ([2], True, False)
    queue.waiting.end_trial()
    assert queue.another.begin_trial()
    assert queue.take() == [3]


async def test_while_another_process_tries_a_suspect_ours_let_the_others_pass_and_keep_their_order(queue: Queue) -> None:
    suspects = queue.add(1, 2)
    queue.add(3, 4)
    queue.died_on(1, 2)
    assert queue.another.begin_trial()
    assert (queue.take(), queue.waiting.rows) == ([3, 4], 2)
    assert (queue.take(), [request.held for request in suspects]) == ([], [True, True])
    queue.add(5)
    assert queue.take() == [5]
    queue.another.end_trial()
    await asyncio.wait_for(queue.looks.wait(), 10)
    queue.add(6)
    assert (queue.take(), suspects[0].held) == ([1], False)
    queue.waiting.end_trial()
    assert [queue.take(), queue.take()] == [[2], [6]]


async def test_one_look_at_a_time_finds_out_whether_the_trial_is_over_and_none_once_nobody_waits_for_it(queue: Queue) -> None:
    (suspect,) = queue.add(1)
    queue.died_on(1)
    queue.another.begin_trial()
    loop, looks = asyncio.get_running_loop(), 0
    later = loop.call_later

    def counted(*given: object) -> object:
        nonlocal looks
        looks += 1
        return later(*given)  # type: ignore[arg-type]

    loop.call_later = counted  # type: ignore[method-assign,assignment]
    for _ in range(100):
        assert queue.take() == []
    assert looks == 1
    await asyncio.wait_for(queue.looks.wait(), 10)
    before = looks
    suspect.answer.cancel()
    assert (queue.take(), looks, len(queue.waiting), queue.waiting.rows) == ([], before, 0, 0)


async def test_an_input_that_came_into_quarantine_since_it_came_is_refused_and_nobody_else(queue: Queue) -> None:
    bad, _ = queue.add(1, 2)
    queue.died_on(1, 1)
    assert queue.take() == [2]
    with pytest.raises(ModelFailed, match="twice"):
        bad.answer.result()


async def test_who_is_told_that_nobody_answers_waits_no_longer(queue: Queue) -> None:
    (request,) = queue.add(1)
    queue.waiting.fail(ModelUnavailable("away"))
    assert (len(queue.waiting), queue.waiting.rows) == (0, 0)
    with pytest.raises(ModelUnavailable):
        request.answer.result()
