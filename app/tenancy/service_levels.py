"""How well a tenant was served: the share of its predictions that came in time and without an error of ours, and what is left to spend.

Each process counts in memory and writes its own row of the day, again and again as a whole: however often it is written, it is there once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from app.errors import AppError, InvalidInput
from app.kernel.context import Action
from app.tenancy.rows import ServiceDayRow

if TYPE_CHECKING:
    from datetime import date
    from uuid import UUID

    from app.db.session import Database
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.settings import UsageSettings

_EVERY_S = 10.0
_DAY_MS = 86_400_000
_LONGEST_DAYS = 400
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """Of one tenant and some days. `share` of the requests came in time and without an error of ours; 1 where there were none.

    `error_budget_left`: 1 where nothing failed or was late, 0 where exactly as much as `objective` allows, negative beyond.
    """

    requests: int
    failed: int
    late: int  # and did not fail
    objective: float

    @property
    def share(self) -> float:
        return 1.0 if self.requests == 0 else 1 - (self.failed + self.late) / self.requests

    @property
    def error_budget_left(self) -> float:
        return 1 - (1 - self.share) / (1 - self.objective)


class ServiceLevels:
    """One a process; `replica` is its name."""

    def __init__(self, database: Database, clock: Clock, replica: str, settings: UsageSettings) -> None:
        self._database, self._clock = database, clock
        self._replica = f"{replica}/{uuid4().hex[:8]}"  # a process that comes after this one has rows of its own
        self._latency_s, self._objective = settings.slo_latency_ms / 1000, settings.slo_objective
        self._counts: dict[tuple[UUID, date], list[int]] = {}  # requests, and of them failed and late
        self._written: dict[tuple[UUID, date], list[int]] = {}  # which of them stand in the database
        self._today: dict[UUID, list[int]] = {}  # those of the day of this number since 1970
        self._day = -1

    def count(self, tenant_id: UUID, seconds: float, *, failed: bool) -> None:
        """One request for predictions that was answered or should have been; what the caller did wrong is not counted."""
        day = self._clock.time_ms() // _DAY_MS
        if day != self._day:
            self._day, self._today = day, {}
        counts = self._today.get(tenant_id)
        if counts is None:
            key = tenant_id, self._clock.now().date()
            counts = self._today[tenant_id] = self._counts.setdefault(key, [0, 0, 0])
        counts[0] += 1
        if failed:
            counts[1] += 1
        elif seconds > self._latency_s:
            counts[2] += 1

    async def run(self) -> None:
        """Writes what was counted every ten seconds, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Writes what was counted since it was written; what cannot be written now stays for the next time."""
        today = self._clock.now().date()
        for key, counts in list(self._counts.items()):
            whole = list(counts)
            if whole != self._written.get(key):
                try:
                    await self._write(*key, *whole)
                except AppError as error:
                    log.info("service_levels_wait", reason=error.message)
                    return
                except Exception:  # a tenant's trouble is not the others'
                    log.exception("service_level_not_written")
                self._written[key] = whole
            if key[1] < today and whole == counts:  # nothing came meanwhile
                self._counts.pop(key, None)
                self._written.pop(key, None)

    async def of(self, ctx: RequestContext, days: int) -> ServiceLevel:
        """Of the caller's tenant over the last `days` UTC days, today included; seconds behind. Raises PermissionDenied, InvalidInput."""
        ctx.require(Action.READ_USAGE)
        if not 1 <= days <= _LONGEST_DAYS:
            raise InvalidInput(f"days must be 1 to {_LONGEST_DAYS}.")
        row, first = ServiceDayRow, self._clock.now().date() - timedelta(days=days - 1)
        sums = (func.coalesce(func.sum(column), 0) for column in (row.requests, row.failed, row.late))
        query = select(*sums).where(row.tenant_id == ctx.tenant_id, row.day >= first)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            requests, failed, late = (int(total) for total in (await session.execute(query)).one())
        return ServiceLevel(requests, failed, late, self._objective)

    async def _write(self, tenant_id: UUID, day: date, requests: int, failed: int, late: int) -> None:
        counts = {"requests": requests, "failed": failed, "late": late}
        row = upsert(ServiceDayRow).values(tenant_id=tenant_id, day=day, replica=self._replica, **counts)
        whole = row.on_conflict_do_update(index_elements=["tenant_id", "day", "replica"], set_=counts)
        async with self._database.tenant_tx(tenant_id) as session:
            await session.execute(whole)
