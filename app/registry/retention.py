"""Deletes the bytes of versions that were retired long ago: archived, withdrawn or FAILED. Never the record, never bytes in use.

Bytes that were uploaded so long ago, a day at the least, and that no version was ever registered from go, too.

Done by serving processes, as the runtime role and tenant by tenant, so that no process needs a role that reaches further. Several
may do it at once: the artifact's row is locked while it is decided, as it is by a registration.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import delete, exists, func, select, update

from app.audit import store as audit
from app.db.rounds import rounds
from app.registry import artifact_store
from app.registry.machine_copies import MachineCopies
from app.registry.rows import ArtifactChunkRow, ArtifactRow, CompiledModelRow, ModelVersionRow
from app.registry.types import VersionStatus

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.db.sync import SyncDatabase
    from app.kernel.clock import Clock

_EVERY_S, _FIRST_S = 3600.0, (180.0, 900.0)
_ACTOR = "turnout"
_RETIRED = (VersionStatus.ARCHIVED.value, VersionStatus.WITHDRAWN.value, VersionStatus.FAILED.value)
_LEAST_UNUSED = timedelta(days=1)  # between an upload and its registration
_A_TIME = 20  # artifacts in one transaction
log = structlog.get_logger()


class ArtifactRetention:
    """`days`: how long bytes outlive the retirement of the last version that used them, or their upload where none ever did.

    `folder`: this machine's artifact cache.
    """

    def __init__(self, database: Database, sync: SyncDatabase, folder: Path, clock: Clock, days: int) -> None:
        self._database = database
        self._sync = sync
        self._clock = clock
        self._copies = MachineCopies(database, folder, clock)
        self._kept = timedelta(days=days)

    async def run(self) -> None:
        """Looks once an hour, until cancelled; not at the same minute as every other process."""
        await rounds(self.sweep, _EVERY_S, log, waits="retention_waits", failed="retention_failed", first_s=random.uniform(*_FIRST_S))  # noqa: S311  no secret

    async def sweep(self) -> int:
        """How many artifacts were deleted. Raises Unavailable where the database is away."""
        before = self._clock.now() - self._kept
        deleted = await self._unused(self._clock.now() - max(self._kept, _LEAST_UNUSED))
        for tenant_id in await self._tenants(before):
            while batch := await self._of_tenant(tenant_id, before):
                deleted += batch
        await self._copies.sweep()
        return deleted

    async def _tenants(self, before: datetime) -> list[UUID]:
        due = select(ModelVersionRow.tenant_id).distinct()
        due = due.where(
            ModelVersionRow.status.in_(_RETIRED),
            ModelVersionRow.artifact_digest.is_not(None),
            ModelVersionRow.artifact_deleted_at.is_(None),
            ModelVersionRow.retired_at.is_(None) | (ModelVersionRow.retired_at < before),
        )
        async with self._sync.connection() as connection:
            return list((await connection.execute(due)).scalars())

    async def _of_tenant(self, tenant_id: UUID, before: datetime) -> int:
        async with self._database.tenant_tx(tenant_id) as session:
            await self._start_clocks(session, tenant_id)
            locked = select(ArtifactRow).where(ArtifactRow.tenant_id == tenant_id, ArtifactRow.digest.in_(_due(tenant_id, before)))
            locked = locked.order_by(ArtifactRow.digest).limit(_A_TIME).with_for_update()
            rows = {row.digest: row for row in (await session.execute(locked)).scalars()}
            # Again, now that the rows are held: a registration may have come between the look and the lock.
            due = _due(tenant_id, before).where(ModelVersionRow.artifact_digest.in_(rows))
            digests = [str(digest) for digest in (await session.execute(due)).scalars()]
            for digest in digests:
                await self._delete(session, rows[digest], f"Every version that used it was retired more than {self._kept.days} days ago.")
            await _delete_graphs(session, tenant_id)
        return len(digests)

    async def _unused(self, before: datetime) -> int:
        """How many were deleted of those that were uploaded before `before` and that no version names."""
        async with self._sync.connection() as connection:
            tenants = list((await connection.execute(_never_registered(ArtifactRow.tenant_id, before).distinct())).scalars())
        deleted = 0
        for tenant_id in tenants:
            while batch := await self._unused_of(tenant_id, before):
                deleted += batch
        return deleted

    async def _unused_of(self, tenant_id: UUID, before: datetime) -> int:
        bytes_since = exists().where(
            ArtifactChunkRow.tenant_id == ArtifactRow.tenant_id,
            ArtifactChunkRow.upload_id == ArtifactRow.upload_id,
            ArtifactChunkRow.created_at >= before,
        )
        unused = _never_registered(ArtifactRow, before).where(ArtifactRow.tenant_id == tenant_id, ~bytes_since)
        async with self._database.tenant_tx(tenant_id) as session:
            locked = unused.order_by(ArtifactRow.digest).limit(_A_TIME).with_for_update()
            held = [row.digest for row in (await session.execute(locked)).scalars()]
            # Again, now that the rows are held, as above; and an upload of the same bytes may have come, too.
            again = unused.where(ArtifactRow.digest.in_(held)).execution_options(populate_existing=True)
            rows = list((await session.execute(again)).scalars())
            days = max(self._kept, _LEAST_UNUSED).days
            for row in rows:
                await self._delete(session, row, f"No version was registered from it within {days} days of its upload.")
        return len(rows)

    async def _start_clocks(self, session: AsyncSession, tenant_id: UUID) -> None:
        """A version that was retired before that was written down is held to have been retired now."""
        unknown = (ModelVersionRow.tenant_id == tenant_id) & ModelVersionRow.status.in_(_RETIRED) & ModelVersionRow.retired_at.is_(None)
        await session.execute(update(ModelVersionRow).where(unknown).values(retired_at=self._clock.now()))

    async def _delete(self, session: AsyncSession, row: ArtifactRow, why: str) -> None:
        now = self._clock.now()
        await artifact_store.remove_upload(session, row.tenant_id, row.upload_id)
        row.removed_at = now
        versions = update(ModelVersionRow).values(artifact_deleted_at=now).returning(ModelVersionRow.model_id, ModelVersionRow.number)
        versions = versions.where(ModelVersionRow.tenant_id == row.tenant_id, ModelVersionRow.artifact_digest == row.digest)
        used_by = sorted(f"{model_id}/{number}" for model_id, number in await session.execute(versions))
        await audit.record_by(
            session,
            row.tenant_id,
            _ACTOR,
            self._clock,
            action="deleteArtifact",
            subject=f"artifact:{row.digest}",
            before={"sizeBytes": row.size_bytes},
            after={"versions": used_by},
            reason=why,
        )
        log.info("artifact_deleted", digest=row.digest, size_bytes=row.size_bytes)


def _never_registered(what: Any, before: datetime) -> Select[Any]:
    """`what` of artifacts with bytes, uploaded first before `before`, that no version names. As any role that reads both tables."""
    named = exists(ModelVersionRow.number).where(
        ModelVersionRow.tenant_id == ArtifactRow.tenant_id, ModelVersionRow.artifact_digest == ArtifactRow.digest
    )
    return select(what).where(ArtifactRow.removed_at.is_(None), ArtifactRow.created_at < before, ~named)


def _due(tenant_id: UUID, before: datetime) -> Select[str | None]:
    """Digests whose versions are all retired since before `before`, one of them with its bytes."""
    retired = ModelVersionRow.status.in_(_RETIRED) & (ModelVersionRow.retired_at < before)
    return (
        select(ModelVersionRow.artifact_digest)
        .where(ModelVersionRow.tenant_id == tenant_id, ModelVersionRow.artifact_digest.is_not(None))
        .group_by(ModelVersionRow.artifact_digest)
        .having(func.bool_and(func.coalesce(retired, False)), func.bool_or(ModelVersionRow.artifact_deleted_at.is_(None)))
    )


async def _delete_graphs(session: AsyncSession, tenant_id: UUID) -> None:
    """Compiled graphs that only versions without their artifact name."""
    named = select(ModelVersionRow.compiled_digest).where(
        ModelVersionRow.tenant_id == tenant_id, ModelVersionRow.compiled_digest.is_not(None)
    )
    without, with_bytes = (
        named.where(ModelVersionRow.artifact_deleted_at.is_not(None)),
        named.where(ModelVersionRow.artifact_deleted_at.is_(None)),
    )
    await session.execute(
        delete(CompiledModelRow).where(
            CompiledModelRow.tenant_id == tenant_id, CompiledModelRow.digest.in_(without), CompiledModelRow.digest.not_in(with_bytes)
        )
    )
