"""What tenancy needs from outside; `main.py` hands over who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uuid import UUID

    from app.tenancy.types import QuotaState, TenantLimits


class Quotas(Protocol):
    def peek(self, tenant_id: UUID, limits: TenantLimits) -> QuotaState:
        """What is left of the tenant's limits; takes nothing and asks nobody."""
