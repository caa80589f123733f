"""A running flag of a flag server is an experiment: its row follows the flag, whoever of the serving processes is first."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from app.audit.store import record_by
from app.db.outbox import announce
from app.errors import AppError
from app.experiments.rows import ExperimentRow
from app.experiments.types import ExperimentSource, ExperimentStatus
from app.experiments.unleash.keeping import kept_revision
from app.experiments.unleash.wanting import Wanted, wanted_experiments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.db.sync import SyncDatabase
    from app.experiments.unleash.ports import TenantSights
    from app.experiments.unleash.source import UnleashFlagSource
    from app.experiments.unleash.splitting import SplitDocument
    from app.experiments.unleash.types import UnleashDocument
    from app.kernel.clock import Clock

ACTOR = "unleash"  # in the audit log
LOOK_S = 1.0
_RUNNING, _STOPPED = ExperimentStatus.RUNNING.value, ExperimentStatus.STOPPED.value
_BORN = ExperimentRow.source == ExperimentSource.UNLEASH.value
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a tenant's experiments were made of."""

    share: UnleashDocument | None
    models: Mapping[str, Any]


class UnleashExperiments:
    """One a serving process. `run` looks each second, in memory; the database is asked where something may have changed."""

    def __init__(
        self, source: UnleashFlagSource, database: Database, sync_database: SyncDatabase, sights: TenantSights, clock: Clock
    ) -> None:
        self._source = source
        self._database, self._sync_database = database, sync_database
        self._sights, self._clock = sights, clock
        self._woken = asyncio.Event()
        self._document: SplitDocument | None = None
        self._seen: dict[UUID, _Seen] = {}
        self._written: dict[UUID, dict[str, Wanted]] = {}
        self._running: set[UUID] = set()  # tenants with a RUNNING experiment that was born so

    def wake(self) -> None:
        """Look now; in the event loop of `run`."""
        self._woken.set()

    async def run(self) -> None:
        """Keeps the rows as the flags are, until cancelled. What could not be written is tried again."""
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                await self.look()
            except AppError as error:
                log.warning("unleash_experiments_not_written", code=error.code)
            except Exception:
                log.exception("unleash_experiments_broke")

    async def look(self) -> None:
        """Writes what changed since the last look. Raises Unavailable."""
        document = self._source.document()
        if document is None:
            return
        if document is not self._document:
            self._running = await self._tenants_with_running()
            self._written.clear()
            self._document = document
        for tenant_id, name in await asyncio.to_thread(self._changed):
            if not await self._follow(document, tenant_id, name):
                return  # another document is the newest, or this one is not kept yet

    def _changed(self) -> list[tuple[UUID, str]]:
        """In a thread: shares of a new document take their time."""
        changed = []
        for tenant_id, name in self._sights.tenants():
            seen = self._seen.get(tenant_id)
            share, models = self._source.of_tenant(name), self._sights.models(tenant_id)
            if seen is None or seen.share is not share or seen.models is not models:
                changed.append((tenant_id, name))
        return changed

    async def _follow(self, document: SplitDocument, tenant_id: UUID, name: str) -> bool:
        """Whether to go on: rows follow the kept document alone, so that processes never pull in two directions."""
        seen = _Seen(self._source.of_tenant(name), self._sights.models(tenant_id))
        wanted = wanted_experiments(seen.share, seen.models)
        before = self._written.get(tenant_id)
        if wanted != before and (wanted or before or tenant_id in self._running):
            try:
                if not await self._write(document.revision, tenant_id, wanted):
                    return False
            except IntegrityError:  # routing knows of a model that the registry does not have, or has no more: its next change tells
                log.warning("unleash_experiment_without_model", tenant_id=str(tenant_id))
        self._written[tenant_id], self._seen[tenant_id] = wanted, seen
        return True

    async def _write(self, revision: int, tenant_id: UUID, wanted: Mapping[str, Wanted]) -> bool:
        """False: the kept document is another one, and nothing was written."""
        async with self._database.tenant_tx(tenant_id) as session:
            if await kept_revision(session, hold=True) != revision:
                return False
            if await self._written_rows(session, tenant_id, wanted):
                await announce(session, tenant_id)
            return True

    async def _written_rows(self, session: AsyncSession, tenant_id: UUID, wanted: Mapping[str, Wanted]) -> bool:
        query = select(ExperimentRow).where(ExperimentRow.tenant_id == tenant_id, _BORN).order_by(ExperimentRow.key).with_for_update()
        rows: Sequence[ExperimentRow] = (await session.execute(query)).scalars().all()
        changed = False
        for row in rows:
            changed = await self._follow_row(session, row, wanted.get(row.key)) or changed
        there = {row.key for row in rows}
        for key in sorted(wanted.keys() - there):
            changed = await self._add(session, tenant_id, wanted[key]) or changed
        await session.flush()
        return changed

    async def _follow_row(self, session: AsyncSession, row: ExperimentRow, wanted: Wanted | None) -> bool:
        """Whether the row changed. One that was concluded stays as it was."""
        if row.status == ExperimentStatus.CONCLUDED.value or (wanted is None and row.status != _RUNNING):
            return False
        before = _described(row)
        if wanted is None:
            row.status, row.ended_at = _STOPPED, self._clock.now()
            action = "stopExperiment"
        else:
            action = "updateExperiment" if row.status == _RUNNING else "startExperiment"
            row.status, row.ended_at = _RUNNING, None
            row.model, row.model_id, row.rollout = wanted.model, wanted.model_id, wanted.rollout
            if row.variants != (variants := _json(wanted)):
                row.variants = variants
        if _described(row) == before:
            return False
        row.revision += 1
        await self._record(session, row.tenant_id, row.key, action, before, _described(row))
        return True

    async def _add(self, session: AsyncSession, tenant_id: UUID, wanted: Wanted) -> bool:
        now = self._clock.now()
        row = {
            "tenant_id": tenant_id, "key": wanted.key, "model_id": wanted.model_id, "model": wanted.model,
            "status": _RUNNING, "source": ExperimentSource.UNLEASH.value, "rollout": wanted.rollout, "variants": _json(wanted),
            "secondary_metrics": [], "guardrails": [], "planned_looks": 1, "slots": [], "targeting": [], "overrides": [],
            "created_at": now, "created_by": ACTOR, "started_at": now,
        }  # fmt: skip
        made = insert(ExperimentRow).values(row).on_conflict_do_nothing(index_elements=["tenant_id", "key"])
        if (await session.execute(made.returning(ExperimentRow.key))).scalar_one_or_none() is None:
            return False  # another process was first; the next look finds the row
        after = {"model": wanted.model, "status": _RUNNING, "rollout": wanted.rollout, "variants": _json(wanted)}
        await self._record(session, tenant_id, wanted.key, "startExperiment", None, after)
        return True

    async def _record(self, session: AsyncSession, tenant_id: UUID, key: str, action: str, before: Any, after: Any) -> None:
        subject = f"experiment:{key}"
        await record_by(session, tenant_id, ACTOR, self._clock, action=action, subject=subject, before=before, after=after)

    async def _tenants_with_running(self) -> set[UUID]:
        query = select(ExperimentRow.tenant_id).where(_BORN, ExperimentRow.status == _RUNNING).distinct()
        async with self._sync_database.connection() as connection:
            return set((await connection.execute(query)).scalars())


def _json(wanted: Wanted) -> list[dict[str, Any]]:
    return [variant.to_json() for variant in wanted.variants]


def _described(row: ExperimentRow) -> dict[str, Any]:
    return {"model": row.model, "status": row.status, "rollout": row.rollout, "variants": row.variants}
