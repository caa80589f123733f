"""Usage, derived from the journal: the database adds up what lands, in the transaction in which it lands, so nothing can disagree.

What landed lies in deltas until it is folded into days; whoever reads adds both in one statement, which sees each landing once.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Date, bindparam, exists, func, select, text, union_all

from app.journal.rows import PredictionRow, UsageDayRow, UsageDeltaRow
from app.journal.types import ModelUsage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

FOLD_AT_ONCE = 20_000  # deltas of one transaction
_FOLD = text("""
    with taken as (
      delete from usage_deltas where tenant_id = :tenant and id in (
        select id from usage_deltas where tenant_id = :tenant order by id limit :most)
      returning day, model, version, requests, rows, compute_us),
    added as (
      insert into usage_days as u (tenant_id, day, model, version, requests, rows, compute_us)
      select :tenant, day, model, version, sum(requests), sum(rows), sum(compute_us) from taken group by day, model, version
      order by day, model, version
      on conflict (tenant_id, day, model, version) do update set
        requests = u.requests + excluded.requests, rows = u.rows + excluded.rows, compute_us = u.compute_us + excluded.compute_us)
    select count(*) from taken""")


async def usage_between(session: AsyncSession, tenant_id: UUID, start: datetime, end: datetime) -> list[ModelUsage]:
    """What the tenant's versions answered from `start` up to, not including, `end`: by UTC day, model and version, in this order.

    Counted in the journal itself, so of days whose records are kept. `session` belongs to the tenant, and its transaction to the
    caller. Records that wait in a spool are not in it yet.
    """
    day = func.date_trunc("day", PredictionRow.at, "UTC").label("day")
    totals = await session.execute(
        select(
            day,
            PredictionRow.model,
            PredictionRow.version,
            func.count().label("requests"),
            func.sum(PredictionRow.rows).label("rows"),
            func.sum(PredictionRow.compute_us).label("compute_us"),
        )
        .where(PredictionRow.tenant_id == tenant_id, PredictionRow.at >= start, PredictionRow.at < end)
        .group_by(day, PredictionRow.model, PredictionRow.version)
        .order_by(day, PredictionRow.model, PredictionRow.version)
    )
    return _values(totals)


async def usage_of_days(session: AsyncSession, tenant_id: UUID, first: date, end: date) -> list[ModelUsage]:
    """What the tenant's versions answered on the UTC days from `first` up to, not including, `end`, as `usage_between` says it.

    The same as that while the records are kept, and what it was when they are not.
    """
    parts: list[Any] = [
        select(row.day, row.model, row.version, row.requests, row.rows, row.compute_us).where(
            row.tenant_id == tenant_id, row.day >= bindparam("first", type_=Date), row.day < bindparam("end", type_=Date)
        )
        for row in (UsageDayRow, UsageDeltaRow)
    ]
    both = union_all(*parts).subquery()
    keys = (both.c.day, both.c.model, both.c.version)
    sums = [func.sum(column).label(column.name) for column in (both.c.requests, both.c.rows, both.c.compute_us)]
    totals = await session.execute(select(*keys, *sums).group_by(*keys).order_by(*keys), {"first": first, "end": end})
    return _values(totals)


async def is_logged(session: AsyncSession, tenant_id: UUID, day: datetime) -> bool:
    """Whether the journal still holds an answer of the UTC day that begins at `day`."""
    row = PredictionRow
    query = select(exists().where(row.tenant_id == tenant_id, row.at >= day, row.at < day + timedelta(days=1)))
    return bool((await session.execute(query)).scalar_one())


async def fold_usage(session: AsyncSession, tenant_id: UUID, most: int = FOLD_AT_ONCE) -> int:
    """How many deltas of the tenant went into its days, in one statement; another one that folds meanwhile finds them gone."""
    return int((await session.execute(_FOLD, {"tenant": tenant_id, "most": most})).scalar_one())


def _values(rows: Iterable[Any]) -> list[ModelUsage]:
    return [ModelUsage(_midnight(row.day), row.model, row.version, int(row.requests), int(row.rows), int(row.compute_us)) for row in rows]


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
