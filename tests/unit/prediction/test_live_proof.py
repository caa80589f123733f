"""The proof that goes on: a share of compiled answers is compared with the estimator's, beside the callers, never before them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import numpy as np
import pytest

from app.errors import ModelFailed, Unavailable
from app.kernel.clock import Deadline
from app.kernel.signature import Task
from app.kernel.tensors import Batch, Scores
from app.prediction import live_proof
from app.prediction.live_proof import LiveProof
from app.prediction.pool import RuntimePool
from app.prediction.routing import RoutedVersion, RoutingTable
from tests.support.clock import ManualClock
from tests.support.serving import TENANT, GraphOpener, Graphs, compiled_route, numbers, sign_graph, sum_graph

pytestmark = pytest.mark.unit


@dataclass
class Notes:
    """What would go to the metrics and to the version."""

    outcomes: list[str] = field(default_factory=list)
    mismatches: list[tuple] = field(default_factory=list)
    away: bool = False

    def live_proof(self, outcome):
        self.outcomes.append(outcome)

    async def record(self, *found):
        if self.away:
            raise Unavailable("the database is away")
        self.mismatches.append(found)


class Bench:
    def __init__(self, folder, share=1.0, chance=lambda: 0.0):
        self.graphs, self.notes, self.table = Graphs(), Notes(), RoutingTable()
        self.opener = GraphOpener(folder, self.graphs)
        self.pool = RuntimePool(self.opener, 10**9, ManualClock())
        self.proof = LiveProof(self.pool, self.table, self.notes, self.notes, share, chance)

    async def ask(self, route, batch):
        runtime = await self.pool.get(TENANT, route)
        scores = await runtime.infer(batch, Deadline.after(10))
        self.proof.consider(TENANT, route, batch, scores)
        return scores


@pytest.fixture
async def make_bench(tmp_path):
    made = []

    def make(**more):
        made.append(Bench(tmp_path, **more))
        return made[-1]

    yield make
    for bench in made:
        await bench.pool.close()


@contextlib.asynccontextmanager
async def running(proof):
    task = asyncio.create_task(proof.run())
    yield
    await proof.settled()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_equal_graph_is_never_switched(make_bench):
    bench = make_bench()
    route = compiled_route(bench.graphs.add(sum_graph()))
    async with running(bench.proof):
        for k in range(12):
            await bench.ask(route, numbers((k / 7, 5 - k)))
    assert (bench.notes.outcomes, bench.notes.mismatches) == (["equal"] * 12, [])


async def test_a_graph_that_is_wrong_in_one_region_is_found_there_and_told(make_bench):
    bench = make_bench()
    route = compiled_route(bench.graphs.add(sum_graph(wrong_above=10.0)), 3)
    async with running(bench.proof):
        await bench.ask(route, numbers((9.5, 1)))
        assert (await bench.ask(route, numbers((10.5, 1)))).values.tolist() == [12.5]
    assert bench.notes.outcomes == ["equal", "mismatch"]
    ((*where, found),) = bench.notes.mismatches
    assert where == [TENANT, route.model_id, 3, route.compiled_digest]
    assert found.startswith("an answer 1 from scikit-learn's")


async def test_a_graph_found_wrong_is_distrusted_here_at_once_and_told_when_the_database_is_back(make_bench, monkeypatch):
    monkeypatch.setattr(live_proof, "_SWEEP_S", 0.001)
    bench = make_bench()
    route = compiled_route(bench.graphs.add(sum_graph(wrong_above=0.0)), 3)
    bench.notes.away = True
    async with running(bench.proof):
        await bench.ask(route, numbers((1, 1)))
        await bench.proof.settled()
        assert bench.table.trusted(RoutedVersion(route)).route.is_compiled is False
        assert (bench.notes.outcomes, bench.notes.mismatches) == (["mismatch"], [])
        bench.notes.away = False
        async with asyncio.timeout(20):
            while not bench.notes.mismatches:  # noqa: ASYNC110  what is waited for tells nobody
                await asyncio.sleep(0.001)
    assert [found[:3] for found in bench.notes.mismatches] == [(TENANT, route.model_id, 3)]


async def test_another_class_is_a_mismatch_however_close(make_bench):
    bench = make_bench()
    route = compiled_route(bench.graphs.add(sign_graph()), task=Task.CLASSIFICATION)
    batch = numbers((1, 0), (2, 0))
    async with running(bench.proof):
        scores = await bench.ask(route, batch)
        bench.proof.consider(TENANT, route, batch, Scores(np.array([1, 0], np.int32), scores.probabilities))
    assert bench.notes.outcomes == ["equal", "mismatch"]
    assert bench.notes.mismatches[0][-1] == "another class than scikit-learn's on 1 of 2 rows"


async def test_nothing_is_compared_on_the_callers_time(make_bench):
    """The estimator is not even opened before the caller has the answer."""
    bench = make_bench()
    route = compiled_route(bench.graphs.add(sum_graph()))
    await bench.ask(route, numbers((1, 2)))
    assert (bench.opener.estimators, bench.notes.outcomes) == ([], [])


async def test_what_does_not_fit_the_queue_is_dropped(make_bench):
    bench = make_bench()
    route = compiled_route(bench.graphs.add(sum_graph()))
    for _ in range(20):
        await bench.ask(route, numbers((1, 2)))
    assert bench.notes.outcomes == ["dropped"] * 4
    async with running(bench.proof):
        pass
    assert bench.notes.outcomes == ["dropped"] * 4 + ["equal"] * 16


async def test_only_the_share_is_compared(make_bench):
    draws = iter([0.0009, 0.001, 0.5, 0.9999, 0.0, 0.25])
    bench = make_bench(share=0.001, chance=lambda: next(draws))
    route = compiled_route(bench.graphs.add(sum_graph()))
    async with running(bench.proof):
        for _ in range(6):
            await bench.ask(route, numbers((1, 2)))
    assert bench.notes.outcomes == ["equal"] * 2


async def test_a_share_of_nothing_compares_nothing(make_bench):
    bench = make_bench(share=0.0)
    route = compiled_route(bench.graphs.add(sum_graph(wrong_above=0.0)))
    async with running(bench.proof):
        await bench.ask(route, numbers((1, 2)))
    assert bench.notes.outcomes == []


async def test_of_a_large_batch_the_first_rows_are_compared(make_bench):
    bench = make_bench()
    route = compiled_route(bench.graphs.add(sum_graph()))
    async with running(bench.proof):
        await bench.ask(route, Batch(5000, np.arange(10_000.0).reshape(5000, 2)))
    assert [len(bench.opener.estimators[0].asked), bench.notes.outcomes] == [100, ["equal"]]


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Unavailable("the model host is away"), "failed"),
        (ModelFailed("died", problems=[{"problem": "WORKER_DIED"}]), "failed"),
        (ModelFailed("refuses", problems=[{"problem": "ESTIMATOR"}]), "mismatch"),
    ],
)
async def test_an_estimator_that_refuses_what_its_graph_answers_is_a_mismatch_and_one_that_is_away_is_not(make_bench, failure, outcome):
    bench = make_bench()
    route = compiled_route(bench.graphs.add(sum_graph()))
    (await bench.pool.estimator(TENANT, route)).failure = failure
    async with running(bench.proof):
        await bench.ask(route, numbers((1, 2)))
    assert (bench.notes.outcomes, len(bench.notes.mismatches)) == ([outcome], outcome == "mismatch")
