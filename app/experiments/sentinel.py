"""Guardrails: an experiment that harms is taken off the traffic by itself, without anybody looking.

The bound is valid at every moment at once, so looking every ten seconds for months does not make false alarms: an experiment whose arms
are alike is stopped with a chance of at most 1 % a guardrail and arm.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select

from app.db.leading import leading
from app.db.rounds import rounds
from app.errors import AppError
from app.experiments import store
from app.experiments.analysing import Evidence, analysis_of, comparable
from app.experiments.halting import halt_in
from app.experiments.rows import ExperimentRow
from app.experiments.sums import read_sums
from app.experiments.types import ExperimentSource, ExperimentStatus, MetricRole

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.session import Database
    from app.db.sync import SyncDatabase
    from app.experiments.folding import Folder
    from app.kernel.clock import Clock

_EVERY_S = 10.0
_LEADER = 7_236_114_903  # advisory: one process at a time watches
_ACTOR = "turnout"
_GUARDED = """
select distinct tenant_id from experiments
where status = 'RUNNING' and source = 'TURNOUT' and rollout > 0 and guardrails <> '[]'::jsonb order by tenant_id"""
log = structlog.get_logger(__name__)


class Sentinel:
    """Watches the guardrails of all tenants' running experiments; one a process, of which one at a time is at it."""

    def __init__(self, database: Database, sync: SyncDatabase, folder: Folder, clock: Clock) -> None:
        self._database, self._sync, self._folder, self._clock = database, sync, folder, clock

    async def run(self) -> None:
        """Looks every ten seconds or so, until cancelled."""
        await rounds(self.watch, _EVERY_S, log, waits="guardrails_wait", failed="guardrails_failed")

    async def watch(self) -> list[tuple[UUID, str]]:
        """The (tenant, experiment) pairs that were halted now; none where another process watches. Raises Unavailable."""
        halted: list[tuple[UUID, str]] = []
        async with leading(self._sync, _LEADER) as connection:
            if connection is None:
                return []
            for row in await connection.fetch(_GUARDED):
                try:
                    halted += [(row["tenant_id"], key) for key in await self._of_tenant(row["tenant_id"])]
                except AppError as error:  # one tenant's trouble is not the others'
                    log.info("guardrails_wait", tenant_id=str(row["tenant_id"]), reason=error.message)
        return halted

    async def _of_tenant(self, tenant_id: UUID) -> list[str]:
        await self._folder.fold(tenant_id)
        query = select(ExperimentRow).where(
            ExperimentRow.tenant_id == tenant_id,
            ExperimentRow.status == ExperimentStatus.RUNNING.value,
            ExperimentRow.source == ExperimentSource.TURNOUT.value,
            ExperimentRow.rollout > 0,
        )
        async with self._database.tenant_tx(tenant_id) as session:
            guarded = [row for row in (await session.execute(query)).scalars() if row.guardrails]
            experiments = await store.values_of(session, tenant_id, guarded)
            sums = await read_sums(session, tenant_id, [experiment.key for experiment in experiments])
        evidence = [Evidence(experiment, sums[experiment.key], (), {}) for experiment in experiments]
        harms = [(each.experiment.key, reason) for each in evidence if (reason := await asyncio.to_thread(harm, each)) is not None]
        halted = []
        for key, reason in harms:
            async with self._database.tenant_tx(tenant_id) as session:
                if await halt_in(session, tenant_id, key, self._clock, _ACTOR, reason):
                    halted.append(key)
                    log.warning("experiment_halted", tenant_id=str(tenant_id), experiment=key, reason=reason)
        return halted


def harm(evidence: Evidence) -> str | None:
    """Which guardrail says that which arm is worse than control, as a sentence; None: none does."""
    arms, problem = comparable(evidence)
    if problem is not None:
        return None
    for metric in evidence.experiment.guardrails:
        for result in analysis_of(evidence, arms, metric, MetricRole.GUARDRAIL).variants:
            if result.harmful:
                return (
                    f"The guardrail {metric.name!r} of the variant {result.variant!r} is worse than control's: "
                    f"the difference lies between {result.sequential_low:.6g} and {result.sequential_high:.6g}."
                )
    return None
