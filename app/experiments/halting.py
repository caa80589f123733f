"""The emergency brake: a guardrail takes an experiment's traffic away without anybody asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.audit import store as audit
from app.db.outbox import announce
from app.experiments import store
from app.experiments.service import subject_of
from app.experiments.types import ExperimentSource, ExperimentStatus

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.kernel.clock import Clock


async def halt_in(session: AsyncSession, tenant_id: UUID, key: str, clock: Clock, actor: str, reason: str) -> bool:
    """Whether the experiment's rollout was set to 0 now, with its audit row and its news, in the caller's transaction.

    It stays RUNNING, so that somebody may look and ramp it again; its layer's buckets are free for others. False where it does not
    run, has no traffic, or is a flag of an Unleash server, which alone can turn it off. Raises NotFound.
    """
    row = await store.find(session, tenant_id, key, lock=True)
    if row.status != ExperimentStatus.RUNNING or row.source != ExperimentSource.TURNOUT or row.rollout == 0:
        return False
    before = {"rollout": row.rollout, "slots": row.slots, "revision": row.revision}
    row.rollout, row.slots, row.revision = 0.0, [], row.revision + 1
    await session.flush()
    after = {"rollout": 0.0, "slots": [], "revision": row.revision}
    await audit.record_by(
        session, tenant_id, actor, clock, action="haltExperiment", subject=subject_of(key), before=before, after=after, reason=reason
    )
    await announce(session, tenant_id)
    return True
