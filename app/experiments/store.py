"""Queries of experiments: row in, value out. Each runs in the caller's transaction, under row-level security."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Text, Uuid, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert as pg_insert

from app.db.statement import Statement
from app.errors import Conflict, InvalidInput, NotFound
from app.experiments import rules
from app.experiments.rows import ExperimentRow, MetricRow
from app.experiments.types import (
    Experiment,
    ExperimentPlan,
    ExperimentSource,
    ExperimentStatus,
    Metric,
    MetricAggregation,
    MetricDirection,
    MetricKind,
    TargetingRule,
    Variant,
)
from app.kernel.names import is_storable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.kernel.paging import PageRequest

Keyed = list[tuple[tuple[str | int, ...], Experiment]]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RUNS = ExperimentRow.status == ExperimentStatus.RUNNING.value


def metric_value(row: MetricRow) -> Metric:
    return Metric(row.name, MetricKind(row.kind), MetricDirection(row.direction), MetricAggregation(row.aggregation))


def experiment_value(row: ExperimentRow, metrics: Mapping[str, Metric]) -> Experiment:
    """The row with its metrics, which `metrics` has by name."""
    return Experiment(
        tenant_id=row.tenant_id,
        key=row.key,
        model=row.model,
        status=ExperimentStatus(row.status),
        source=ExperimentSource(row.source),
        hypothesis=row.hypothesis,
        rollout=row.rollout,
        variants=tuple(Variant.from_json(variant) for variant in row.variants),
        primary_metric=None if row.primary_metric is None else metrics[row.primary_metric],
        secondary_metrics=tuple(metrics[name] for name in row.secondary_metrics),
        guardrails=tuple(metrics[name] for name in row.guardrails),
        planned_units=row.planned_units,
        planned_looks=row.planned_looks,
        layer=row.layer,
        targeting=tuple(TargetingRule.from_json(rule) for rule in row.targeting),
        created_at=row.created_at,
        created_by=row.created_by,
        started_at=row.started_at,
        ended_at=row.ended_at,
        revision=row.revision,
    )


def plan_of(row: ExperimentRow, experiment: Experiment) -> ExperimentPlan:
    """What was planned, of a row and its value."""
    return ExperimentPlan(
        key=row.key,
        model=row.model,
        hypothesis=row.hypothesis,
        variants=experiment.variants,
        primary_metric=experiment.primary_metric,
        secondary_metrics=experiment.secondary_metrics,
        guardrails=experiment.guardrails,
        planned_units=row.planned_units,
        planned_looks=row.planned_looks,
        layer=row.layer,
        targeting=experiment.targeting,
        overrides=tuple((unit_hash, variant) for unit_hash, variant in row.overrides),
    )


def planned_columns(plan: ExperimentPlan) -> dict[str, Any]:
    """The columns that a plan fills, but for the key and the model."""
    return {
        "hypothesis": plan.hypothesis,
        "variants": [variant.to_json() for variant in plan.variants],
        "primary_metric": None if plan.primary_metric is None else plan.primary_metric.name,
        "secondary_metrics": [each.name for each in plan.secondary_metrics],
        "guardrails": [each.name for each in plan.guardrails],
        "planned_units": plan.planned_units,
        "planned_looks": plan.planned_looks,
        "layer": plan.layer,
        "targeting": [rule.to_json() for rule in plan.targeting],
        "overrides": [list(override) for override in plan.overrides],
    }


async def metrics_by_name(session: AsyncSession, tenant_id: UUID, names: Iterable[str]) -> dict[str, Metric]:
    """The tenant's declared metrics of these names, in one query."""
    wanted = sorted(set(names))
    if not wanted:
        return {}
    query = select(MetricRow).where(MetricRow.tenant_id == tenant_id, MetricRow.name.in_(wanted))
    return {row.name: metric_value(row) for row in (await session.execute(query)).scalars()}


async def declare(session: AsyncSession, tenant_id: UUID, metrics: Collection[Metric], now: datetime) -> None:
    """Declares those that are new; raises Conflict where one is declared otherwise already."""
    if not metrics:
        return
    rows = [{"tenant_id": tenant_id, **each.to_json(), "created_at": now} for each in sorted(metrics, key=lambda each: each.name)]
    await session.execute(pg_insert(MetricRow).values(rows).on_conflict_do_nothing())  # sorted: two at once wait, and never for each other
    declared = await metrics_by_name(session, tenant_id, (each.name for each in metrics))
    rules.check_declared(metrics, declared.values())


async def values_of(session: AsyncSession, tenant_id: UUID, rows: Sequence[ExperimentRow]) -> list[Experiment]:
    """The experiments of these rows; their metrics in one query."""
    names = {name for row in rows for name in (row.primary_metric, *row.secondary_metrics, *row.guardrails) if name is not None}
    metrics = await metrics_by_name(session, tenant_id, names)
    return [experiment_value(row, metrics) for row in rows]


async def value_of(session: AsyncSession, row: ExperimentRow) -> Experiment:
    (experiment,) = await values_of(session, row.tenant_id, [row])
    return experiment


async def find(session: AsyncSession, tenant_id: UUID, key: str, *, lock: bool = False) -> ExperimentRow:
    """The experiment's row, as it is now and held until the transaction ends where `lock`; raises NotFound."""
    row = None
    if is_storable(key):
        query = select(ExperimentRow).where(ExperimentRow.tenant_id == tenant_id, ExperimentRow.key == key)
        if lock:
            query = query.with_for_update().execution_options(populate_existing=True)
        row = (await session.execute(query)).scalar_one_or_none()
    if row is None:
        raise NotFound(f"There is no experiment with the key {key!r}.")
    return row


async def listed(session: AsyncSession, tenant_id: UUID, page: PageRequest, model: str | None, status: ExperimentStatus | None) -> Keyed:
    """The tenant's experiments, newest first; of one model or status where it is named."""
    query = select(ExperimentRow).where(ExperimentRow.tenant_id == tenant_id)
    if model is not None:
        query = query.where(ExperimentRow.model == model)
    if status is not None:
        query = query.where(ExperimentRow.status == status.value)
    if page.after is not None:
        at, key = _position(page.after)
        older = ExperimentRow.created_at < at
        query = query.where(older | ((ExperimentRow.created_at == at) & (ExperimentRow.key > key)))
    query = query.order_by(ExperimentRow.created_at.desc(), ExperimentRow.key).limit(page.first + 1)
    rows = list((await session.execute(query)).scalars())
    values = await values_of(session, tenant_id, rows)
    return [(((row.created_at - _EPOCH) // _MICROSECOND, row.key), value) for row, value in zip(rows, values, strict=True)]


async def add(session: AsyncSession, tenant_id: UUID, model_id: UUID, plan: ExperimentPlan, by: str, at: datetime) -> ExperimentRow:
    """The DRAFT's row; raises Conflict where the key is taken."""
    row = {
        "tenant_id": tenant_id,
        "key": plan.key,
        "model_id": model_id,
        "model": plan.model,
        "status": ExperimentStatus.DRAFT.value,
        "source": ExperimentSource.TURNOUT.value,
        "rollout": 0.0,
        "slots": [],
        "created_at": at,
        "created_by": by,
        **planned_columns(plan),
    }
    made = pg_insert(ExperimentRow).values(row).on_conflict_do_nothing(index_elements=["tenant_id", "key"])
    if (await session.execute(made.returning(ExperimentRow.key))).scalar_one_or_none() is None:
        raise Conflict(f"There is an experiment with the key {plan.key!r} already: choose another key.")
    return await find(session, tenant_id, plan.key)


async def running_on(session: AsyncSession, row: ExperimentRow) -> list[tuple[str, str | None, int]]:
    """(key, layer, shadows) of the others that run on the experiment's model, by key. The caller holds the model."""
    query = select(ExperimentRow).where(
        ExperimentRow.tenant_id == row.tenant_id, ExperimentRow.model_id == row.model_id, _RUNS, ExperimentRow.key != row.key
    )
    rows = (await session.execute(query.order_by(ExperimentRow.key))).scalars()
    return [(other.key, other.layer, sum(variant["shadow"] for variant in other.variants)) for other in rows]


async def slots_of_others(session: AsyncSession, row: ExperimentRow) -> list[rules.Slots]:
    """What is taken of the experiment's layer by others; nobody else takes any until the transaction ends."""
    if row.layer is None:
        return []
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"layer/{row.tenant_id}/{row.layer}", 0))))
    query = select(ExperimentRow.slots).where(
        ExperimentRow.tenant_id == row.tenant_id, ExperimentRow.layer == row.layer, _RUNS, ExperimentRow.key != row.key
    )
    return [tuple((start, end) for start, end in slots) for slots in (await session.execute(query)).scalars()]


_ON_MODELS = Statement(
    select(ExperimentRow.model_id, ExperimentRow.key, ExperimentRow.status, ExperimentRow.variants)
    .where(ExperimentRow.tenant_id == bindparam("tenant"), ExperimentRow.model_id == any_(bindparam("models", type_=ARRAY(Uuid))))
    .where(ExperimentRow.status == any_(bindparam("statuses", type_=ARRAY(Text))))
    .order_by(ExperimentRow.key)
)


async def with_version(
    session: AsyncSession, tenant_id: UUID, versions: Collection[tuple[UUID, int]], statuses: Collection[ExperimentStatus]
) -> list[tuple[UUID, str, ExperimentStatus, tuple[Variant, ...]]]:
    """(model, key, status, variants) of experiments in one of `statuses` on one of these models, by key."""
    models = list({model_id for model_id, _ in versions})
    found = await _ON_MODELS.rows(session, tenant=tenant_id, models=models, statuses=[each.value for each in statuses])
    return [(model, key, ExperimentStatus(s), tuple(Variant.from_json(v) for v in variants)) for model, key, s, variants in found]


def _position(after: tuple[str | int, ...]) -> tuple[datetime, str]:
    """The sort key that a cursor holds. A cursor is the client's text: whatever it holds is no error of ours."""
    match after:
        case (int(at_us), str(key)) if is_storable(key):
            try:
                return _EPOCH + at_us * _MICROSECOND, key
            except OverflowError:
                pass
    raise InvalidInput("after is not a cursor of this list: send an endCursor that it answered with.")
