"""Queries of outcomes: lists in, lists out, whatever their length. Each runs in the caller's transaction, under row-level security."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ARRAY, Boolean, DateTime, Double, Integer, Text, Uuid, bindparam, select

from app.experiments.exposures import statement
from app.experiments.outcome_rules import predicted_at
from app.experiments.rows import MetricRow, OutcomeRow
from app.experiments.values import AT_OF
from app.journal.types import ERASURE_GRACE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_FIND_PREDICTIONS = statement("""
select g.id, p.unit_hash, p.rows from unnest(:ids, :ats) as g (id, at)
cross join lateral (
  select p.unit_hash, p.rows from predictions p where p.tenant_id = :tenant and p.id = g.id and p.at = g.at limit 1
) p""").bindparams(bindparam("ids", type_=ARRAY(Uuid())), bindparam("ats", type_=ARRAY(DateTime(timezone=True))))

_COLUMNS: dict[str, Any] = {
    "id": Uuid(), "metric": Text(), "value": Double(), "occurred_at": DateTime(timezone=True), "prediction_id": Uuid(), "row": Integer(),
    "unit_hash": Text(), "pending": Boolean(), "dedup_key": Text(),
}  # fmt: skip
# What happened to a unit before it was erased is nobody's; asked in the statement that keeps it, so that none slips past.
_UNIT = f"""case when (select max(t.at) from tombstones t where t.tenant_id = :tenant and t.unit_hash = g.unit_hash)
  + interval '{ERASURE_GRACE.total_seconds():.0f} seconds' >= least(g.occurred_at, {AT_OF.format("g.prediction_id")})
  then null else g.unit_hash end"""  # noqa: S608  constants
# In the order of the keys, so that two calls with the same ones wait for each other and never both.
_KEEP = statement(f"""
with fresh as (
    insert into outcomes (tenant_id, {", ".join(_COLUMNS)})
    select :tenant, {", ".join(_UNIT if name == "unit_hash" else f"g.{name}" for name in _COLUMNS)}
    from unnest({", ".join(f":{name}" for name in _COLUMNS)}) as g ({", ".join(_COLUMNS)}) order by g.dedup_key
    on conflict (tenant_id, dedup_key) do nothing
    returning id, unit_hash, pending
  ),
  marked as (
    insert into stale_units (tenant_id, unit_hash)
    select :tenant, unit_hash from fresh where unit_hash is not null and not pending group by unit_hash
  )
select id from fresh""").bindparams(*(bindparam(name, type_=ARRAY(kind)) for name, kind in _COLUMNS.items()))  # noqa: S608  constants


@dataclass(frozen=True, slots=True)
class Kept:
    """An outcome as its row holds it."""

    id: UUID
    metric: str
    value: float
    occurred_at: datetime
    prediction_id: UUID | None
    row: int | None
    unit_hash: str | None
    pending: bool
    dedup_key: str

    def says(self, other: Kept) -> bool:
        """Whether both say the same of the same thing. A time that was left out differs from try to try, and a unit may be erased since."""
        if (self.metric, self.value, self.row, self.prediction_id) != (other.metric, other.value, other.row, other.prediction_id):
            return False
        return self.prediction_id is not None or self.unit_hash in {None, other.unit_hash}


class LoggedPrediction(NamedTuple):
    unit_hash: str | None
    rows: int


async def metric_names(session: AsyncSession, tenant_id: UUID) -> set[str]:
    """Of all metrics that the tenant declared."""
    return set((await session.execute(select(MetricRow.name).where(MetricRow.tenant_id == tenant_id))).scalars())


async def logged(session: AsyncSession, tenant_id: UUID, ids: Collection[UUID]) -> dict[UUID, LoggedPrediction]:
    """Those of the predictions that have reached the log."""
    if not ids:
        return {}
    wanted = {"tenant": tenant_id, "ids": list(ids), "ats": [predicted_at(each) for each in ids]}
    found = await session.execute(_FIND_PREDICTIONS, wanted)
    return {prediction_id: LoggedPrediction(unit_hash, rows) for prediction_id, unit_hash, rows in found}


async def keep(session: AsyncSession, tenant_id: UUID, outcomes: Sequence[Kept]) -> dict[str, Kept]:
    """What is kept under each one's key: the outcome itself where it is new, else the one that was there before it."""
    columns = {name: [getattr(each, name) for each in outcomes] for name in _COLUMNS}
    fresh = set((await session.execute(_KEEP, {"tenant": tenant_id, **columns})).scalars())
    kept = {each.dedup_key: each for each in outcomes if each.id in fresh}
    if repeated := [each.dedup_key for each in outcomes if each.id not in fresh]:
        before = select(OutcomeRow).where(OutcomeRow.tenant_id == tenant_id, OutcomeRow.dedup_key.in_(repeated))
        for row in (await session.execute(before)).scalars():
            kept[row.dedup_key] = Kept(*(getattr(row, name) for name in _COLUMNS))
    return kept
