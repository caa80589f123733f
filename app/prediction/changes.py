"""What a change of one tenant's routes is to a process that serves already, and what goes on serving where its versions are cold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.registry.types import VersionStatus

if TYPE_CHECKING:
    from uuid import UUID

    from app.experiments.types import RunningExperiment
    from app.prediction.picture import Picture
    from app.prediction.routing import RoutedVersion, TenantRoutes
    from app.registry.types import ModelRoute, VersionRoute


@dataclass(frozen=True, slots=True)
class Cold:
    """A version that could not be opened. Where memory alone was missing, it takes the place of what it replaces, which must go first."""

    route: VersionRoute
    for_want_of_room: bool = False


class TenantChange:
    """One tenant's part of a picture. `before`: what served when it came. `told`: the replica's acknowledgement is awaited."""

    def __init__(self, picture: Picture, tenant_id: UUID, before: TenantRoutes, told: bool) -> None:
        self.tenant_id, self.before, self.told = tenant_id, before, told
        self.generation, self.withdrawn, self.needed = picture.generation, picture.withdrawn, picture.needed
        self.running: list[RunningExperiment] = picture.running.get(tenant_id, [])
        self.models: list[ModelRoute] = picture.models.get(tenant_id, [])
        self.routes = [route for model in self.models for route in model.versions.values() if route.status is VersionStatus.READY]


def with_what_served(change: TenantChange, cold: set[tuple[UUID, int]]) -> tuple[list[ModelRoute], list[RoutedVersion]]:
    """The models with each alias of a cold version left where it was, and what those aliases served; never what was withdrawn."""
    models: list[ModelRoute] = []
    kept: list[RoutedVersion] = []
    for model in change.models:
        older = change.before.models.get(model.name)
        aliases, versions = dict(model.aliases), dict(model.versions)
        for alias, number in model.aliases.items():
            served = None if older is None else older.aliases.get(alias)
            routed = None if served is None else change.before.aliased.get((model.model_id, served))
            if (model.model_id, number) not in cold or routed is None or version_of(routed.route) in cold | change.withdrawn:
                continue
            aliases[alias] = routed.route.number
            versions[routed.route.number] = routed.route
            kept.append(routed)
        models.append(replace(model, aliases=aliases, versions=versions))
    return models, kept


def version_of(route: VersionRoute) -> tuple[UUID, int]:
    return (route.model_id, route.number)
