"""What the registry answers to experiments: whether a model's versions can stand beside each other before the same callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.registry import rules, store
from app.registry.types import PRODUCTION, VersionStatus

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.registry.rows import ModelRow
    from app.registry.types import ModelVersion


class VersionCandidates:
    """Asked inside the transaction of whoever asks; one a process."""

    async def hold(self, session: AsyncSession, tenant_id: UUID, model: str) -> UUID:
        """The model's id, its row locked until the transaction ends, as promoting and archiving lock it; raises NotFound."""
        return (await store.find_model(session, tenant_id, model, lock=True)).model_id

    async def classes(self, session: AsyncSession, tenant_id: UUID, model: str, version: int) -> tuple[str, ...] | None:
        """As text, in the estimator's order; None for a regressor. Raises NotFound."""
        return (await _version(session, await store.find_model(session, tenant_id, model), version)).classes

    async def refusals(self, session: AsyncSession, tenant_id: UUID, model: str, control: int, others: Collection[int]) -> list[str]:
        """A sentence for each reason why a version cannot take part; raises NotFound for one that is not there.

        Each must be READY and take what the callers of `control` send, and `control` what those of the alias `production` send.
        """
        row = await store.find_model(session, tenant_id, model)
        base = await _version(session, row, control)
        found = [
            text for number in others for text in _refusals(await _version(session, row, number), base, f"the control, version {control}")
        ]
        state = await store.alias_state(session, row, PRODUCTION)
        serving = None if state.number in {None, control} else await _version(session, row, state.number or 0)
        beside = _refusals(base, serving, f"{PRODUCTION!r}, version {state.number}")
        if beside and base.status is VersionStatus.READY:
            beside[-1] += f" Bring version {control} into {PRODUCTION!r} first, or let version {state.number} be the control."
        return [*beside, *found]


async def _version(session: AsyncSession, model: ModelRow, number: int) -> ModelVersion:
    return store.version_value(await store.find_version(session, model, number), model.name)


def _refusals(candidate: ModelVersion, base: ModelVersion | None, what: str) -> list[str]:
    """Why the candidate cannot answer those who call `base`, which is `what`."""
    if candidate.status is not VersionStatus.READY:
        (blocker,) = rules.promotion_blockers(candidate.status, None, None, None, None)
        return [f"Version {candidate.number} of {candidate.model!r} is {candidate.status} and cannot take part. {blocker.message}"]
    serving, classes = (None, None) if base is None or base.status is not VersionStatus.READY else (base.inspected, base.classes)
    breaks = rules.promotion_blockers(candidate.status, candidate.inspected, candidate.classes, serving, classes)
    return [f"Version {candidate.number} of {candidate.model!r} does not fit callers of {what}: {each.message}" for each in breaks]
