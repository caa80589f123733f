"""In the background, what landed is folded into days, so that a reader has little to add up. Nothing depends on when it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from app.db.leading import leading
from app.db.rounds import rounds
from app.journal.usage import FOLD_AT_ONCE, fold_usage

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.session import Database
    from app.db.sync import SyncDatabase

_LEADER = 7_236_114_904  # advisory: one process at a time folds
_EVERY_S = 10.0
_WORK = "select distinct tenant_id from usage_deltas"
log = structlog.get_logger(__name__)


class UsageFolder:
    """One a process. `database`: with timeouts that leave room for a full batch."""

    def __init__(self, database: Database, sync: SyncDatabase) -> None:
        self._database, self._sync = database, sync

    async def run(self) -> None:
        """Folds every ten seconds what landed, until cancelled."""
        await rounds(self.sweep, _EVERY_S, log, waits="usage_fold_waits", failed="usage_fold_failed")

    async def sweep(self) -> int:
        """How many deltas of all tenants were folded; 0 also where another process is at it. Raises Unavailable."""
        async with leading(self._sync, _LEADER) as connection:
            if connection is None:
                return 0
            return sum([await self._fold(tenant_id) for (tenant_id,) in await connection.fetch(_WORK)])

    async def _fold(self, tenant_id: UUID) -> int:
        total = 0
        while True:
            async with self._database.tenant_tx(tenant_id) as session:
                folded = await fold_usage(session, tenant_id)
            total += folded
            if folded < FOLD_AT_ONCE:
                return total
