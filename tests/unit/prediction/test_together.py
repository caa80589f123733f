"""Requests of one row that the loop has ready at the same time go through a graph in one call."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from app.errors import DeadlineExceeded, ModelFailed
from app.kernel.clock import Deadline
from app.kernel.signature import Task
from app.prediction.compiled.sessions import CompiledGraph
from app.prediction.runtimes.together import Together
from tests.support.serving import NUMBERS, TENANT, GraphOpener, Graphs, SumEstimator, compiled_route, numbers, sign_graph, sum_graph

pytestmark = pytest.mark.unit


class Calls:
    """Answers a row with its first number; notes what came together. Rows of a negative number fail, and so does any call with them."""

    def __init__(self, most=64, *, indifferent=True):
        self.together, self.alone = [], []
        self.most, self.indifferent = most, indifferent
        self.threads = ThreadPoolExecutor(1)
        self.gathers = Together(self.several, lambda: self.indifferent, lambda: self.most, self.threads)

    def several(self, rows):
        firsts = [row.numbers[0, 0] for row in rows]
        self.together.append(firsts)
        if min(firsts) < 0:
            raise ValueError(firsts)
        return firsts

    def one(self, row):
        first = row.numbers[0, 0]
        self.alone.append(first)
        if first < 0:
            raise ModelFailed(f"no answer to {first}")
        return first

    async def ask(self, first):
        row = numbers((first, 0))
        found = await self.gathers.join(row) if self.gathers.is_for(row) else None
        return self.one(row) if found is None else found

    async def crowd(self, *firsts):
        """What each got, or its error."""
        return await asyncio.gather(*map(self.ask, firsts), return_exceptions=True)

    async def tried(self):
        """Two turns with several requests: it is known now what company does, and that there is some."""
        await self.crowd(1, 2)
        await self.crowd(1, 2)
        await self.gathers._tried
        await self.crowd(1, 2)
        self.together.clear()
        self.alone.clear()


@pytest.fixture
async def calls():
    made = Calls()
    await made.tried()
    yield made
    made.threads.shutdown()


async def test_what_comes_in_one_turn_goes_in_one_call(calls):
    assert await calls.crowd(5, 6, 7) == [5, 6, 7]
    assert (calls.together, calls.alone) == ([[5, 6, 7]], [])


async def test_who_asks_alone_waits_for_nobody(calls):
    await calls.ask(1)  # after a crowd, until a turn brings nobody
    assert (calls.together, calls.alone) == ([[1]], [])
    assert not calls.gathers.is_for(numbers((2, 0)))


async def turns(calls, *asked):
    """Who asks in which turn of the loop; what had gone together at the end of each."""
    tasks, seen = [], []
    for firsts in asked:
        tasks += [asyncio.ensure_future(calls.ask(first)) for first in firsts]
        await asyncio.sleep(0)
        seen.append([sorted(rows) for rows in calls.together])
    await asyncio.gather(*tasks)
    assert calls.alone == []
    return seen


async def test_a_row_waits_while_each_turn_brings_others_and_for_three_turns_at_most(calls):
    seen = await turns(calls, [1, 2], [3], [4], [5], [], [])
    assert seen[:3] == [[], [], []]
    assert seen[3:] == [[[1, 2, 3, 4]], [[1, 2, 3, 4]], [[1, 2, 3, 4], [5]]]


async def test_a_row_waits_no_more_once_a_turn_brought_nobody(calls):
    assert await turns(calls, [1, 2], [], [3]) == [[], [], [[1, 2]]]


async def test_a_row_does_not_wait_for_others_for_longer_than_five_milliseconds(calls, monkeypatch):
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    for turn_s, together in ((0.0049, []), (0.005, [[1, 2]])):
        tasks = [asyncio.ensure_future(calls.ask(first)) for first in (1, 2)]
        await asyncio.sleep(0)
        now += turn_s
        tasks.append(asyncio.ensure_future(calls.ask(3)))
        await asyncio.sleep(0)
        assert calls.together == together
        await asyncio.gather(*tasks)
        calls.together.clear()


async def test_a_row_does_not_wait_for_more_than_may_go_in_one_call(calls):
    calls.most = 2
    assert await turns(calls, [1, 2], [3]) == [[], [[1, 2]]]


async def test_a_batch_is_no_company(calls):
    assert not calls.gathers.is_for(numbers((1, 0), (2, 0)))


async def test_in_a_call_that_fails_each_row_learns_its_own(calls):
    good, bad, other = await calls.crowd(5, -1, 7)
    assert (good, other, str(bad)) == (5, 7, "no answer to -1.0")
    assert isinstance(bad, ModelFailed)


async def test_no_more_go_in_one_call_than_may(calls):
    calls.most = 2
    assert await calls.crowd(1, 2, 3, 4, 5) == [1, 2, 3, 4, 5]
    assert (calls.together, calls.alone) == ([[1, 2], [3, 4], [5]], [])


async def test_one_call_a_turn_however_many_wait_and_still_come(calls):
    """Others of the loop come in between, in each turn."""
    calls.most = 2
    tasks, seen = [], []
    for turn in range(6):
        tasks += [asyncio.ensure_future(calls.ask(10 * turn + more)) for more in (1, 2, 3)]
        await asyncio.sleep(0)
        seen.append(len(calls.together))
    await asyncio.gather(*tasks)
    assert all(after - before <= 1 for before, after in itertools.pairwise(seen))
    assert list(itertools.chain(*calls.together)) == [10 * turn + more for turn in range(6) for more in (1, 2, 3)]


async def test_a_row_that_fails_is_asked_again_in_its_own_callers_name(calls):
    who = ContextVar("who", default="nobody")
    one, named = calls.one, []
    calls.one = lambda row: (named.append(who.get()), one(row))[1]

    async def asked_by(name, first):
        who.set(name)
        return await calls.ask(first)

    await asyncio.gather(asked_by("first", 1), asked_by("second", -2), return_exceptions=True)
    assert named == ["first", "second"]


async def test_where_there_are_no_threads_any_more_each_row_goes_alone():
    calls = Calls()
    calls.threads.shutdown()
    for _ in range(3):
        assert await calls.crowd(5, 6) == [5, 6]
    assert calls.together == []


async def test_who_went_away_is_not_answered(calls):
    tasks = [asyncio.ensure_future(calls.ask(first)) for first in (1, 2, 3)]
    asyncio.get_running_loop().call_soon(tasks[1].cancel)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert (answers[0], answers[2], calls.together) == (1, 3, [[1, 3]])
    assert isinstance(answers[1], asyncio.CancelledError)


async def test_rows_whose_callers_went_away_take_nobodys_turn(calls):
    calls.most = 1
    tasks = [asyncio.ensure_future(calls.ask(first)) for first in range(20)]
    await asyncio.sleep(0)
    for task in tasks[:19]:
        task.cancel()
    last = asyncio.ensure_future(calls.ask(20))
    for _ in range(6):
        await asyncio.sleep(0)
    assert (tasks[19].result(), last.result()) == (19, 20)


async def test_where_company_matters_rows_do_not_wait_for_their_turns():
    calls = Calls(indifferent=False)
    calls.most = 1
    await calls.tried()
    tasks = [asyncio.ensure_future(calls.ask(first)) for first in range(64)]
    for _ in range(4):
        await asyncio.sleep(0)
    assert [task.result() for task in tasks] == list(range(64))
    calls.threads.shutdown()


async def test_where_company_matters_each_row_goes_alone_and_behind_the_others():
    calls = Calls(indifferent=False)
    await calls.tried()
    later = [asyncio.ensure_future(calls.ask(first)) for first in (5, 6)]
    await asyncio.sleep(0)
    assert (calls.together, calls.alone) == ([], [])
    assert await calls.ask(7) == 7
    assert [await each for each in later] == [5, 6]
    assert (calls.together, calls.alone) == ([], [5, 6, 7])
    calls.threads.shutdown()


async def test_what_cannot_be_tried_goes_alone():
    calls = Calls()
    calls.gathers = Together(calls.several, lambda: 1 // 0, lambda: 64, calls.threads)
    await calls.crowd(1, 2)
    await calls.crowd(1, 2)
    with pytest.raises(ZeroDivisionError):
        await calls.gathers._tried
    assert await calls.crowd(5, 6) == [5, 6]
    assert calls.together == []
    calls.threads.shutdown()


# --- with graphs


def most_of_all_graph():
    """values = a + b less the largest of all rows: no row's answer is its own."""
    nodes = [
        helper.make_node("ReduceSum", ["numbers", "axis"], ["sum"], keepdims=1),
        helper.make_node("ReduceMax", ["sum"], ["most"], keepdims=1, axes=[0]),
        helper.make_node("Sub", ["sum", "most"], ["values"]),
    ]
    given_ = helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [None, 2])
    found = helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, 1])
    axis = helper.make_tensor("axis", TensorProto.INT64, (1,), [1])
    graph = helper.make_graph(nodes, "graph", [given_], [found], [axis])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("graph", "task", "classes", "indifferent"),
    [
        (sum_graph(), Task.REGRESSION, 0, True),
        (sign_graph(), Task.CLASSIFICATION, 2, True),
        (most_of_all_graph(), Task.REGRESSION, 0, False),
    ],
)
def test_whether_company_changes_an_answer_is_tried(graph, task, classes, indifferent):
    compiled = CompiledGraph(InferenceSession(graph, providers=["CPUExecutionProvider"]), NUMBERS, task, classes)
    assert compiled.is_indifferent() is indifferent


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 2), min_size=1, max_size=20))
def test_in_company_each_row_has_the_answer_that_it_has_alone(rows):
    compiled = CompiledGraph(InferenceSession(sign_graph(), providers=["CPUExecutionProvider"]), NUMBERS, Task.CLASSIFICATION, 2)
    batches = [numbers(row) for row in rows]
    for found, batch in zip(compiled.answers(batches), batches, strict=True):
        alone = compiled.answer(batch)
        assert found.scores.labels.tolist() == alone.scores.labels.tolist()
        assert found.scores.probabilities.tobytes() == alone.scores.probabilities.tobytes()
        assert found.doubtful.tolist() == alone.doubtful.tolist()


async def test_a_row_that_is_asked_by_itself_after_its_deadline_is_not_asked(tmp_path, monkeypatch):
    graphs = Graphs()
    opener = GraphOpener(tmp_path, graphs)
    runtime = await opener.compiled(TENANT, compiled_route(graphs.add(sign_graph()), task=Task.CLASSIFICATION), None)
    late = Deadline.after(5)

    async def nothing(_batch):
        monkeypatch.setattr("app.prediction.runtimes.onnx.time.monotonic", lambda: late.at)

    monkeypatch.setattr(runtime._together, "is_for", lambda _batch: True)
    monkeypatch.setattr(runtime._together, "join", nothing)
    with pytest.raises(DeadlineExceeded):
        await runtime.infer(numbers((1, 0)), late)
    monkeypatch.undo()
    await opener.close()


async def test_the_rows_that_the_graph_must_not_answer_are_the_estimators_in_company_too(tmp_path):
    graphs, estimator = Graphs(), SumEstimator(Task.CLASSIFICATION)

    async def native():
        return estimator

    opener = GraphOpener(tmp_path, graphs)
    runtime = await opener.compiled(TENANT, compiled_route(graphs.add(sign_graph()), task=Task.CLASSIFICATION), native)
    runtime._one_s = runtime._row_s = 1e-6  # whatever this machine was busy with when it was measured
    called = []
    graph = runtime._graph._one
    several, graph._several = graph._several, lambda rows: called.append(len(rows)) or several(rows)

    async def crowd(*rows):
        return await asyncio.gather(*(runtime.infer(numbers(row), Deadline.after(5)) for row in rows))

    await crowd((1, 0), (2, 0))
    await crowd((1, 0), (2, 0))
    await runtime._together._tried
    called.clear()  # of the trial
    found = await crowd((3, 0), (1e-9, 0), (1e31, 0), (-3, 0))
    assert called == [3]
    assert runtime._row_s == 1e-6  # which is what rows of a batch cost
    assert [scores.labels.tolist() for scores in found] == [[1], [1], [1], [0]]
    assert sorted(estimator.asked) == [[1e-9, 0.0], [1e31, 0.0]]
    assert runtime.busy is False
    await opener.close()
