"""Use cases of experiments. Each checks the permission, opens one transaction, writes change, audit and outbox together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.audit import store as audit
from app.audit.rules import check_optional_reason
from app.db.outbox import announce
from app.errors import Conflict, InvalidInput
from app.experiments import rules, store
from app.experiments.types import Experiment, ExperimentSource, ExperimentStatus
from app.kernel.context import Action
from app.kernel.names import check_unit, is_storable
from app.kernel.paging import Page, make_page, page_request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.experiments.ports import UnitHashes, VersionLookup
    from app.experiments.rows import ExperimentRow
    from app.experiments.types import ExperimentPlan, Variant
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext
    from app.kernel.replicas import Replicas

KIND = "experiments"
_OF_ANALYSIS = frozenset({"hypothesis", "primary_metric", "secondary_metrics", "guardrails", "planned_units", "planned_looks"})


class ExperimentService:
    """Experiments of the caller's tenant."""

    def __init__(self, database: Database, clock: Clock, versions: VersionLookup, hashes: UnitHashes, announced: Replicas) -> None:
        self._database = database
        self._clock = clock
        self._versions = versions
        self._hashes = hashes
        self._announced = announced

    async def experiment(self, ctx: RequestContext, key: str) -> Experiment:
        """One experiment; raises NotFound."""
        ctx.require(Action.READ_EXPERIMENTS)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            return await store.value_of(session, await store.find(session, ctx.tenant_id, key))

    async def experiments(
        self, ctx: RequestContext, first: int, after: str | None, model: str | None = None, status: ExperimentStatus | None = None
    ) -> Page[Experiment]:
        """Experiments, newest first; of one model or one status where it is named."""
        ctx.require(Action.READ_EXPERIMENTS)
        page = page_request(KIND, first, after)
        if model is not None and not is_storable(model):
            return make_page(KIND, page, [])
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            return make_page(KIND, page, await store.listed(session, ctx.tenant_id, page, model, status))

    async def create(self, ctx: RequestContext, plan: ExperimentPlan, overrides: Sequence[tuple[str, str]] = ()) -> Experiment:
        """A DRAFT. `overrides`: (unit, variant); a unit is known by its hash from here on.

        Raises InvalidInput with all that is wrong, NotFound (the model, a version), Conflict (the key is taken, a metric is
        declared otherwise).
        """
        ctx.require(Action.MANAGE_EXPERIMENTS)
        plan = replace(plan, overrides=self._hashed(ctx, overrides))
        rules.check_plan(plan)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            model_id = await self._versions.hold(session, ctx.tenant_id, plan.model)
            if refusals := await self._refusals(session, ctx.tenant_id, plan.model, plan.variants):
                raise InvalidInput(" ".join(refusals))
            row = await store.add(session, ctx.tenant_id, model_id, plan, ctx.subject, self._clock.now())
            await store.declare(session, ctx.tenant_id, plan.metrics, self._clock.now())
            experiment = await store.value_of(session, row)
            generation = await self._changed(session, ctx, "createExperiment", row, None, _described(row), None)
        await self.in_force(ctx, generation)
        return experiment

    async def update(
        self, ctx: RequestContext, key: str, changes: Mapping[str, Any], overrides: Sequence[tuple[str, str]] | None = None
    ) -> Experiment:
        """The DRAFT with `changes` to its plan, by the plan's names; what is left out stays.

        An experiment that was born in Unleash may be given its metrics and looks, once. Raises InvalidInput, NotFound, Conflict
        (it is no DRAFT any more).
        """
        ctx.require(Action.MANAGE_EXPERIMENTS)
        named = dict(changes) if overrides is None else {**changes, "overrides": self._hashed(ctx, overrides)}
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row, before = await self._held(session, ctx, key, "update")
            planned = store.plan_of(row, before)
            plan = replace(planned, **named)
            if plan == planned:
                return before
            if before.source is ExperimentSource.UNLEASH:
                _check_plan_of_unleash(before, named)
                rules.check_analysis(plan)
            else:
                rules.check_plan(plan)
                if refusals := await self._refusals(session, ctx.tenant_id, plan.model, plan.variants):
                    raise InvalidInput(" ".join(refusals))
            described = _described(row)
            for column, value in store.planned_columns(plan).items():
                setattr(row, column, value)
            await store.declare(session, ctx.tenant_id, plan.metrics, self._clock.now())
            experiment, generation = await self._written(session, ctx, "updateExperiment", row, described, None)
        await self.in_force(ctx, generation)
        return experiment

    async def start(self, ctx: RequestContext, key: str, rollout: float) -> Experiment:
        """The experiment RUNNING for `rollout` percent of units.

        Raises InvalidInput, NotFound, Conflict (not a DRAFT; a version that cannot serve; another experiment on the model; no room
        in the layer).
        """
        ctx.require(Action.MANAGE_EXPERIMENTS)
        buckets = rules.buckets_of(rollout)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row, before = await self._held(session, ctx, key, "start")
            rules.check_beside(store.plan_of(row, before), await store.running_on(session, row))
            if refusals := await self._refusals(session, ctx.tenant_id, row.model, before.variants):
                raise Conflict(" ".join(refusals))
            described = _described(row)
            await _take(session, row, buckets)
            row.status, row.started_at = ExperimentStatus.RUNNING.value, self._clock.now()
            experiment, generation = await self._written(session, ctx, "startExperiment", row, described, None)
        await self.in_force(ctx, generation)
        return experiment

    async def ramp(self, ctx: RequestContext, key: str, rollout: float) -> Experiment:
        """The experiment with `rollout` percent of units taking part; nobody who takes part before and after changes variant.

        The same share again: no change, the same revision. Raises InvalidInput, NotFound, Conflict (it does not run; no room).
        """
        ctx.require(Action.MANAGE_EXPERIMENTS)
        buckets = rules.buckets_of(rollout)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row, before = await self._held(session, ctx, key, "ramp")
            if before.rollout == rules.percent_of(buckets):
                return before
            described = _described(row)
            await _take(session, row, buckets)
            experiment, generation = await self._written(session, ctx, "rampExperiment", row, described, None)
        await self.in_force(ctx, generation)
        return experiment

    async def stop(self, ctx: RequestContext, key: str, reason: str | None) -> Experiment:
        """The experiment STOPPED: nobody takes part any more, and its results stay. Raises NotFound, Conflict."""
        ctx.require(Action.MANAGE_EXPERIMENTS)
        check_optional_reason(reason)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            row, _ = await self._held(session, ctx, key, "stop")
            described = _described(row)
            row.status, row.ended_at, row.slots = ExperimentStatus.STOPPED.value, self._clock.now(), []
            experiment, generation = await self._written(session, ctx, "stopExperiment", row, described, reason)
        await self.in_force(ctx, generation)
        return experiment

    async def winner(self, ctx: RequestContext, key: str, variant: str) -> tuple[str, int]:
        """(model, version) of the variant, of an experiment that can be concluded now; raises InvalidInput, NotFound, Conflict.

        A variant's version never changes once the experiment has run.
        """
        ctx.require(Action.MANAGE_EXPERIMENTS)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            experiment = await store.value_of(session, await store.find(session, ctx.tenant_id, key))
        rules.check_transition(experiment.key, experiment.status, experiment.source, "conclude")
        return experiment.model, rules.version_to_promote(experiment, variant)

    async def conclude_in(
        self, session: AsyncSession, ctx: RequestContext, key: str, promoted: str | None, reason: str | None
    ) -> Experiment:
        """The experiment CONCLUDED, with the variant `promoted` in its audit row, in the caller's transaction, which announces it.

        Raises InvalidInput (no such variant), NotFound, Conflict.
        """
        ctx.require(Action.MANAGE_EXPERIMENTS)
        check_optional_reason(reason)
        row, before = await self._held(session, ctx, key, "conclude")
        version = None if promoted is None else rules.version_to_promote(before, promoted)
        described = _described(row)
        row.status, row.slots, row.ended_at = ExperimentStatus.CONCLUDED.value, [], row.ended_at or self._clock.now()
        row.revision += 1
        await session.flush()
        after = {**_described(row), "promotedVariant": promoted, "promotedVersion": version}
        await self._record(session, ctx, "concludeExperiment", row.key, described, after, reason)
        return await store.value_of(session, row)

    async def in_force(self, ctx: RequestContext, generation: int) -> None:
        """Returns when every replica that is heard of serves the change of this generation; bounded."""
        await self._announced.in_force(ctx.tenant_id, generation)

    async def _held(self, session: AsyncSession, ctx: RequestContext, key: str, step: str) -> tuple[ExperimentRow, Experiment]:
        """The experiment under the lock of its model, where `step` may follow; the model first, as everybody takes them."""
        model = (await store.find(session, ctx.tenant_id, key)).model
        await self._versions.hold(session, ctx.tenant_id, model)
        row = await store.find(session, ctx.tenant_id, key, lock=True)
        rules.check_transition(row.key, ExperimentStatus(row.status), ExperimentSource(row.source), step)
        return row, await store.value_of(session, row)

    async def _refusals(self, session: AsyncSession, tenant_id: UUID, model: str, variants: Sequence[Variant]) -> list[str]:
        (control,) = [variant.version for variant in variants if variant.control]
        others = sorted({variant.version for variant in variants if variant.version is not None and not variant.control})
        return [] if control is None else await self._versions.refusals(session, tenant_id, model, control, others)

    async def _written(
        self, session: AsyncSession, ctx: RequestContext, action: str, row: ExperimentRow, before: dict[str, Any], reason: str | None
    ) -> tuple[Experiment, int]:
        """The row's new state, written, audited and announced; and the generation."""
        row.revision += 1
        await session.flush()
        experiment = await store.value_of(session, row)
        return experiment, await self._changed(session, ctx, action, row, before, _described(row), reason)

    async def _changed(
        self, session: AsyncSession, ctx: RequestContext, action: str, row: ExperimentRow, before: Any, after: Any, reason: str | None
    ) -> int:
        await self._record(session, ctx, action, row.key, before, after, reason)
        return await announce(session, ctx.tenant_id)

    async def _record(
        self, session: AsyncSession, ctx: RequestContext, action: str, key: str, before: Any, after: Any, reason: str | None
    ) -> None:
        await audit.record(session, ctx, self._clock, action=action, subject=subject_of(key), before=before, after=after, reason=reason)

    def _hashed(self, ctx: RequestContext, overrides: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        return tuple((self._hashes.unit_hash(ctx.tenant_id, check_unit(unit)), variant) for unit, variant in overrides)


def subject_of(key: str) -> str:
    """An experiment as the audit log names it."""
    return f"experiment:{key}"


def _described(row: ExperimentRow) -> dict[str, Any]:
    """The experiment for the audit log. Units that are forced are counted there, not named."""
    return {
        "model": row.model,
        "status": row.status,
        "rollout": row.rollout,
        "revision": row.revision,
        "variants": row.variants,
        "primaryMetric": row.primary_metric,
        "secondaryMetrics": row.secondary_metrics,
        "guardrails": row.guardrails,
        "plannedUnits": row.planned_units,
        "plannedLooks": row.planned_looks,
        "layer": row.layer,
        "slots": row.slots,
        "targeting": row.targeting,
        "overrides": len(row.overrides),
        "hypothesis": row.hypothesis,
    }


async def _take(session: AsyncSession, row: ExperimentRow, buckets: int) -> None:
    """Gives the experiment its buckets, of its layer where it is in one."""
    own = tuple((start, end) for start, end in row.slots)
    slots = rules.slots_for(row.layer, own, await store.slots_of_others(session, row), buckets)
    row.slots, row.rollout = [list(slot) for slot in slots], rules.percent_of(buckets)


def _check_plan_of_unleash(experiment: Experiment, changes: Mapping[str, Any]) -> None:
    """Returns where the experiment may be given these; raises Conflict."""
    if not changes.keys() <= _OF_ANALYSIS:
        raise Conflict(f"The experiment {experiment.key!r} is a flag of the Unleash server: its variants and who takes part change there.")
    if experiment.primary_metric is not None:
        raise Conflict(f"The experiment {experiment.key!r} has a plan: it stays as it is while the experiment runs.")
