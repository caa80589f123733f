"""Queries for artifacts and their chunks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as pg_insert

from app.registry.rows import ArtifactChunkRow, ArtifactRow, ModelVersionRow
from app.registry.signing import Stamp

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

_ABANDONED_AFTER = timedelta(days=1)


async def add_chunk(session: AsyncSession, tenant_id: UUID, upload_id: UUID, seq: int, data: bytes, at: datetime) -> None:
    await session.execute(insert(ArtifactChunkRow).values(tenant_id=tenant_id, upload_id=upload_id, seq=seq, data=data, created_at=at))


class Arrival(StrEnum):
    """What an upload was to the tenant."""

    NEW = "NEW"
    RESTORED = "RESTORED"  # bytes that retention had deleted
    SIGNED = "SIGNED"  # bytes that are there, with another signature
    KNOWN = "KNOWN"


@dataclass(frozen=True, slots=True)
class Upload:
    """Complete bytes, stored as the chunks of `upload_id`."""

    upload_id: UUID
    digest: str
    size_bytes: int
    mac: bytes
    stamp: Stamp | None


async def add_artifact(session: AsyncSession, tenant_id: UUID, upload: Upload, by: str, at: datetime) -> Arrival:
    """Records the bytes. Those that were there before make way: the new ones are whole, and of the old ones nobody knows."""
    stamp = upload.stamp
    stored = {"size_bytes": upload.size_bytes, "upload_id": upload.upload_id, "mac": upload.mac}
    signed = {} if stamp is None else {"signer": stamp.signer, "signature": stamp.signature}
    made = pg_insert(ArtifactRow).values(tenant_id=tenant_id, digest=upload.digest, created_by=by, created_at=at, **stored, **signed)
    if (await session.execute(made.on_conflict_do_nothing().returning(ArtifactRow.digest))).scalar_one_or_none() is not None:
        return Arrival.NEW
    row = await session.get_one(ArtifactRow, (tenant_id, upload.digest), with_for_update=True)
    await remove_upload(session, tenant_id, row.upload_id)
    removed, newly_signed = row.removed_at is not None, stamp is not None and stamp != stamp_of(row)
    row.removed_at = None
    for name, value in {**stored, **signed}.items():
        setattr(row, name, value)
    if removed:
        await _bytes_are_back(session, tenant_id, upload.digest, at)
    await session.flush()
    return Arrival.RESTORED if removed else Arrival.SIGNED if newly_signed else Arrival.KNOWN


async def _bytes_are_back(session: AsyncSession, tenant_id: UUID, digest: str, at: datetime) -> None:
    """The versions that had lost them have them again, and retention counts from now."""
    await session.execute(
        update(ModelVersionRow)
        .where(
            ModelVersionRow.tenant_id == tenant_id,
            ModelVersionRow.artifact_digest == digest,
            ModelVersionRow.artifact_deleted_at.is_not(None),
        )
        .values(artifact_deleted_at=None, retired_at=at)
    )


def stamp_of(row: ArtifactRow) -> Stamp | None:
    """The signature that came with the bytes."""
    return None if row.signer is None or row.signature is None else Stamp(row.signer, row.signature)


async def find(session: AsyncSession, tenant_id: UUID, digest: str) -> ArtifactRow | None:
    """The artifact's record, be its bytes there or not."""
    return await session.get(ArtifactRow, (tenant_id, digest))


async def stored_bytes(session: AsyncSession, tenant_id: UUID) -> int:
    total = select(func.coalesce(func.sum(ArtifactRow.size_bytes), 0))
    total = total.where(ArtifactRow.tenant_id == tenant_id, ArtifactRow.removed_at.is_(None))
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
