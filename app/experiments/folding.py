"""Folding: what the log and the outcomes brought is added to the sums from which results are read.

One fold of a tenant at a time, whoever asks: a reader, so that it sees all that is committed, or the background, so that a reader has
little to wait for. Work is taken off queues in the transaction that counts it: it is counted once, whatever dies.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from app.db.engine import Timeouts
from app.db.leading import leading
from app.db.rounds import rounds
from app.errors import AppError
from app.experiments.exposures import count_covariates, count_exposures, statement
from app.experiments.looks import freeze_due
from app.experiments.values import count_values, join_pending

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.db.sync import SyncDatabase
    from app.experiments.ports import OutcomeWindows
    from app.kernel.clock import Clock

# Of the connections that fold: a full batch may take a second, and another one may be waited for.
ROOMY = Timeouts(statement_s=60.0, command_s=65.0, lock_s=10.0, idle_in_transaction_s=60.0)
BATCH = 20_000  # of each kind of work in one transaction
_EVERY_S = 1.0
_LONGEST_PAUSE_S = 60.0
_LEADER = 7_236_114_902  # advisory: one process at a time folds in the background
_LOCK = statement("select pg_advisory_xact_lock(hashtextextended('fold/' || cast(:tenant as text), 0))")
_TRY_LOCK = statement("select pg_try_advisory_xact_lock(hashtextextended('fold/' || cast(:tenant as text), 0))")
# The statements lean on indexes; statistics of tables that were empty a moment ago, and plans made then, would tell otherwise.
_PLAN = text("""
select set_config('enable_seqscan', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true),
  set_config('extra_float_digits', '1', true)""")
_WORK = """
select t.tenant_id,
  exists (select from exposure_queue q where q.tenant_id = t.tenant_id)
  or exists (select from covariate_queue q where q.tenant_id = t.tenant_id)
  or exists (select from stale_units q where q.tenant_id = t.tenant_id) as certain
from tenants t where t.status <> 'ERASED' and (
  exists (select from exposure_queue q where q.tenant_id = t.tenant_id)
  or exists (select from covariate_queue q where q.tenant_id = t.tenant_id)
  or exists (select from stale_units q where q.tenant_id = t.tenant_id)
  or exists (select from outcomes q where q.tenant_id = t.tenant_id and q.pending))
order by t.tenant_id"""
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """What one transaction did. `more`: there was as much as fits, so there may be more."""

    exposures: int = 0
    covariates: int = 0
    joined: int = 0
    units: int = 0
    more: bool = False

    @property
    def moved(self) -> int:
        return self.exposures + self.covariates + self.joined + self.units


async def hold(session: AsyncSession, tenant_id: UUID, *, wait: bool = True) -> bool:
    """Whether this transaction is now the one that folds the tenant, until it ends. Raises Unavailable where another one takes too long."""
    await session.execute(_PLAN)
    if not wait:
        return bool((await session.execute(_TRY_LOCK, {"tenant": tenant_id})).scalar_one())
    await session.execute(_LOCK, {"tenant": tenant_id})
    return True


async def fold_round(session: AsyncSession, tenant_id: UUID, window_days: int, batch: int = BATCH) -> Round:
    """Takes in up to `batch` of each kind of work; the caller's transaction holds the tenant's fold."""
    exposures = await count_exposures(session, tenant_id, batch)
    covariates = await count_covariates(session, tenant_id, batch)
    joined = await join_pending(session, tenant_id, batch)
    units = await count_values(session, tenant_id, window_days, batch)
    if units < batch:  # nothing that is counted lacks its value: a look may be taken
        await freeze_due(session, tenant_id)
    return Round(exposures, covariates, joined, units, max(exposures, covariates, joined, units) >= batch)


class Folder:
    """`database`: with timeouts that leave room for a full batch. `windows`: how long after its first exposure a unit's outcomes count."""

    def __init__(self, database: Database, sync: SyncDatabase, windows: OutcomeWindows, clock: Clock, *, batch: int = BATCH) -> None:
        self._database, self._sync, self._windows, self._clock, self._batch = database, sync, windows, clock, batch
        self._locks: defaultdict[UUID, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._begun: defaultdict[UUID, int] = defaultdict(int)
        self._done: defaultdict[UUID, int] = defaultdict(int)  # the number of the last fold that took in everything
        self._pauses: dict[UUID, tuple[float, float]] = {}  # of tenants with nothing but pending outcomes: until when, and how long

    async def fold(self, tenant_id: UUID, patience_s: float = 5.0) -> bool:
        """Whether everything that was committed before the call is counted; False where there is more than `patience_s` gets done.

        Readers that come while a fold is under way share the next one. Raises Unavailable.
        """
        before = self._begun[tenant_id]
        async with self._locks[tenant_id]:
            if self._done[tenant_id] > before:
                return True  # by a reader that began after this one came
            self._begun[tenant_id] = number = self._begun[tenant_id] + 1
            end = self._clock.monotonic() + patience_s
            while (await self._round(tenant_id, wait=True)).more:
                if self._clock.monotonic() >= end:
                    return False
            self._done[tenant_id] = number
            return True

    async def run(self) -> None:
        """Folds every second what waits, until cancelled; one process at a time."""
        await rounds(self.sweep, _EVERY_S, log, waits="fold_waits", failed="fold_failed", first_s=0)

    async def sweep(self) -> int:
        """How much work was done for all tenants, a batch of each in turn; 0 also where another process is at it. Raises Unavailable."""
        total = 0
        async with leading(self._sync, _LEADER) as connection:
            if connection is None:
                return 0
            while tenants := self._due(await connection.fetch(_WORK)):
                rounds = [await self._patiently(tenant_id) for tenant_id in tenants]
                total += sum(each.moved for each in rounds)
                if not any(each.more for each in rounds):
                    break
        return total

    def _due(self, found: Sequence[tuple[UUID, bool]]) -> list[UUID]:
        """Outcomes may be pending for long (their machine is away): tenants with nothing else are asked ever less often."""
        now = self._clock.monotonic()
        self._pauses = {tenant_id: self._pauses[tenant_id] for tenant_id, certain in found if not certain and tenant_id in self._pauses}
        return [tenant_id for tenant_id, certain in found if certain or self._pauses.get(tenant_id, (now, 0.0))[0] <= now]

    async def _patiently(self, tenant_id: UUID) -> Round:
        """One tenant's trouble is not the others'."""
        try:
            done = await self._round(tenant_id, wait=False)
        except AppError as error:
            log.info("fold_waits", tenant_id=str(tenant_id), reason=error.message)
            done = Round()
        if not done.moved:
            pause = min(2 * self._pauses.get(tenant_id, (0.0, _EVERY_S / 2))[1], _LONGEST_PAUSE_S)
            self._pauses[tenant_id] = self._clock.monotonic() + pause, pause
        else:
            self._pauses.pop(tenant_id, None)
        return done

    async def _round(self, tenant_id: UUID, *, wait: bool) -> Round:
        window_days = self._windows.outcome_window_days(tenant_id)
        async with self._database.tenant_tx(tenant_id) as session:
            if not await hold(session, tenant_id, wait=wait):
                return Round()
            return await fold_round(session, tenant_id, window_days, self._batch)
