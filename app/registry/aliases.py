"""Moving an alias inside a transaction that others may share: what it expects, what stands in the way, what is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.audit import store as audit
from app.db.outbox import announce
from app.errors import Conflict, NotPromotable
from app.registry import rules, store
from app.registry.rows import PromotionRow
from app.registry.types import VersionStatus

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.kernel.signature import Signature
    from app.registry.rows import ModelRow
    from app.registry.types import Promotion, PromotionBlocker


async def move(
    session: AsyncSession,
    ctx: RequestContext,
    clock: Clock,
    model: ModelRow,
    alias: str,
    state: store.AliasState,
    number: int,
    parent_revision: int | None,
    action: str,
    reason: str | None,
) -> Promotion:
    """The alias pointed at the version, with its history row, audit row and news. The caller holds the model's lock."""
    row = PromotionRow(
        tenant_id=model.tenant_id,
        model_id=model.model_id,
        alias=alias,
        revision=state.revision + 1,
        number=number,
        previous_number=state.number,
        parent_revision=parent_revision,
        at=clock.now(),
        by=ctx.subject,
        reason=reason,
    )
    before = None if state.number is None else {"version": state.number, "revision": state.revision}
    after = {"version": number, "revision": row.revision}
    subject = f"alias:{model.name}/{alias}"
    await audit.record(session, ctx, clock, action=action, subject=subject, before=before, after=after, reason=reason)
    row.generation = await announce(session, ctx.tenant_id)  # before the row, which is written once and holds it
    await store.point_alias(session, model, row)
    return store.promotion_value(row, model.name)


async def expected_state(session: AsyncSession, model: ModelRow, alias: str, expected: int | None) -> store.AliasState:
    """The alias as it stands; raises Conflict where the caller expected another revision (0: none yet)."""
    state = await store.alias_state(session, model, alias)
    if expected is not None and expected != state.revision:
        raise Conflict(f"The alias {alias!r} of {model.name!r} is at revision {state.revision}, not {expected}: look again, then decide.")
    return state


async def previous(session: AsyncSession, model: ModelRow, alias: str, revision: int) -> PromotionRow | None:
    """The next step down the alias's history whose version can still serve; None at the bottom."""
    current = await store.promotion_at(session, model, alias, revision)
    while current is not None and current.parent_revision is not None:
        current = await store.promotion_at(session, model, alias, current.parent_revision)
        if current is not None and (await store.find_version(session, model, current.number)).status == VersionStatus.READY:
            return current
    return None


async def blockers(session: AsyncSession, model: ModelRow, number: int, state: store.AliasState) -> list[PromotionBlocker]:
    """All that stands in the way of pointing an alias in this state at the version; raises NotFound."""
    candidate = store.version_value(await store.find_version(session, model, number), model.name)
    if state.number == number:
        return [b for b in rules.promotion_blockers(candidate.status, candidate.inspected, None, None, None) if not b.overridable]
    serving: Signature | None = None
    classes: tuple[str, ...] | None = None
    if state.number is not None:
        now = store.version_value(await store.find_version(session, model, state.number), model.name)
        serving, classes = now.inspected, now.classes
    return rules.promotion_blockers(candidate.status, candidate.inspected, candidate.classes, serving, classes)


def refuse(model: ModelRow, alias: str, number: int, found: list[PromotionBlocker], allow_breaking: bool) -> None:
    """Raises NotPromotable with the blockers that stand; returns where there is none."""
    if standing := [b for b in found if not (allow_breaking and b.overridable)]:
        way_on = (
            " Where its callers can bear that, promote takes allowBreaking with a reason." if all(b.overridable for b in standing) else ""
        )
        raise NotPromotable(
            f"Version {number} of {model.name!r} cannot be promoted to {alias!r}: {' '.join(b.message for b in standing)}{way_on}",
            blockers=[b.to_json() for b in standing],
        )
