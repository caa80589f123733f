"""Captured inputs, as they lie: sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from app.journal.rows import CapturedInputRow

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession


async def sealed_input(session: AsyncSession, tenant_id: UUID, prediction_id: UUID) -> bytes | None:
    """What was sealed for this prediction of the tenant's; None where nothing is kept, or waits in a spool."""
    row = CapturedInputRow
    query = select(row.sealed).where(row.tenant_id == tenant_id, row.prediction_id == prediction_id)
    return (await session.execute(query)).scalar_one_or_none()
