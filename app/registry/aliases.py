"""Moving an alias inside a transaction that others may share: what it expects, what stands in the way, what is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.audit import store as audit
from app.db.outbox import announce
from app.errors import Conflict, NotPromotable
from app.kernel.signature import Signature
from app.registry import rules, store
from app.registry.standing import point_alias
from app.registry.types import Promotion, VersionStatus

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.registry.rows import ModelRow, PromotionRow
    from app.registry.standing import Found, Standing
    from app.registry.types import PromotionBlocker


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
    at, revision = clock.now(), state.revision + 1
    before = None if state.number is None else {"version": state.number, "revision": state.revision}
    after = {"version": number, "revision": revision}
    subject = f"alias:{model.name}/{alias}"
    await audit.record(session, ctx, clock, action=action, subject=subject, before=before, after=after, reason=reason)
    generation = await announce(session, ctx.tenant_id)  # before the history row, which is written once and holds it
    moved = Promotion(model.name, alias, number, state.number, revision, at, ctx.subject, reason, model.model_id, generation)
    await point_alias(session, model, moved, parent_revision)
    return moved


async def expected_state(session: AsyncSession, model: ModelRow, alias: str, expected: int | None) -> store.AliasState:
    """The alias as it stands; raises Conflict where the caller expected another revision (0: none yet)."""
    state = await store.alias_state(session, model, alias)
    check_expected(model, alias, state, expected)
    return state


def check_expected(model: ModelRow, alias: str, state: store.AliasState, expected: int | None) -> None:
    """As `expected_state`, of an alias whose state is known."""
    if expected is not None and expected != state.revision:
        raise Conflict(f"The alias {alias!r} of {model.name!r} is at revision {state.revision}, not {expected}: look again, then decide.")


async def previous(session: AsyncSession, model: ModelRow, alias: str, revision: int) -> PromotionRow | None:
    """The next step down the alias's history whose version can still serve; None at the bottom."""
    current = await store.promotion_at(session, model, alias, revision)
    while current is not None and current.parent_revision is not None:
        current = await store.promotion_at(session, model, alias, current.parent_revision)
        if current is not None and (await store.find_version(session, model, current.number)).status == VersionStatus.READY:
            return current
    return None


def blockers(standing: Standing) -> list[PromotionBlocker]:
    """All that stands in the way of pointing the alias at the version."""
    candidate, serving = standing.candidate, standing.serving
    if standing.state.number == standing.number:
        found = rules.promotion_blockers(standing.status, _signature(candidate), None, None, None)
        return [b for b in found if not b.overridable]
    if serving is None or serving == candidate:  # nobody calls it, or its callers will find what they found
        return rules.promotion_blockers(standing.status, _signature(candidate), None, None, None)
    return rules.promotion_blockers(standing.status, _signature(candidate), _classes(candidate), _signature(serving), _classes(serving))


def _signature(found: Found) -> Signature | None:
    return None if found.signature is None else Signature.from_json(found.signature)


def _classes(found: Found) -> tuple[str, ...] | None:
    return None if found.classes is None else tuple(found.classes)


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
