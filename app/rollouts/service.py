"""Commands that touch two rooms at once: an experiment is concluded and its winner promoted, or neither."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.db.outbox import announce
from app.errors import InvalidInput, PermissionDenied
from app.kernel.context import Action

if TYPE_CHECKING:
    from app.db.session import Database
    from app.experiments.service import ExperimentService
    from app.experiments.types import Experiment
    from app.kernel.context import RequestContext
    from app.registry.service import RegistryService

_ALIAS = "production"


class RolloutService:
    """Opens the one transaction in which the experiments' and the registry's change stand."""

    def __init__(self, database: Database, experiments: ExperimentService, registry: RegistryService) -> None:
        self._database = database
        self._experiments = experiments
        self._registry = registry

    async def conclude(
        self,
        ctx: RequestContext,
        key: str,
        promote_variant: str | None = None,
        expected_revision: int | None = None,
        reason: str | None = None,
    ) -> Experiment:
        """The experiment CONCLUDED, and the version of `promote_variant` in production, once every replica that is heard of says so.

        `expected_revision`: of the alias. Raises PermissionDenied, InvalidInput, NotFound, Conflict, NotPromotable; then neither
        has changed.
        """
        ctx.require(Action.MANAGE_EXPERIMENTS)
        if promote_variant is None:
            return await self._conclude_alone(ctx, key, expected_revision, reason)
        _require_promotion(ctx)
        model, version = await self._experiments.winner(ctx, key, promote_variant)
        damage = await self._registry.damage(ctx, model, version)
        why = reason or f"the experiment {key} was concluded with the variant {promote_variant}"
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            experiment = await self._experiments.conclude_in(session, ctx, key, promote_variant, reason)
            promotion, moved = await self._registry.promote_in(
                session, ctx, model, version, _ALIAS, expected_revision, allow_breaking=False, reason=why, damage=damage
            )
            generation = None if moved else await announce(session, ctx.tenant_id)
        if generation is None:  # the promotion's, which holds the end of the experiment as well
            await self._registry.in_effect(ctx, promotion)
        else:
            await self._experiments.in_force(ctx, generation)
        return experiment

    async def _conclude_alone(self, ctx: RequestContext, key: str, expected_revision: int | None, reason: str | None) -> Experiment:
        if expected_revision is not None:
            raise InvalidInput("expectedRevision is of the alias that promoteVariant moves: leave it out, or name the variant.")
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            experiment = await self._experiments.conclude_in(session, ctx, key, None, reason)
            generation = await announce(session, ctx.tenant_id)
        await self._experiments.in_force(ctx, generation)
        return experiment


def _require_promotion(ctx: RequestContext) -> None:
    if Action.PROMOTE not in ctx.allowed:
        have = ", ".join(sorted(ctx.roles)) or "none"
        raise PermissionDenied(
            f"promoteVariant changes what serves in production, which needs the permission {Action.PROMOTE} (ADMIN) as well; your roles"
            f" ({have}) do not give it. Conclude without promoteVariant, or ask an ADMIN."
        )
