"""What the audit log needs from other rooms; `app/main.py` hands it over, in what every session knows of its database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.audit.types import AuditKeys

SEALS = "audit_seals"  # the key in `session.info` under which `Seals` lies; without one entries are written unsealed


class Seals(Protocol):
    """Where a tenant's audit keys come from."""

    async def keys(self, session: AsyncSession, tenant_id: UUID) -> AuditKeys | None:
        """The keys, read in the tenant's own transaction; None where the tenant is erased and its keys with it. Raises Unavailable."""
