"""Which version answers: an immutable picture of each tenant's aliases, in memory. A change replaces one entry, never the whole."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from app.errors import InvalidInput, ModelUnavailable, NotFound
from app.prediction.features import RowChecker
from app.prediction.pool import by_estimator, key_of
from app.registry.types import PRODUCTION, ModelRoute, VersionRoute, VersionStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from uuid import UUID

    from app.prediction.breakers import Breaker
    from app.prediction.flags import ServedFlags
    from app.prediction.pool import Key


class RoutedVersion:
    """A version ready to be asked: its route and the checker of its signature, which is made when it is first asked for.

    A process knows many more versions than it is asked for, and a checker is larger than a route. `breaker`: set by who asks it first.
    """

    __slots__ = ("_key", "breaker", "checker", "route")
    checker: RowChecker

    def __init__(self, route: VersionRoute, checker: RowChecker | None = None) -> None:
        self.route = route
        self.breaker: Breaker | None = None
        if checker is not None:
            self.checker = checker
        self._key: Key | None = None

    def key(self, tenant_id: UUID) -> Key:
        """Under which the pool has its runtime; of its one tenant."""
        key = self._key
        if key is None:
            key = self._key = key_of(tenant_id, self.route)
        return key

    if not TYPE_CHECKING:  # which knows the attributes by their names

        def __getattr__(self, name: str) -> Any:
            """Of what has not been set."""
            if name != "checker":
                raise AttributeError(name)
            self.checker = RowChecker(self.route.signature)
            return self.checker

    def by_estimator(self) -> RoutedVersion:
        """The same version, served by its own estimator."""
        return RoutedVersion(by_estimator(self.route), self.checker)


@dataclass(frozen=True, slots=True)
class TenantRoutes:
    """One tenant's models, and the flags that choose among their versions: replaced as one, so that no request sees half a change.

    `aliased`: what aliases and experiments need, by (model, number). `pinned` gathers versions that requests named, until the next
    change replaces this entry. `flags`: None where nothing runs.
    """

    models: Mapping[str, ModelRoute]
    aliased: Mapping[tuple[UUID, int], RoutedVersion]
    pinned: dict[tuple[UUID, int], RoutedVersion] = field(default_factory=dict)
    flags: ServedFlags | None = None

    def has(self, model: str, number: int) -> bool:
        """Whether this version is among those that aliases and experiments need."""
        route = self.models.get(model)
        return route is not None and (route.model_id, number) in self.aliased

    def leads_to(self, route: VersionRoute) -> bool:
        """Whether aliases or experiments lead to this version, served as in the route."""
        routed = self.aliased.get((route.model_id, route.number))
        return routed is not None and routed.route.is_compiled == route.is_compiled

    @classmethod
    def of(
        cls, models: list[ModelRoute], ready: Mapping[tuple[UUID, int], RoutedVersion], flags: ServedFlags | None = None
    ) -> TenantRoutes:
        return cls({model.name: model for model in models}, dict(ready), flags=flags)


_NOTHING = TenantRoutes({}, {})


class RoutingTable:
    """Every tenant's routes; read on each request, replaced tenant by tenant: by another thread, one entry at a time.

    A graph that is distrusted is never routed to again, whoever brings its route: the version's estimator stands in its place.
    """

    def __init__(self) -> None:
        self._tenants: dict[UUID, TenantRoutes] = {}
        self._distrusted: set[tuple[UUID, int]] = set()
        self._replacing = threading.Lock()  # whoever applies routes, and whoever finds that a graph is wrong
        self.generation = -1  # of the last change that is in here
        self.stale = False  # whether the database was not heard for so long that answers say so

    def tenant(self, tenant_id: UUID) -> TenantRoutes:
        return self._tenants.get(tenant_id, _NOTHING)

    def others(self, there: set[UUID]) -> list[UUID]:
        """Tenants with models that are not among `there`."""
        return [tenant_id for tenant_id, routes in list(self._tenants.items()) if routes.models and tenant_id not in there]

    def apply(self, tenant_id: UUID, routes: TenantRoutes) -> None:
        with self._replacing:
            self._tenants[tenant_id] = self._without_distrusted(routes)

    def reflag(self, tenant_id: UUID, flags: ServedFlags | None) -> None:
        """The tenant's routes stay, and these flags choose from now on."""
        with self._replacing:
            self._tenants[tenant_id] = replace(self.tenant(tenant_id), flags=flags)

    def distrust(self, tenant_id: UUID, versions: Collection[tuple[UUID, int]]) -> bool:
        """From now on these versions, (model, number), are not answered by their graphs; whether one of them was just now."""
        with self._replacing:
            self._distrusted.update(versions)
            before = self.tenant(tenant_id)
            after = self._without_distrusted(before)
            if after is before:
                return False
            self._tenants[tenant_id] = after
            return True

    def trusted(self, routed: RoutedVersion) -> RoutedVersion:
        """The version as it may be served."""
        route = routed.route
        if not route.is_compiled or (route.model_id, route.number) not in self._distrusted:
            return routed
        return routed.by_estimator()

    def _without_distrusted(self, routes: TenantRoutes) -> TenantRoutes:
        """The same object where nothing is distrusted."""
        pinned = dict(routes.pinned)
        if all(self.trusted(routed) is routed for routed in (*routes.aliased.values(), *pinned.values())):
            return routes
        models = [self._of_model(model) for model in routes.models.values()]
        aliased, kept = ({key: self.trusted(routed) for key, routed in each.items()} for each in (routes.aliased, pinned))
        return TenantRoutes({model.name: model for model in models}, aliased, kept, routes.flags)

    def _of_model(self, model: ModelRoute) -> ModelRoute:
        wrong = {number: route for number, route in model.versions.items() if (model.model_id, number) in self._distrusted}
        return replace(model, versions={**model.versions, **{number: by_estimator(route) for number, route in wrong.items()}})

    def versions(self, of: Collection[UUID] | None = None) -> list[tuple[UUID, str, VersionRoute]]:
        """(tenant, model's name, version) of all that aliases point at and experiments need; of these tenants, or of all."""
        named = list(self._tenants.items()) if of is None else [(tenant_id, self.tenant(tenant_id)) for tenant_id in of]
        return [
            (tenant_id, model.name, route)
            for tenant_id, routes in named  # gathered at once, for the other thread may add one
            for model in routes.models.values()
            for route in model.versions.values()
            if (model.model_id, route.number) in routes.aliased
        ]


def find_model(routes: TenantRoutes, name: str) -> ModelRoute:
    """The tenant's model; raises NotFound, word for word the same for another tenant's."""
    model = routes.models.get(name)
    if model is None:
        raise NotFound(f"There is no model named {name!r}.")
    return model


def aliased_version(routes: TenantRoutes, model: ModelRoute, alias: str | None) -> RoutedVersion:
    """What the alias (None: production) points at; raises NotFound where it points at nothing, ModelUnavailable where that cannot serve."""
    name = PRODUCTION if alias is None else alias
    number = model.aliases.get(name)
    if number is None:
        if name == PRODUCTION:
            raise NotFound(f"The model {model.name!r} has no version in production yet: promote one.")
        raise NotFound(f"The model {model.name!r} has no alias {name!r}.")
    routed = routes.aliased.get((model.model_id, number))
    if routed is None or routed.route.status is not VersionStatus.READY:
        raise ModelUnavailable(f"Version {number} of {model.name!r}, which {name!r} points at, cannot serve now.", retry_after_ms=1000)
    return routed


def check_pin(alias: str | None, version: int | None) -> None:
    """Raises InvalidInput where both are there."""
    if alias is not None and version is not None:
        raise InvalidInput("Send alias or version, not both.")
