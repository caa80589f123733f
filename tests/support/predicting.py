"""One serving process without a database or a model host: what answers, what is kept, what is written down."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.errors import LogUnavailable
from app.experiments.flags.building import FlagBuilder
from app.experiments.types import RunningExperiment, Variant
from app.kernel.clock import Deadline
from app.kernel.context import RequestContext, Role
from app.kernel.ids import IdMint
from app.kernel.signature import Task
from app.prediction.asking import Versions
from app.prediction.breakers import Breakers
from app.prediction.bulkheads import TenantThreads
from app.prediction.cache import PredictionCache
from app.prediction.choosing import Chooser
from app.prediction.fallbacks import Fallbacks
from app.prediction.flags import FlagBook
from app.prediction.live_proof import LiveProof
from app.prediction.loop_watch import LoopWatch
from app.prediction.pool import RuntimePool, key_of
from app.prediction.routing import RoutedVersion, RoutingTable, TenantRoutes
from app.prediction.service import Predictor
from app.prediction.shadows import Shadows
from app.prediction.types import BatchRows, RouteRequest
from app.registry.types import PRODUCTION, ModelRoute, VersionRoute
from app.tenancy.keys import TenantKeys
from app.tenancy.permissions import actions_of
from tests.support.clock import ManualClock
from tests.support.serving import GraphOpener, Graphs, compiled_route, sum_graph

if TYPE_CHECKING:
    from pathlib import Path

CLINIC, BANK = UUID(int=1), UUID(int=2)


def variant(name: str, version: int | None, weight: int = 1, *, control: bool = False, shadow: bool = False, **more: Any) -> Variant:
    return Variant(name, version, more.get("alias"), 0 if shadow else weight, control, shadow)


def running(*variants: Variant, key: str = "colour", rollout: float = 100.0, **more: Any) -> RunningExperiment:
    """An experiment on the model `sum`."""
    values: dict[str, Any] = {"layer": None, "slots": ((0, round(rollout * 1000)),), "targeting": (), "overrides": ()}
    return RunningExperiment(key=key, model="sum", rollout=rollout, variants=variants, **(values | more))


@dataclass
class Around:
    """What the predictor asks and tells: directory, journal, budget and telemetry."""

    records: list[Any] = field(default_factory=list)
    said: list[Any] = field(default_factory=list)  # of shadows
    runtimes: list[str] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)
    fallen: list[tuple[str, str]] = field(default_factory=list)  # kind of fallback, and what came of it
    breakers: list[tuple[str, int]] = field(default_factory=list)
    shadows: list[tuple[str, str]] = field(default_factory=list)
    refused: int = 0
    charged: int = 0
    holdout_percent: float = 0.0
    full: bool = False

    def by_id(self, tenant_id: UUID) -> Any:
        settings = SimpleNamespace(durability="DURABLE", capture_inputs=False, holdout_percent=self.holdout_percent)
        return SimpleNamespace(tenant=SimpleNamespace(id="clinic", settings=settings), keys=TenantKeys.derive(tenant_id, b"s" * 32))

    def check_room(self, _durability: Any) -> None:
        if self.full:
            raise LogUnavailable("The prediction log is full.")

    async def append(self, record: Any, _durability: Any, _deadline: Any = None) -> None:
        self.records.append(record)

    def append_now(self, record: Any, durability: Any) -> None:
        assert durability == "BUFFERED"
        self.said.append(record)

    def under_way(self, _tenant_id: UUID) -> Any:
        return nullcontext()

    async def charge(self, _tenant_id: UUID, rows: int) -> None:
        self.charged += rows

    def prediction(self, *, runtime: str, **_: Any) -> None:
        self.runtimes.append(runtime)

    def live_proof(self, outcome: str) -> None: ...

    def flag_fallback(self, reason: str) -> None:
        self.fallbacks.append(reason)

    def breaker(self, state: str, not_closed: int) -> None:
        self.breakers.append((state, not_closed))

    def fallback(self, kind: str, outcome: str) -> None:
        self.fallen.append((str(kind), outcome))

    def flags_refused(self) -> None:
        self.refused += 1

    def shadow(self, kind: str, outcome: str) -> None:
        self.shadows.append((str(kind), outcome))


class Process:
    def __init__(self, folder: Path) -> None:
        self.around, self.clock, self.graphs = Around(), ManualClock(), Graphs()
        self.route = compiled_route(self.graphs.add(sum_graph()))
        self.opener = GraphOpener(folder, self.graphs)
        self.pool = RuntimePool(self.opener, 1 << 30, self.clock)
        self.table = RoutingTable()
        self.cache = PredictionCache(1 << 20, 100, self.clock)
        a: Any = self.around
        proof = LiveProof(self.pool, self.table, a, a, 0.0)
        self.book = FlagBook(a, FlagBuilder(), a)
        lookup: Any = None
        chooser, self.shadows = Chooser(self.table, lookup, self.pool, a), Shadows(self.table, self.pool, a, a, self.clock)
        self.loop = LoopWatch(self.clock)
        self.breakers = Breakers(a, self.loop)
        versions = Versions(self.pool, self.cache, proof, self.breakers, self.clock)
        fallbacks = Fallbacks(self.table, versions, a)
        self.predictor = Predictor(a, chooser, versions, fallbacks, self.shadows, a, a, IdMint(self.clock), a, TenantThreads())

    def version(self, number: int, **more: Any) -> VersionRoute:
        """Answers `number` times the sum."""
        return compiled_route(self.graphs.add(sum_graph(float(number))), number, **more)

    def serve(self, cache_seconds: int = 0, tenant_id: UUID = CLINIC, route: VersionRoute | None = None) -> None:
        route = route or self.route
        model = ModelRoute(route.model_id, "sum", Task.REGRESSION, {PRODUCTION: 1}, {1: route}, cache_seconds)
        self.pool.keep({key_of(tenant_id, route)}, {tenant_id})  # what production points at is waited for, however busy the machine is
        self.table.apply(tenant_id, TenantRoutes.of([model], {(route.model_id, 1): RoutedVersion(route)}))

    async def run(self, *experiments: RunningExperiment, routes: list[VersionRoute] | None = None, generation: int = 7) -> None:
        """Versions 1, 2 and 3 (or `routes`) are open, production is 1, and these experiments run."""
        routes = routes if routes is not None else [self.version(number) for number in (1, 2, 3)]
        await self.pool.warm(CLINIC, routes)
        self.apply(*experiments, routes=routes, generation=generation)

    def apply(self, *experiments: RunningExperiment, routes: list[VersionRoute], generation: int = 7) -> None:
        """As `run`, and nothing is opened."""
        model = ModelRoute(self.route.model_id, "sum", Task.REGRESSION, {PRODUCTION: 1}, {route.number: route for route in routes}, 0)
        ready = {(route.model_id, route.number): RoutedVersion(route) for route in routes}
        self.table.apply(CLINIC, TenantRoutes.of([model], ready, self.book.of(CLINIC, experiments, generation)))

    async def ask(self, row: Any, tenant_id: UUID = CLINIC, **asked: Any) -> Any:
        return await self.predictor.predict(self.context(tenant_id), RouteRequest("sum", **asked), row)

    async def ask_batch(self, rows: Any = None, matrix: Any = None, **asked: Any) -> Any:
        return await self.predictor.predict_batch(self.context(), RouteRequest("sum", **asked), BatchRows(rows, matrix))

    def context(self, tenant_id: UUID = CLINIC) -> RequestContext:
        roles = frozenset({Role.PREDICTOR, Role.EXPERIMENTER})
        return RequestContext(tenant_id, "t", "s", roles, actions_of(roles), None, "r", Deadline.after(20))
