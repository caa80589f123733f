"""What the proof that goes on finds: counted on the version, shown on it, and the end of its compiled graph on every replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select

from app.audit import store as audit
from app.db.outbox import announce
from app.registry.rows import ModelRow, ModelVersionRow
from app.registry.types import RuntimeKind

if TYPE_CHECKING:
    from uuid import UUID

    from app.db.session import Database
    from app.kernel.clock import Clock
    from app.registry.ports import Announcer

_AUDIT_ACTOR = "turnout"
log = structlog.get_logger()


class CompiledMismatches:
    """One a serving process."""

    def __init__(self, database: Database, clock: Clock, announced: Announcer) -> None:
        self._database = database
        self._clock = clock
        self._announced = announced

    async def record(self, tenant_id: UUID, model_id: UUID, number: int, digest: str, found: str) -> None:
        """Counts one answer of the version's graph `digest` that was not scikit-learn's; the first has the version served natively.

        `found`: how they differed, without values. Replicas may find the same at once: each is counted, one switches.
        """
        async with self._database.tenant_tx(tenant_id) as session:
            row = await session.get(ModelVersionRow, (tenant_id, model_id, number), with_for_update=True)
            if row is None or row.compiled_digest != digest:
                return
            proof = dict(row.proof or {})
            proof["mismatches"] = proof.get("mismatches", 0) + 1
            row.proof = proof
            if row.runtime != RuntimeKind.ONNX:
                return
            row.runtime = RuntimeKind.SKLEARN.value
            row.warning = _joined(
                row.warning, f"Served by scikit-learn since a live request was answered otherwise by the compiled model: {found}."
            )
            model = (
                await session.execute(select(ModelRow.name).where(ModelRow.tenant_id == tenant_id, ModelRow.model_id == model_id))
            ).scalar_one()
            await session.flush()
            await audit.record_by(
                session,
                tenant_id,
                _AUDIT_ACTOR,
                self._clock,
                action="switchRuntime",
                subject=f"version:{model}/{number}",
                before={"runtime": RuntimeKind.ONNX.value},
                after={"runtime": RuntimeKind.SKLEARN.value},
                reason=found,
            )
            await announce(session, tenant_id)
        log.warning("version_switched_to_its_estimator", model=model, version=number)
        self._announced.wake()


def _joined(before: str | None, now: str) -> str:
    return now if before is None else f"{before} {now}"
