"""Compiled graphs at rest, and the end of one that answers otherwise than its estimator."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from app.errors import ModelUnavailable
from app.kernel.clock import Deadline
from app.kernel.inspection import InspectionReport
from app.prediction.live_proof import LiveProof
from app.prediction.pool import RuntimePool
from app.prediction.routing import RoutingTable
from app.prediction.runtimes.flat import FlatFiles
from app.registry.compiled_models import CompiledModels
from app.registry.mismatches import CompiledMismatches
from app.registry.routes import VersionLookup
from app.registry.types import ModelRoute, RuntimeKind, VersionRoute
from tests.support.serving import NUMBERS, GraphOpener, Graphs, numbers, sum_graph

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from tests.integration.registry.conftest import Registry

pytestmark = pytest.mark.integration

WRONG_ABOVE_TEN = sum_graph(wrong_above=10.0)


@dataclass
class Ears:
    """Hears what is announced and what is measured."""

    woken: int = 0
    outcomes: list[str] = field(default_factory=list)

    def wake(self) -> None:
        self.woken += 1

    async def caught_up(self, tenant_id: UUID | None = None) -> None: ...

    def live_proof(self, outcome: str) -> None:
        self.outcomes.append(outcome)


class Serving:
    """One process that serves a version by a planted graph, and compares every answer."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.registry, self.ears = registry, Ears()
        self.graphs = CompiledModels(registry.database, registry.limits)
        self.mismatches = CompiledMismatches(registry.database, registry.clock, self.ears)
        opener = GraphOpener(folder, Graphs())
        opener._flats = FlatFiles(folder, self.graphs, registry.limits)
        self.pool = RuntimePool(opener, 1 << 30, registry.clock)
        self.proof = LiveProof(self.pool, RoutingTable(), self.mismatches, self.ears, 1.0)

    async def plant(self, graph: bytes) -> int:
        """A READY version whose proof is said to have passed."""
        report = InspectionReport(None, NUMBERS, None, "LinearRegression", {}, ())
        await self.registry.upload(b"the estimator")
        number = await self.registry.checked(await self.registry.register(b"the estimator"), report)
        async with self.registry.database.tenant_tx(self.registry.tenant) as session:
            digest = await self.graphs.add(session, self.registry.tenant, graph)
        self.registry.sql(
            "update model_versions set runtime = 'ONNX', compiled_digest = $1, compiled_size_bytes = $2, proof = $3::jsonb",
            digest, len(graph), json.dumps({"reason": None, "rows": 1000, "tolerance": 1e-5, "middle": 0.0}),
        )  # fmt: skip
        self.registry.sql("update models set task = 'REGRESSION'")
        return number

    async def route(self, number: int) -> VersionRoute:
        model = await self.registry.service.model(self.registry.ctx, "risk")
        found = ModelRoute(model.model_id, model.name, model.task, {}, {})
        return await VersionLookup(self.registry.database).find(self.registry.tenant, found, number)

    async def ask(self, route: VersionRoute, *rows: tuple[float, float]) -> list[float]:
        """The answers, each compared."""
        running = asyncio.create_task(self.proof.run())
        values: list[float] = []
        for row in rows:
            runtime = await self.pool.get(self.registry.tenant, route)
            scores = await runtime.infer(numbers(row), Deadline.after(20))
            self.proof.consider(self.registry.tenant, route, numbers(row), scores)
            assert scores.values is not None
            values += scores.values.tolist()
        await self.proof.settled()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return values

    def stored(self) -> Any:
        row = self.registry.sql("select runtime, proof, warning from model_versions")[0]
        return row["runtime"], json.loads(row["proof"]).get("mismatches"), row["warning"]

    def announced(self) -> int:
        return int(self.registry.sql("select count(*) from outbox")[0][0])


@pytest.fixture
async def serving(registry: Registry, tmp_path: Path) -> Any:
    made = Serving(registry, tmp_path / "flat")
    yield made
    await made.pool.close()


async def test_a_graph_that_is_wrong_in_one_region_is_found_counted_and_switched_everywhere(serving: Serving) -> None:
    number = await serving.plant(WRONG_ABOVE_TEN)
    route, before = await serving.route(number), serving.announced()
    assert route.is_compiled
    assert await serving.ask(route, (9.5, 1.0), (3.0, 4.0)) == [10.5, 7.0]
    assert serving.stored() == ("ONNX", None, None)
    assert await serving.ask(route, (10.5, 1.0)) == [12.5]
    runtime, mismatches, warning = serving.stored()
    assert (runtime, mismatches) == ("SKLEARN", 1)
    assert "an answer 1 from scikit-learn's" in warning
    assert (serving.announced(), serving.ears.woken) == (before + 1, 1)
    assert serving.ears.outcomes == ["equal", "equal", "mismatch"]
    entry = serving.registry.sql("select actor, subject, before, after from audit_entries where action = 'switchRuntime'")
    assert [tuple(row) for row in entry] == [("turnout", f"version:risk/{number}", '{"runtime": "ONNX"}', '{"runtime": "SKLEARN"}')]
    switched = await serving.route(number)
    assert (switched.runtime, switched.is_compiled) == (RuntimeKind.SKLEARN, False)
    assert await serving.ask(switched, (10.5, 1.0)) == [11.5]


async def test_more_mismatches_are_counted_and_switch_nothing_again(serving: Serving) -> None:
    """Replicas go on answering by the graph until they have heard, and may find the same."""
    route, before = await serving.route(await serving.plant(WRONG_ABOVE_TEN)), serving.announced()
    await serving.ask(route, (11.0, 0.0), (12.0, 0.0), (13.0, 0.0))
    assert serving.stored()[:2] == ("SKLEARN", 3)
    assert (serving.announced(), serving.ears.woken) == (before + 1, 1)


async def test_an_equal_graph_is_never_switched(serving: Serving) -> None:
    route, before = await serving.route(await serving.plant(sum_graph())), serving.announced()
    await serving.ask(route, *((k * 1.7, 10.0 - k) for k in range(14)))
    assert serving.ears.outcomes == ["equal"] * 14
    assert serving.stored() == ("ONNX", None, None)
    assert serving.announced() == before


async def test_what_was_found_of_another_graph_says_nothing_of_this_one(serving: Serving) -> None:
    route = await serving.route(await serving.plant(sum_graph()))
    await serving.mismatches.record(serving.registry.tenant, route.model_id, route.number, "0" * 64, "found of an older graph")
    assert serving.stored() == ("ONNX", None, None)


async def test_one_flipped_bit_in_a_stored_graph_is_refused_before_it_is_read(serving: Serving) -> None:
    route = await serving.route(await serving.plant(sum_graph()))
    serving.registry.sql("update compiled_models set data = set_bit(data, 77, 1 - get_bit(data, 77))")
    with pytest.raises(ModelUnavailable, match="not those that were stored"):
        await serving.graphs.bytes(serving.registry.tenant, str(route.compiled_digest))
    assert (await serving.pool.get(serving.registry.tenant, route)).kind == "sklearn"


async def test_a_graph_sealed_by_nobody_is_refused(serving: Serving) -> None:
    """Whoever can write the table and not the tenant's key puts a graph there in vain."""
    route = await serving.route(await serving.plant(sum_graph()))
    serving.registry.sql("update compiled_models set mac = $1", b"\0" * 32)
    with pytest.raises(ModelUnavailable, match="seal"):
        await serving.graphs.bytes(serving.registry.tenant, str(route.compiled_digest))


async def test_the_same_graph_is_stored_once(serving: Serving) -> None:
    await serving.plant(sum_graph())
    async with serving.registry.database.tenant_tx(serving.registry.tenant) as session:
        await serving.graphs.add(session, serving.registry.tenant, sum_graph())
    assert serving.registry.sql("select count(*) from compiled_models")[0][0] == 1
