"""Queries for artifacts and their chunks."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select
from sqlalchemy.dialects.postgresql import insert as pg_insert

from app.registry.rows import ArtifactChunkRow, ArtifactRow

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_ABANDONED_AFTER = timedelta(days=1)


async def add_chunk(session: AsyncSession, tenant_id: UUID, upload_id: UUID, seq: int, data: bytes, at: datetime) -> None:
    await session.execute(insert(ArtifactChunkRow).values(tenant_id=tenant_id, upload_id=upload_id, seq=seq, data=data, created_at=at))


async def add_artifact(
    session: AsyncSession, tenant_id: UUID, upload_id: UUID, digest: str, size: int, mac: bytes, by: str, at: datetime
) -> bool:
    """True where these bytes are new to the tenant; False where they are stored already."""
    made = pg_insert(ArtifactRow).values(
        tenant_id=tenant_id, digest=digest, size_bytes=size, upload_id=upload_id, mac=mac, created_by=by, created_at=at
    )
    return (await session.execute(made.on_conflict_do_nothing().returning(ArtifactRow.digest))).scalar_one_or_none() is not None


async def stored_bytes(session: AsyncSession, tenant_id: UUID) -> int:
    total = select(func.coalesce(func.sum(ArtifactRow.size_bytes), 0)).where(ArtifactRow.tenant_id == tenant_id)
    return int((await session.execute(total)).scalar_one())


async def remove_upload(session: AsyncSession, tenant_id: UUID, upload_id: UUID) -> None:
    await session.execute(delete(ArtifactChunkRow).where(ArtifactChunkRow.tenant_id == tenant_id, ArtifactChunkRow.upload_id == upload_id))


async def remove_abandoned(session: AsyncSession, tenant_id: UUID, now: datetime) -> None:
    """Removes chunks of uploads that broke off a day ago or earlier and could not clean up."""
    named = select(ArtifactRow.upload_id).where(ArtifactRow.tenant_id == tenant_id)
    await session.execute(
        delete(ArtifactChunkRow).where(
            ArtifactChunkRow.tenant_id == tenant_id,
            ArtifactChunkRow.created_at < now - _ABANDONED_AFTER,
            ArtifactChunkRow.upload_id.not_in(named),
        )
    )


async def read_chunk(session: AsyncSession, tenant_id: UUID, digest: str, seq: int) -> tuple[ArtifactRow | None, bytes | None]:
    """(the artifact's row, its chunk number `seq`); None for what is not there."""
    row = await session.get(ArtifactRow, (tenant_id, digest))
    if row is None:
        return None, None
    chunk = select(ArtifactChunkRow.data).where(
        ArtifactChunkRow.tenant_id == tenant_id, ArtifactChunkRow.upload_id == row.upload_id, ArtifactChunkRow.seq == seq
    )
    return row, (await session.execute(chunk)).scalar_one_or_none()
