"""What the tenancy room answers to the questions that other rooms write in their ports: limits, seals and budgets by tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from app.errors import NotFound
from app.kernel.ids import is_genuine

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from uuid import UUID

    from app.kernel.context import RequestContext
    from app.tenancy.directory import TenantDirectory, TenantEntry
    from app.tenancy.limits.budgets import Budgets, Said, SharedTake
    from app.tenancy.limits.limiter import Decision
    from app.tenancy.limits.under_way import OfTenant, UnderWay
    from app.tenancy.types import TenantLimits


class TenantAnswers:
    """Reads the directory, in memory; one a process."""

    def __init__(self, directory: TenantDirectory, budgets: Budgets, under_way: UnderWay, operator_limits: TenantLimits) -> None:
        self._tenant = directory.by_id
        self._budgets, self._under_way = budgets, under_way
        # Begins to spend on all machines what `take` has just allowed on this one; None where there is nobody to ask.
        self.shared = self._shared if budgets.asks_others else None
        self._take = budgets.take if budgets.asks_others else budgets.limiter.take
        self._operator_limits = operator_limits

    def max_models(self, tenant_id: UUID) -> int:
        return self._entry(tenant_id).tenant.limits.max_models

    def max_artifact_bytes(self, tenant_id: UUID) -> int:
        return self._entry(tenant_id).tenant.limits.max_artifact_bytes

    def max_stored_bytes(self, tenant_id: UUID) -> int:
        return self._entry(tenant_id).tenant.limits.max_stored_bytes

    def artifact_mac(self, tenant_id: UUID, digest: str, size_bytes: int) -> bytes:
        return self._entry(tenant_id).keys.artifact_mac(digest, size_bytes)

    def outcome_window_days(self, tenant_id: UUID) -> int:
        return self._entry(tenant_id).tenant.settings.outcome_window_days

    def is_own(self, tenant_id: UUID, prediction_id: UUID) -> bool:
        """Whether this tenant's key made the prediction's id."""
        return is_genuine(prediction_id, self._entry(tenant_id).keys.ids)

    def unit_hash(self, tenant_id: UUID, unit: str) -> str:
        """The pseudonym of `unit` in flags, logs and exports, of the current generation."""
        return self._entry(tenant_id).keys.unit_pseudonym(unit)

    def under_way(self, tenant_id: UUID) -> OfTenant:
        """One prediction of the tenant while it lasts; entering raises RateLimited where too many are under way on this machine."""
        entry = self._tenant(tenant_id) or _nobody()
        return self._under_way.one(tenant_id, entry.tenant.limits)

    def charge(self, tenant_id: UUID, rows: int) -> Awaitable[None] | None:
        """Counts predicted rows against the tenant's day; raises QuotaExceeded. None: done, as nobody else is to be asked."""
        entry = self._tenant(tenant_id) or _nobody()
        if self._budgets.asks_others:
            return self._budgets.charge_rows(tenant_id, entry.tenant.limits, rows)
        self._budgets.limiter.charge_rows(tenant_id, entry.tenant.limits, rows)
        return None

    def take(self, ctx: RequestContext, cost: int) -> Decision:
        """Spends request tokens of the caller's tenant on this machine; a refused cost is not spent."""
        tenant_id = ctx.tenant_id
        return self._take(tenant_id, self._limits(tenant_id), cost)

    def _shared(self, ctx: RequestContext, cost: int, here: Said) -> SharedTake | None:
        return self._budgets.shared(ctx.tenant_id, self._limits(ctx.tenant_id), cost, here)

    def _limits(self, tenant_id: UUID) -> TenantLimits:
        entry = self._tenant(tenant_id)
        return self._operator_limits if entry is None else entry.tenant.limits

    def _entry(self, tenant_id: UUID) -> TenantEntry:
        return self._tenant(tenant_id) or _nobody()


def _nobody() -> NoReturn:
    raise NotFound("There is no such tenant.")
