"""Inputs on which a model's worker dies, hangs or answers nonsense: what it costs their callers, and what it costs everybody else."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import uvloop

from app.errors import DeadlineExceeded, ModelFailed
from app.kernel.clock import Deadline, SystemClock
from app.kernel.inspection import InspectionRequest
from app.kernel.signature import Task
from app.kernel.tensors import Batch
from app.prediction.bulkheads import calls_each
from app.prediction.quarantine import LocalMarks, Marks, Quarantine, SharedMarks, name_of
from app.prediction.runtimes.base import NotAsked
from app.prediction.runtimes.host import ModelHost
from tests.integration.worker.conftest import Lab
from tests.support.model_host import RunningHost, model_host
from tests.support.moody import CRASHES, ENDS, GOOD, HANGS, NAN, SHAPE, moody_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from app.prediction.runtimes.sklearn import SklearnRuntime

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def trusting() -> Iterator[RunningHost]:
    with model_host("full") as running:
        yield running


@dataclass
class Mood:
    """A moody model that serves; `deaths`: how its workers ended; `refused`: how many inputs came into quarantine."""

    lab: Lab
    tenant: UUID
    deaths: list[str] = field(default_factory=list)
    refused: list[None] = field(default_factory=list)
    runtimes: list[SklearnRuntime] = field(default_factory=list)

    def host(self, marks: Marks) -> ModelHost:
        """What one more serving process holds."""
        return ModelHost(self.lab.running.socket, self.deaths.append, None, marks, lambda: self.refused.append(None))

    def quarantine(self, marks: Marks) -> Quarantine:
        """What one more serving process knows of the inputs of "moody"."""
        digest = hashlib.sha256(moody_file(self.lab.folder, "moody").read_bytes()).hexdigest()
        return Quarantine(f"{self.tenant}/{digest}", marks)

    async def open(self, name: str = "moody") -> SklearnRuntime:
        artifact = moody_file(self.lab.folder, name)
        report = await self.lab.host.inspect(uuid4(), artifact, InspectionRequest(Task.REGRESSION, None, ()), 60.0)
        self.runtimes.append(await self.lab.open(artifact, report, Task.REGRESSION, self.tenant))
        return self.runtimes[-1]


@pytest.fixture
async def mood(trusting: RunningHost, tmp_path: Path) -> AsyncIterator[Mood]:
    made = Mood(Lab(trusting, trusting.connect(), tmp_path), uuid4())
    made.lab.host = made.host(LocalMarks(SystemClock()))
    yield made
    for runtime in made.runtimes:
        await runtime.close()


async def ask(runtime: SklearnRuntime, *values: float, within_s: float = 60.0) -> list[float]:
    scores = await runtime.infer(Batch(len(values), np.array(values).reshape(-1, 1)), Deadline.after(within_s))
    assert scores.values is not None
    return scores.values.tolist()


def problem(error: BaseException | Any) -> str:
    assert isinstance(error, ModelFailed), error
    return str(error.details["problems"][0]["problem"])


@pytest.mark.parametrize(("poison", "said"), [(ENDS, "ended by itself \\(status 3\\)"), (CRASHES, "segmentation fault")])
async def test_an_input_on_which_two_workers_ended_is_refused_from_then_on_and_no_other(mood: Mood, poison: float, said: str) -> None:
    runtime = await mood.open()
    with pytest.raises(ModelFailed, match=said) as failed:
        await ask(runtime, poison)
    assert (problem(failed.value), failed.value.retryable) == ("WORKER_DIED", False)
    for _ in range(3):
        with pytest.raises(ModelFailed, match=f"twice.*{said}.*refused") as failed:
            await ask(runtime, poison)
        assert problem(failed.value) == "QUARANTINED"
    assert await ask(runtime, GOOD) == [2.0]
    assert (mood.deaths, len(mood.refused)) == (["died", "died"], 1)


async def test_of_several_requests_in_one_call_only_the_one_that_ends_workers_is_told_so(mood: Mood) -> None:
    runtime = await mood.open()
    busy = asyncio.ensure_future(ask(runtime, GOOD))
    await asyncio.sleep(0)  # it is under way, so that these gather into the next call
    answers = await asyncio.gather(busy, *(ask(runtime, value) for value in (3.0, 4.0, ENDS, 5.0, ENDS, 6.0)), return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [answer for answer in answers if isinstance(answer, list)] == [[2.0], [6.0], [8.0], [10.0], [12.0]]
    assert sorted(map(problem, failures)) == ["QUARANTINED", "WORKER_DIED"]
    assert mood.deaths == ["died", "died"]
    assert await ask(runtime, 3.0) == [6.0]
    assert len(mood.refused) == 1


@pytest.mark.parametrize("_again", range(3))
async def test_what_one_processes_input_ends_costs_another_process_no_answer_and_two_workers_in_all(mood: Mood, _again: int) -> None:
    """Two serving processes share a child: what was beside the input under which it ended is answered, and nobody has to learn twice."""
    marks = [SharedMarks(mood.lab.folder / "quarantine.bin", SystemClock()) for _ in range(2)]
    mood.lab.host = mood.host(marks[0])
    runtime = await mood.open()
    mood.lab.host = mood.host(marks[1])
    other = await mood.open()
    assert runtime.pid == other.pid
    poisoned = [asyncio.ensure_future(ask(runtime, ENDS)) for _ in range(2)]
    for start in (20, 30, 40):
        answers = await asyncio.gather(*(ask(other, float(value)) for value in range(start, start + 10)))
        assert answers == [[2.0 * value] for value in range(start, start + 10)]
    failures = await asyncio.gather(*poisoned, return_exceptions=True)
    assert sorted(map(problem, failures)) == ["QUARANTINED", "WORKER_DIED"]
    with pytest.raises(ModelFailed) as failed:
        await ask(other, ENDS)
    assert problem(failed.value) == "QUARANTINED"
    assert (mood.deaths, len(mood.refused)) == (["died", "died"], 1)


async def test_a_suspect_that_waits_for_another_processes_trial_lets_other_inputs_pass(mood: Mood) -> None:
    marks = SharedMarks(mood.lab.folder / "quarantine.bin", SystemClock())
    mood.lab.host = mood.host(marks)
    runtime = await mood.open()
    another = mood.quarantine(marks)
    another.died(name_of(Batch(1, np.array([[GOOD]]))), -11)
    assert another.begin_trial()
    with pytest.raises(NotAsked):
        await ask(runtime, GOOD, within_s=0.05)
    suspect = asyncio.ensure_future(ask(runtime, GOOD, within_s=60.0))
    await asyncio.sleep(0)  # it stands before the others
    for value in range(20, 40):
        assert await ask(runtime, float(value)) == [2.0 * value]
    assert not suspect.done()
    another.end_trial()
    assert await suspect == [2.0]
    assert (mood.deaths, another.deaths(name_of(Batch(1, np.array([[GOOD]]))))) == ([], 0)


async def test_who_waits_because_other_versions_of_the_tenant_hang_was_not_asked(mood: Mood) -> None:
    runtime = await mood.open()
    hung = [await mood.open(f"hangs {number}") for number in range(calls_each())]
    asked = [asyncio.ensure_future(ask(each, HANGS)) for each in hung]
    await asyncio.sleep(0)
    with pytest.raises(NotAsked):
        await ask(runtime, GOOD, within_s=0.05)
    for each in hung:
        await each.close()
    assert await ask(runtime, GOOD) == [2.0]
    await asyncio.gather(*asked, return_exceptions=True)


async def test_a_hung_input_costs_its_caller_the_deadline_and_others_of_the_tenant_are_answered(mood: Mood) -> None:
    runtime, other = await mood.open(), await mood.open("another")
    first, neighbour = runtime.pid, other.pid
    hung = asyncio.ensure_future(ask(runtime, HANGS, within_s=1.5))
    assert await ask(other, GOOD) == [2.0]
    with pytest.raises(DeadlineExceeded) as late:
        await hung
    assert not isinstance(late.value, NotAsked)
    assert await ask(runtime, GOOD) == [2.0]
    assert runtime.pid not in (0, first)
    assert other.pid == neighbour
    assert mood.deaths == ["killed"]


async def test_an_input_that_hangs_every_time_is_refused_after_two_workers(mood: Mood) -> None:
    runtime = await mood.open()
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            await ask(runtime, HANGS, within_s=1.5)
        assert await ask(runtime, GOOD) == [2.0]  # the next worker is there
    with pytest.raises(ModelFailed, match="took too long") as failed:
        await ask(runtime, HANGS)
    assert problem(failed.value) == "QUARANTINED"
    assert mood.deaths == ["killed", "killed"]


@pytest.mark.parametrize(("value", "said"), [(NAN, "NaN or an infinity"), (SHAPE, r"shape \(0,\)")])
async def test_an_answer_that_is_none_is_told_as_bad_output_and_the_worker_lives(mood: Mood, value: float, said: str) -> None:
    runtime = await mood.open()
    pid = runtime.pid
    with pytest.raises(ModelFailed, match=said) as failed:
        await ask(runtime, value)
    assert problem(failed.value) == "BAD_OUTPUT"
    assert (await ask(runtime, GOOD), runtime.pid, mood.deaths) == ([2.0], pid, [])


def test_a_child_that_answered_while_our_own_loop_was_held_up_is_not_killed_for_it(trusting: RunningHost, tmp_path: Path) -> None:
    """By the loop that serves, which comes to its timers before it looks at its sockets again."""

    async def held_up() -> tuple[list[str], list[float], bool]:
        made = Mood(Lab(trusting, trusting.connect(), tmp_path), uuid4())
        made.lab.host = made.host(LocalMarks(SystemClock()))
        runtime = await made.open()
        pid, loop = runtime.pid, asyncio.get_running_loop()
        ours, theirs = socket.socketpair()

        def hold_up() -> None:
            loop.remove_reader(ours)
            os.kill(pid, signal.SIGCONT)
            time.sleep(2.2)  # longer than a call has patience

        os.kill(pid, signal.SIGSTOP)  # so that it answers while we are held up, and not before
        asked = asyncio.ensure_future(ask(runtime, GOOD, within_s=1.0))
        await asyncio.sleep(0)
        loop.add_reader(ours, hold_up)
        theirs.send(b"!")
        await asyncio.gather(asked, return_exceptions=True)
        after = await ask(runtime, 3.0)
        lives = runtime.pid == pid
        await runtime.close()
        ours.close()
        theirs.close()
        return made.deaths, after, lives

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(held_up()) == ([], [6.0], True)
