"""One prediction through the parts of a serving process: what answers, what is kept, what is written down."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from app.kernel.clock import Deadline
from app.kernel.context import RequestContext, Role
from app.kernel.ids import IdMint
from app.kernel.signature import Task
from app.prediction.cache import PredictionCache
from app.prediction.choosing import Chooser
from app.prediction.live_proof import LiveProof
from app.prediction.pool import RuntimePool
from app.prediction.routing import RoutedVersion, RoutingTable, TenantRoutes
from app.prediction.service import Predictor
from app.prediction.shadows import Shadows
from app.prediction.types import BatchRows, RouteRequest
from app.registry.types import PRODUCTION, ModelRoute
from app.tenancy.keys import TenantKeys
from app.tenancy.permissions import actions_of
from tests.support.clock import ManualClock
from tests.support.serving import GraphOpener, Graphs, compiled_route, sum_graph

pytestmark = pytest.mark.unit

CLINIC, BANK = UUID(int=1), UUID(int=2)


@dataclass
class Around:
    """What the predictor asks and tells: directory, journal, budget and telemetry."""

    records: list[Any] = field(default_factory=list)
    runtimes: list[str] = field(default_factory=list)
    charged: int = 0

    def by_id(self, tenant_id):
        return SimpleNamespace(
            tenant=SimpleNamespace(settings=SimpleNamespace(durability="DURABLE")), keys=TenantKeys.derive(tenant_id, b"s" * 32)
        )

    def check_room(self, durability): ...

    async def append(self, record, durability):
        self.records.append(record)

    def charge(self, tenant_id, rows):
        self.charged += rows

    def prediction(self, *, runtime, **_):
        self.runtimes.append(runtime)

    def live_proof(self, outcome): ...


class Process:
    def __init__(self, folder):
        self.around, self.clock, graphs = Around(), ManualClock(), Graphs()
        self.route = compiled_route(graphs.add(sum_graph()))
        self.pool = RuntimePool(GraphOpener(folder, graphs), 1 << 30, self.clock)
        self.table = RoutingTable()
        self.cache = PredictionCache(1 << 20, 100, self.clock)
        proof = LiveProof(self.pool, self.table, None, self.around, 0.0)
        a = self.around
        chooser, self.shadows = Chooser(self.table, None, self.pool, a), Shadows(self.table, self.pool, a, a, self.clock)
        self.predictor = Predictor(a, chooser, self.pool, self.cache, proof, self.shadows, a, a, IdMint(self.clock), a, self.clock)

    def serve(self, cache_seconds, tenant_id=CLINIC, route=None):
        route = route or self.route
        model = ModelRoute(route.model_id, "sum", Task.REGRESSION, {PRODUCTION: 1}, {1: route}, cache_seconds)
        self.table.apply(tenant_id, TenantRoutes.of([model], {(route.model_id, 1): RoutedVersion.of(route)}))

    async def ask(self, row, tenant_id=CLINIC):
        roles = frozenset({Role.PREDICTOR})
        ctx = RequestContext(tenant_id, "t", "s", roles, actions_of(roles), None, "r", Deadline.after(20))
        return await self.predictor.predict(ctx, RouteRequest("sum"), row)

    async def ask_batch(self, rows):
        roles = frozenset({Role.PREDICTOR})
        ctx = RequestContext(CLINIC, "t", "s", roles, actions_of(roles), None, "r", Deadline.after(20))
        return await self.predictor.predict_batch(ctx, RouteRequest("sum"), BatchRows(rows, None))


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
