"""Usage, derived from the journal: nothing is counted beside it, so nothing can disagree with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from app.journal.rows import PredictionRow
from app.journal.types import ModelUsage

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


async def usage_between(session: AsyncSession, tenant_id: UUID, start: datetime, end: datetime) -> list[ModelUsage]:
    """What the tenant's versions answered from `start` up to, not including, `end`: by UTC day, model and version, in this order.

    `session` belongs to the tenant, and its transaction to the caller. Records that wait in a spool are not in it yet.
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
    return [ModelUsage(row.day, row.model, row.version, row.requests, int(row.rows), float(row.compute_us) / 1000) for row in totals]
