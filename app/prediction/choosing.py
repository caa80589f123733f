"""Which version answers a request, and why: the caller's word, then the flags', then the alias production. Reads memory only.

What a flag chose and this process cannot answer with at once is answered by production: counted, never an error, never a wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from app.experiments.types import Decision, DecisionReason
from app.prediction.routing import RoutedVersion, aliased_version, find_model
from app.prediction.types import RoutingReason
from app.registry.types import PRODUCTION, VersionStatus

if TYPE_CHECKING:
    from uuid import UUID

    from app.prediction.flags import Beside
    from app.prediction.pool import RuntimePool
    from app.prediction.ports import FlagTelemetry
    from app.prediction.routing import RoutingTable, TenantRoutes
    from app.prediction.types import RouteRequest
    from app.registry.routes import VersionLookup
    from app.registry.types import ModelRoute

_REASONS = {reason: RoutingReason(reason.value) for reason in DecisionReason}
log = structlog.get_logger()


class Chosen(NamedTuple):
    """The version that answers, and what is written down about why. `beside`: of an experiment's arm, who else is asked.

    `degraded`: whether the caller is told that this is not what answers on a good day.
    """

    model: ModelRoute
    routed: RoutedVersion
    reason: RoutingReason
    experiment: str | None = None
    variant: str | None = None
    propensity: float | None = None
    flag_revision: int | None = None
    beside: Beside | None = None
    degraded: bool = False


class Chooser:
    """One a serving process."""

    def __init__(self, table: RoutingTable, lookup: VersionLookup, pool: RuntimePool, telemetry: FlagTelemetry) -> None:
        self._table = table
        self._lookup = lookup
        self._pool = pool
        self._telemetry = telemetry

    async def named(self, tenant_id: UUID, request: RouteRequest) -> Chosen:
        """What the request itself names by version or alias; raises NotFound or ModelUnavailable."""
        routes = self._table.tenant(tenant_id)
        model = find_model(routes, request.model)
        if request.version is None:
            return Chosen(model, aliased_version(routes, model, request.alias), RoutingReason.PINNED, degraded=self._table.stale)
        key = (model.model_id, request.version)
        routed = routes.aliased.get(key) or routes.pinned.get(key)
        if routed is None:
            routed = self._table.trusted(RoutedVersion(await self._lookup.find(tenant_id, model, request.version)))
            routes.pinned[key] = routed
        return Chosen(model, routed, RoutingReason.PINNED, degraded=self._table.stale)

    def of_unit(self, tenant_id: UUID, request: RouteRequest, unit_hash: str | None) -> Chosen:
        """What the flags choose for the unit, else the alias production; raises NotFound or ModelUnavailable."""
        routes = self._table.tenant(tenant_id)
        model = find_model(routes, request.model)
        if routes.flags is None:
            return Chosen(model, aliased_version(routes, model, None), RoutingReason.ALIAS, degraded=self._table.stale)
        try:
            decision = routes.flags.decide(request.model, unit_hash, request.attributes)
        except Exception:  # whatever it is, the caller gets an answer
            log.exception("flags_failed", model=request.model)
            self._telemetry.flag_fallback("failed")
            decision = None
        if decision is None:
            return Chosen(model, aliased_version(routes, model, None), RoutingReason.ALIAS, degraded=self._table.stale)
        routed = None
        if decision.version is not None or decision.alias is not None:
            routed = self._variant(tenant_id, routes, model, decision)
        elif decision.reason is DecisionReason.UNKNOWN_VARIANT:
            self._telemetry.flag_fallback("unusable")
        else:
            routed = aliased_version(routes, model, None)
        if routed is None:
            reason, revision = RoutingReason.UNKNOWN_VARIANT, decision.flag_revision
            routed, degraded = aliased_version(routes, model, None), self._table.stale
            return Chosen(model, routed, reason, decision.experiment, flag_revision=revision, degraded=degraded)
        return Chosen(
            model,
            routed,
            _REASONS[decision.reason],
            decision.experiment,
            decision.variant,
            decision.propensity,
            decision.flag_revision,
            None if decision.experiment is None else routes.flags.beside.get(decision.experiment),
            self._table.stale,
        )

    def _variant(self, tenant_id: UUID, routes: TenantRoutes, model: ModelRoute, decision: Decision) -> RoutedVersion | None:
        """The chosen version where it can answer at once. What production points at is waited for as it is without flags."""
        number = decision.version if decision.alias is None else model.aliases.get(decision.alias)
        routed = None if number is None else routes.aliased.get((model.model_id, number))
        if routed is None or routed.route.status is not VersionStatus.READY:
            self._telemetry.flag_fallback("missing")
            return None
        if number != model.aliases.get(PRODUCTION) and self._pool.used(routed.key(tenant_id)) is None:
            self._pool.want(tenant_id, routed.route)
            self._telemetry.flag_fallback("not_open")
            return None
        return routed
