"""Whether a tenant is served at the moment of a commit, for rooms whose requests may last longer than its standing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from app.errors import NotFound, TenantSuspended
from app.tenancy.rows import TenantRow
from app.tenancy.types import TenantStatus

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


class TenantStanding:
    """Asks the tenant's row: what this process has heard may be a moment old."""

    async def require_served(self, session: AsyncSession, tenant_id: UUID) -> None:
        """Returns where the tenant is served; it stays so until the caller's transaction ends. Raises TenantSuspended, NotFound."""
        query = select(TenantRow.status).where(TenantRow.tenant_id == tenant_id).with_for_update(read=True)
        status = (await session.execute(query)).scalar_one_or_none()
        if status == TenantStatus.SUSPENDED:
            raise TenantSuspended("This tenant is suspended.")
        if status != TenantStatus.ACTIVE:
            raise NotFound("There is no such tenant.")
