"""One prediction through the parts of a serving process: what answers, what is kept, what is written down."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.predicting import BANK, CLINIC, Process
from tests.support.serving import compiled_route

pytestmark = pytest.mark.unit


@pytest.fixture
async def process(tmp_path):
    made = Process(tmp_path)
    yield made
    await made.pool.close()


async def test_nothing_is_kept_unless_the_model_asks_for_it(process):
    process.serve(0)
    assert [(await process.ask([1, 2])).value for _ in range(3)] == [3.0] * 3
    assert (process.around.runtimes, len(process.cache)) == (["onnx"] * 3, 0)


async def test_a_kept_answer_is_a_prediction_of_its_own_in_the_log(process):
    process.serve(60)
    answers = [await process.ask(row) for row in ([1, 2], {"a": 1.0, "b": 2}, [2, 1])]
    assert [answer.value for answer in answers] == [3.0] * 3
    assert process.around.runtimes == ["onnx", "cache", "onnx"], "the same values are the same input, however they are written"
    assert [record.id for record in process.around.records] == [answer.id for answer in answers]
    assert len({answer.id for answer in answers}) == 3
    assert [(record.score, record.degraded, record.rows) for record in process.around.records] == [(3.0, False, 1)] * 3
    assert process.around.charged == 3


async def test_a_kept_answer_is_no_other_tenants(process):
    process.serve(60)
    process.serve(60, BANK)
    await process.ask([1, 2])
    await process.ask([1, 2], BANK)
    assert process.around.runtimes == ["onnx", "onnx"]


async def test_a_kept_answer_ends_with_its_time(process):
    process.serve(60)
    await process.ask([1, 2])
    process.clock.advance(60)
    await process.ask([1, 2])
    assert process.around.runtimes == ["onnx", "onnx"]


async def test_a_version_taken_off_its_graph_gives_none_of_the_graphs_answers(process):
    process.serve(60)
    await process.ask([1, 2])
    process.serve(60, route=replace(compiled_route(None), compiled_digest=process.route.compiled_digest))
    await process.ask([1, 2])
    assert process.around.runtimes == ["onnx", "sklearn"]


async def test_batches_are_kept_whole(process):
    process.serve(60)
    both = [await process.ask_batch([[1, 2], [3, 4]]) for _ in range(2)]
    assert [answer.values.tolist() for answer in both] == [[3.0, 7.0]] * 2
    await process.ask_batch([[3, 4], [1, 2]])
    assert process.around.runtimes == ["onnx", "cache", "onnx"]


async def test_a_failure_is_not_kept(process):
    route = compiled_route(None)
    process.serve(60, route=route)
    runtime = await process.pool.get(CLINIC, route)
    runtime.failure = RuntimeError("once")
    with pytest.raises(RuntimeError):
        await process.ask([1, 2])
    runtime.failure = None
    assert (await process.ask([1, 2])).value == 3.0
    assert process.around.runtimes == ["sklearn"]
