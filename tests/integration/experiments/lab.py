"""Experiments and the registry in one transaction's reach, of one tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.experiments import rules
from app.experiments.service import ExperimentService
from app.experiments.types import ExperimentPlan, MetricDirection, MetricKind, Variant
from app.registry.candidates import VersionCandidates
from app.registry.signing import TrustedKeys
from app.rollouts.service import RolloutService
from app.tenancy.permissions import actions_of
from tests.integration.registry.conftest import Registry

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from app.experiments.types import Experiment
    from app.kernel.context import RequestContext, Role
    from tests.support.database import DatabaseUrls

BOUGHT = rules.metric("bought", MetricKind.PROPORTION, MetricDirection.INCREASE, None)
SPENT = rules.metric("spent", MetricKind.MEAN, MetricDirection.INCREASE, None)


class Hashes:
    def unit_hash(self, tenant_id: UUID, unit: str) -> str:
        return f"hash-of-{len(unit)}-{sum(unit.encode())}"


class Heard:
    """What this process was told to look at."""

    def __init__(self) -> None:
        self.tenants: list[UUID | None] = []
        self.generations: list[int] = []

    async def caught_up(self, tenant_id: UUID | None = None) -> None: ...

    async def in_force(self, tenant_id: UUID | None, generation: int) -> None:
        self.tenants.append(tenant_id)
        self.generations.append(generation)


class Lab:
    """Experiments and the registry with their real parts, for one tenant whose model `risk` has three READY versions."""

    def __init__(self, registry: Registry) -> None:
        self.registry, self.database, self.clock = registry, registry.database, registry.clock
        self.heard = Heard()
        self.service = ExperimentService(self.database, self.clock, VersionCandidates(), Hashes(), self.heard)
        self.rollouts = RolloutService(self.database, self.service, registry.service)
        self.ctx = registry.ctx

    def as_role(self, role: Role) -> RequestContext:
        roles = frozenset({role})
        return self.ctx._replace(roles=roles, allowed=actions_of(roles))

    async def create(self, key: str = "new-price", *versions: int, overrides: Any = (), **more: Any) -> Experiment:
        """A DRAFT of these versions, the first of them control; of 1 and 2 where none is named."""
        return await self.service.create(self.ctx, plan(key, *(versions or (1, 2)), **more), overrides)

    async def started(self, key: str = "new-price", rollout: float = 100, **more: Any) -> Experiment:
        await self.create(key, **more)
        self.clock.advance(1)
        experiment = await self.service.start(self.ctx, key, rollout)
        self.clock.advance(1)
        return experiment

    def audited(self, subject: str) -> list[tuple[str, Any, Any, str | None]]:
        """(action, before, after, reason) of the log, oldest first."""
        rows = self.registry.sql(
            "select action, before::text, after::text, reason from audit_entries where subject = $1 order by at, id", subject
        )
        return [tuple(row) for row in rows]

    def generation(self) -> int:
        return self.registry.sql("select generation from routing_generation")[0][0]

    def slots(self, key: str) -> str:
        return self.registry.sql("select slots::text from experiments where key = $1", key)[0][0]


def plan(key: str, *versions: int, **more: Any) -> ExperimentPlan:
    variants = tuple(Variant(f"v{n}", version, None, 1, control=n == 0, shadow=False) for n, version in enumerate(versions))
    given: dict[str, Any] = {"hypothesis": None, "variants": variants, "primary_metric": BOUGHT, **more}
    return ExperimentPlan(key, given.pop("model", "risk"), **given)


async def open_lab(urls: DatabaseUrls, folder: Path) -> Lab:
    registry = Registry(urls, folder, TrustedKeys({}, required=False))
    for data in (b"one", b"two", b"three"):
        await registry.ready(data)
    return Lab(registry)
