"""Planned looks: the sums are frozen the moment one is due, so the planned analysis does not depend on when somebody reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as pg_insert

from app.experiments.rows import ExperimentRow, ExposureTallyRow, LookRow
from app.experiments.stats.earned import looks_due
from app.experiments.sums import read_sums
from app.experiments.types import ExperimentSource, ExperimentStatus

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_ENDED = (ExperimentStatus.STOPPED.value, ExperimentStatus.CONCLUDED.value)


def due(row: ExperimentRow, units: int) -> int:
    """The highest look that is due at `units` of all arms together; 0: none.

    Without planned units there is one, when nobody new comes in. What was born in Unleash and never given a plan has none.
    """
    if row.source == ExperimentSource.UNLEASH and row.primary_metric is None:
        return 0
    if row.planned_units is None:
        return row.planned_looks if row.status in _ENDED else 0
    return looks_due(units, row.planned_units, row.planned_looks)


async def freeze_due(session: AsyncSession, tenant_id: UUID) -> list[tuple[str, int]]:
    """The (experiment, look) pairs that were frozen now; of several that fell due at once only the highest.

    In the fold's transaction, under its lock, when no stale unit is left.
    """
    units = select(func.sum(ExposureTallyRow.units)).where(
        ExposureTallyRow.tenant_id == tenant_id, ExposureTallyRow.experiment == ExperimentRow.key
    )
    done = select(func.max(LookRow.look)).where(LookRow.tenant_id == tenant_id, LookRow.experiment == ExperimentRow.key)
    last = func.coalesce(done.scalar_subquery(), 0)
    query = select(ExperimentRow, func.coalesce(units.scalar_subquery(), 0), last).where(
        ExperimentRow.tenant_id == tenant_id, ExperimentRow.status != ExperimentStatus.DRAFT.value, last < ExperimentRow.planned_looks
    )
    rows = (await session.execute(query.execution_options(populate_existing=True))).all()
    frozen = {row.key: look for row, count, before in rows if (look := due(row, int(count))) > before}
    if frozen:
        sums = await read_sums(session, tenant_id, frozen)
        values = [
            {"tenant_id": tenant_id, "experiment": key, "look": look, "units": sums[key].units, "sums": sums[key].to_json()}
            for key, look in frozen.items()
        ]
        await session.execute(pg_insert(LookRow).values(values).on_conflict_do_nothing())
    return sorted(frozen.items())
