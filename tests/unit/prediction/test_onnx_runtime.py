"""Compiled graphs answer in this process; what they were not proved for, and what is too close to call, the estimator answers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from app.errors import DeadlineExceeded, ModelFailed, ModelUnavailable
from app.kernel.clock import Deadline
from app.kernel.signature import Task
from app.kernel.tensors import Batch
from app.prediction.runtimes import flat
from tests.support.serving import TENANT, GraphOpener, Graphs, SumEstimator, compiled_route, numbers, sign_graph, sum_graph

pytestmark = pytest.mark.unit


def mapped_inodes():
    return {line.split()[4] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".ort")}


class Workshop:
    """Opens runtimes over one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.graphs = Graphs()
        self.opener = GraphOpener(folder, self.graphs)
        self.estimator = SumEstimator()

    async def open(self, data, task=Task.REGRESSION):
        self.estimator.task = task

        async def native():
            return self.estimator

        return await self.opener.compiled(TENANT, compiled_route(self.graphs.add(data), task=task), native)


@pytest.fixture
async def workshop(tmp_path):
    made = Workshop(tmp_path)
    yield made
    await made.opener.close()


async def test_a_row_is_answered_at_once_without_leaving_the_loop(workshop):
    runtime = await workshop.open(sum_graph(2.0))
    runtime._one_s = runtime._row_s = 1e-5  # whatever this machine was busy with when it was measured
    waiting = runtime.infer(numbers((1, 2)), Deadline.after(5))
    with pytest.raises(StopIteration) as ended:
        waiting.send(None)  # a coroutine that never waits ends with its first step
    assert ended.value.value.values.tolist() == [6.0]
    assert workshop.estimator.asked == []


async def test_a_large_batch_leaves_the_loop_to_others(workshop):
    runtime = await workshop.open(sum_graph(1.0, layers=4))
    runtime._row_s = 1e-5
    batch = Batch(5000, np.ones((5000, 2)))
    task = asyncio.ensure_future(runtime.infer(batch, Deadline.after(60)))
    await asyncio.sleep(0)
    assert (task.done(), runtime.busy) == (False, True)
    scores = await task
    np.testing.assert_allclose(scores.values, 2.0, rtol=1e-5)
    assert runtime.busy is False


async def test_a_batch_is_given_up_at_its_deadline(workshop):
    runtime = await workshop.open(sum_graph(1.0, layers=60))
    with pytest.raises(DeadlineExceeded):
        await runtime.infer(Batch(10_000, np.ones((10_000, 2))), Deadline.after(0.02))
    with pytest.raises(DeadlineExceeded):
        await runtime.infer(numbers((1, 2)), Deadline.after(-1))


async def test_rows_outside_the_proof_are_answered_by_the_estimator_alone(workshop):
    """1e31 is larger than any number that the proof tried, and would be infinite in the graph's float32 soon after."""
    runtime = await workshop.open(sum_graph())
    scores = await runtime.infer(numbers((1, 2), (1e31, 0), (3, 4)), Deadline.after(5))
    assert scores.values.tolist() == [3.0, 1e31, 7.0]
    assert workshop.estimator.asked == [[1e31, 0.0]]


async def test_classes_too_close_to_call_are_the_estimators(workshop):
    runtime = await workshop.open(sign_graph(), Task.CLASSIFICATION)
    scores = await runtime.infer(numbers((3, 0), (1e-9, 0), (-3, 0)), Deadline.after(5))
    assert scores.labels.tolist() == [1, 1, 0]
    assert workshop.estimator.asked == [[1e-9, 0.0]]
    np.testing.assert_allclose(scores.probabilities[:, 1], 1 / (1 + np.exp([-3, -1e-9, 3])), atol=1e-6)


async def test_what_is_not_finite_fails_as_the_estimator_says(workshop):
    runtime = await workshop.open(sum_graph(1e38))
    workshop.estimator.failure = ModelFailed("predict answered NaN or an infinity.", problems=[{"problem": "ESTIMATOR"}])
    with pytest.raises(ModelFailed, match="predict answered NaN"):
        await runtime.infer(numbers((9, 9)), Deadline.after(5))


async def test_a_closed_runtime_takes_no_more_calls(workshop):
    runtime = await workshop.open(sum_graph())
    await runtime.close()
    with pytest.raises(ModelUnavailable):
        await runtime.infer(numbers((1, 2)), Deadline.after(5))


async def test_a_graph_that_onnxruntime_cannot_take_is_refused(workshop):
    with pytest.raises(ModelFailed, match="could not be loaded"):
        await workshop.open(b"no graph at all")
    assert list(workshop.folder.rglob("*.part")) == list(workshop.folder.rglob("*.onnx")) == []


async def test_a_graph_of_another_signature_is_refused(workshop):
    with pytest.raises(ModelFailed, match="could not be loaded"):
        await workshop.open(sum_graph().replace(b"numbers", b"letters"))


async def test_the_bytes_are_read_once_and_mapped_by_whoever_opens_them(workshop):
    await workshop.open(sum_graph())
    runtime = await workshop.open(sum_graph())
    assert len(workshop.graphs.asked) == 1
    (file,) = workshop.folder.rglob("*.ort")
    assert f"{file.stat().st_ino}" in mapped_inodes()
    assert (await runtime.infer(numbers((1, 2)), Deadline.after(5))).values.tolist() == [3.0]


async def test_a_file_with_a_flipped_bit_is_never_read_and_made_again(workshop):
    await workshop.open(sum_graph())
    (file,) = workshop.folder.rglob("*.ort")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    file.write_bytes(data)
    runtime = await workshop.open(sum_graph())
    assert len(workshop.graphs.asked) == 2
    assert (await runtime.infer(numbers((1, 2)), Deadline.after(5))).values.tolist() == [3.0]


async def test_a_file_that_is_removed_while_it_is_mapped_answers_on_and_is_made_again_for_the_next(workshop):
    first = await workshop.open(sum_graph())
    (file,) = workshop.folder.rglob("*.ort")
    file.unlink()
    second = await workshop.open(sum_graph())
    for runtime in (first, second):
        assert (await runtime.infer(numbers((1, 2)), Deadline.after(5))).values.tolist() == [3.0]
    assert (len(workshop.graphs.asked), len(list(workshop.folder.rglob("*.ort")))) == (2, 1)


async def test_a_file_that_another_process_removes_between_finding_and_opening_is_made_again(workshop):
    await workshop.open(sum_graph())
    (file,) = workshop.folder.rglob("*.ort")
    find = workshop.opener._flats._find

    def found_and_gone(*arguments):
        path = find(*arguments)
        workshop.opener._flats._find = find
        path.unlink()
        return path

    workshop.opener._flats._find = found_and_gone
    runtime = await workshop.open(sum_graph())
    assert (await runtime.infer(numbers((1, 2)), Deadline.after(5))).values.tolist() == [3.0]
    assert file.exists()


async def test_processes_that_open_a_graph_at_once_map_one_file(workshop, monkeypatch):
    best_form = flat._best_form

    def differing(graph):
        """As two processes of onnxruntime may write the same graph."""
        made = best_form(graph)
        with made.open("ab") as file:
            file.write(os.urandom(8))
        return made

    monkeypatch.setattr(flat, "_best_form", differing)
    openers = [GraphOpener(workshop.folder, workshop.graphs) for _ in range(6)]
    route = compiled_route(workshop.graphs.add(sum_graph()))
    paths = await asyncio.gather(*(opener._flats.path(TENANT, route.compiled_digest) for opener in openers))
    assert len(set(paths)) == 1
    assert len(list(workshop.folder.rglob("*.ort"))) == 1
    for opener in openers:
        await opener.close()


async def test_opening_a_file_says_that_it_is_used(workshop):
    await workshop.open(sum_graph())
    (file,) = workshop.folder.rglob("*.ort")
    os.utime(file, (1, 1))
    await workshop.open(sum_graph())
    assert file.stat().st_mtime > 1e9


async def test_another_tenants_file_is_not_taken(workshop):
    """The seal names the tenant: a file copied from one tenant's folder to another's is not what that tenant's service made."""
    await workshop.open(sum_graph())
    (file,) = workshop.folder.rglob("*.ort")
    other = workshop.folder / str(UUID(int=9)) / "flat"
    other.mkdir(parents=True)
    (other / file.name).write_bytes(file.read_bytes())
    assert workshop.opener._flats._find(UUID(int=9), other, workshop.graphs.asked[0]) is None
    assert list(other.iterdir()) == []
