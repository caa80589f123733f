"""The keys of a tenant's audit log, for the room that writes it and may not know tenants."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select

from app.audit.types import AuditKeys
from app.db.statement import Statement
from app.errors import Unavailable
from app.tenancy.keys import TenantKeys, UnreadableSecret
from app.tenancy.rows import TenantRow

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.tenancy.keys import MasterKey

_SECRET = Statement(select(TenantRow.wrapped_secret).where(TenantRow.tenant_id == bindparam("tenant")))
_log = logging.getLogger(__name__)


class TenantSeals:
    """One a process. Nothing is remembered: with an erased tenant's secret its audit keys are gone, too."""

    def __init__(self, master_key: MasterKey) -> None:
        self._master_key = master_key

    async def keys(self, session: AsyncSession, tenant_id: UUID) -> AuditKeys | None:
        """The tenant's audit keys, also of one that this transaction makes; None for an erased or unknown tenant. Raises Unavailable."""
        row = await _SECRET.row(session, tenant=tenant_id)
        if row is None or not row.wrapped_secret:
            return None
        try:
            keys = TenantKeys.derive(tenant_id, self._master_key.unwrap(tenant_id, row.wrapped_secret))
        except UnreadableSecret as error:
            _log.error("a tenant's audit keys cannot be read", extra={"tenant_id": str(tenant_id), "reason": str(error)})
            raise Unavailable("The tenant's keys cannot be read on this machine: see its log.") from None
        return AuditKeys(keys.audit_chain, keys.audit_people)
