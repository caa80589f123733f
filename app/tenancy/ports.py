"""What tenancy needs from outside; `main.py` hands over who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uuid import UUID

    from app.tenancy.types import QuotaState, TenantLimits


class Replicas(Protocol):
    """Told and asked after a commit."""

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        """Returns when this process serves what was committed before the call; bounded. Raises Unavailable."""

    async def unheard(self, tenant_id: UUID, generation: int) -> tuple[str, ...]:
        """Names of the replicas that do not serve the tenant's change of this generation; bounded, so a name may mean: not yet."""


class Quotas(Protocol):
    def peek(self, tenant_id: UUID, limits: TenantLimits) -> QuotaState:
        """What is left of the tenant's limits; takes nothing and asks nobody."""
