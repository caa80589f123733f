"""What a resolver can reach: the verified caller, the services, and loaders that live for one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import strawberry
from strawberry.dataloader import DataLoader
from strawberry.schema_directive import Location

from app.kernel.context import Action, RequestContext
from app.tenancy.permissions import PERMISSIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from app.audit.service import AuditService
    from app.errors import AppError
    from app.experiments.answers import ExperimentResults
    from app.experiments.outcomes import OutcomeService
    from app.experiments.results import ResultsService
    from app.experiments.service import ExperimentService
    from app.experiments.types import Experiment
    from app.prediction.captures import CapturedInputs
    from app.prediction.comparison import VersionComparer
    from app.prediction.service import Predictor
    from app.registry.publishing import PublishingService
    from app.registry.service import RegistryService
    from app.registry.types import Alias, ModelVersion
    from app.rollouts.service import RolloutService
    from app.tenancy.documents.service import DocumentService
    from app.tenancy.erasures import ErasureService
    from app.tenancy.life import TenantLife
    from app.tenancy.revocations import Revocations
    from app.tenancy.service import TenantService
    from app.tenancy.service_levels import ServiceLevels
    from app.usage.service import UsageService


@dataclass(frozen=True, slots=True)
class Services:
    """Made once by `main.py`."""

    predictor: Predictor
    registry: RegistryService
    publishing: PublishingService
    comparer: VersionComparer
    tenants: TenantService
    tenant_life: TenantLife
    revocations: Revocations
    documents: DocumentService
    audit: AuditService
    usage: UsageService
    service_levels: ServiceLevels
    experiments: ExperimentService
    outcomes: OutcomeService
    results: ResultsService
    rollouts: RolloutService
    erasures: ErasureService
    captured: CapturedInputs


@dataclass(slots=True)
class GraphQLContext:
    """One a request."""

    request: RequestContext
    services: Services
    predicts: bool = False  # a prediction was asked for: what comes of it counts for the service level
    predicts_many: bool = False  # for many rows: the answer may be large
    _loaders: Loaders | None = field(default=None)

    @property
    def loaders(self) -> Loaders:
        if self._loaders is None:
            self._loaders = Loaders(self.request, self.services.registry, self.services.results)
        return self._loaders


class Loaders:
    """Batches of one request: a list of models asks for all their aliases, and all versions behind these, in one query each."""

    def __init__(self, ctx: RequestContext, registry: RegistryService, results: ResultsService) -> None:
        self._ctx = ctx
        self._registry = registry
        self._results = results
        self.aliases: DataLoader[UUID, list[Alias]] = DataLoader(load_fn=self._load_aliases)
        self.versions: DataLoader[tuple[UUID, int], ModelVersion] = DataLoader(load_fn=self._load_versions)
        self.results: DataLoader[tuple[Experiment, str | None], ExperimentResults | AppError] = DataLoader(
            load_fn=self._load_results, cache_key_fn=lambda asked: (asked[0].key, asked[1])
        )

    async def _load_aliases(self, models: list[UUID]) -> list[list[Alias]]:
        found = await self._registry.aliases_of(self._ctx, models)
        return [found[model] for model in models]

    async def _load_results(self, asked: list[tuple[Experiment, str | None]]) -> list[ExperimentResults | AppError]:
        return await self._results.results(self._ctx, asked)

    async def _load_versions(self, keys: list[tuple[UUID, int]]) -> list[ModelVersion]:
        found = await self._registry.versions_by_key(self._ctx, keys)
        return [found[key] for key in keys]


Info = strawberry.Info[GraphQLContext, None]


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION], name="requires", description="Who may use this field: a caller with one of these roles."
)
class Requires:
    roles: list[str]


def root_field(action: Action, description: str, *, direct: Callable[..., Awaitable[Any]] | None = None, **options: Any) -> Any:
    """A field of Query or Mutation, marked with the roles that the permission table gives. The service checks; this only shows.

    `direct`: does all that the field's resolver does, given the context and the field's arguments by name.
    """
    directive = Requires(roles=sorted(PERMISSIONS[action]))
    return strawberry.field(description=description, directives=[directive], metadata={"action": action, "direct": direct}, **options)


def root_mutation(action: Action, description: str, **options: Any) -> Any:
    directive = Requires(roles=sorted(PERMISSIONS[action]))
    return strawberry.mutation(description=description, directives=[directive], metadata={"action": action}, **options)
