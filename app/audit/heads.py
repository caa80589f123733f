"""Each tenant's newest seal goes to the log once a day: whoever cuts off the end of an audit log must change that log, too."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select

from app.audit.rows import AuditHeadRow
from app.db.leading import leading

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.session import Database
    from app.db.sync import SyncDatabase
    from app.kernel.clock import Clock

_LEADER = 7_236_114_903  # advisory: one process at a time writes the heads down
_TENANTS = "select tenant_id from tenants where status <> 'ERASED' order by tenant_id"
_SPREAD_S = 60.0
_RETRY_S = 300.0
log = structlog.get_logger(__name__)


class AuditHeads:
    """One a process."""

    def __init__(self, database: Database, sync: SyncDatabase, clock: Clock) -> None:
        self._database, self._sync, self._clock = database, sync, clock

    async def run(self) -> None:
        """Writes the heads after each midnight (UTC), until cancelled; each process tries, one of them at a time."""
        while True:
            await asyncio.sleep(self._until_midnight_s() + random.uniform(0, _SPREAD_S))  # noqa: S311  no secret
            try:
                await self.write()
            except Exception:  # the heads of a day are worth another try
                log.exception("audit_heads_not_written")
                await asyncio.sleep(_RETRY_S)

    async def write(self) -> int:
        """How many heads were written to the log; 0 also where another process is at it. Raises Unavailable."""
        async with leading(self._sync, _LEADER) as connection:
            if connection is None:
                return 0
            written = 0
            for (tenant_id,) in await connection.fetch(_TENANTS):
                written += await self._write_of(tenant_id)
            return written

    async def _write_of(self, tenant_id: UUID) -> int:
        async with self._database.tenant_tx(tenant_id) as session:
            head = (await session.execute(select(AuditHeadRow.sequence, AuditHeadRow.seal))).one_or_none()
        if head is None:
            return 0
        log.info("audit_head", tenant_id=str(tenant_id), sequence=head.sequence, seal=head.seal.hex())
        return 1

    def _until_midnight_s(self) -> float:
        now = self._clock.now()
        return (datetime.combine(now.date() + timedelta(days=1), time(), now.tzinfo) - now).total_seconds()
