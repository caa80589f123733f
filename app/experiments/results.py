"""What experiments found out. Each answer holds everything that was committed before it was asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import select

from app.errors import AppError, InvalidInput, NotFound
from app.experiments import store
from app.experiments.analysing import Evidence, results_of
from app.experiments.answers import ExperimentPower
from app.experiments.outcome_rules import check_metric
from app.experiments.rows import ExperimentRow, MetricRow, MetricSumsRow
from app.experiments.shadows import shadow_results
from app.experiments.stats.moments import arm_moments
from app.experiments.sums import read_looks, read_sums
from app.kernel.context import Action

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.db.session import Database
    from app.experiments.answers import ExperimentResults, PowerQuestion, ShadowResult
    from app.experiments.folding import Folder
    from app.experiments.ports import ClassesLookup
    from app.experiments.stats.moments import Moments
    from app.experiments.types import Experiment, Metric
    from app.kernel.clock import Clock
    from app.kernel.context import RequestContext

_MOST_LOOKS, _MOST_ARMS, _MOST_UNITS = 50, 10, 2**53


class ResultsService:
    """Of the caller's tenant; one a process. `database`: with timeouts for statements over all of a shadow's answers."""

    def __init__(self, database: Database, folder: Folder, classes: ClassesLookup, clock: Clock) -> None:
        self._database, self._folder, self._classes, self._clock = database, folder, classes, clock

    async def results(self, ctx: RequestContext, asked: Sequence[tuple[Experiment, str | None]]) -> list[ExperimentResults | AppError]:
        """Of each experiment and metric (None: its primary one), in their order; one fold and four queries for all of them.

        What is wrong with one question is its answer. Raises PermissionDenied, Unavailable.
        """
        ctx.require(Action.READ_EXPERIMENTS)
        complete = await self._folder.fold(ctx.tenant_id)
        keys = sorted({experiment.key for experiment, _ in asked})
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            sums = await read_sums(session, ctx.tenant_id, keys)
            looks = await read_looks(session, ctx.tenant_id, keys)
            declared = await _declared(session, ctx.tenant_id)
        evidence = {
            experiment.key: Evidence(experiment, sums[experiment.key], looks[experiment.key], declared, complete) for experiment, _ in asked
        }
        # Boundaries of many looks take a moment, the first time.
        return await asyncio.to_thread(self._all, [(evidence[experiment.key], metric) for experiment, metric in asked])

    async def shadows(self, ctx: RequestContext, experiment: Experiment, metric: str | None) -> list[ShadowResult]:
        """Each shadow variant against control on identical inputs; true labels are outcomes of `metric` (None: the primary one).

        Raises PermissionDenied, NotFound, Unavailable.
        """
        ctx.require(Action.READ_EXPERIMENTS)
        if not experiment.shadows:
            return []
        await self._folder.fold(ctx.tenant_id)  # outcomes that were pending belong to their prediction from then on
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            if metric is not None:
                check_metric(metric, await _declared(session, ctx.tenant_id))
            elif experiment.primary_metric is not None:
                metric = experiment.primary_metric.name
            return await shadow_results(session, experiment, metric, self._classes)

    async def power(self, ctx: RequestContext, asked: PowerQuestion) -> ExperimentPower:
        """How many units an effect takes, and what effect so many units show, from the mean and variance of this tenant's own units.

        They are those of the control arm of one experiment, or of the one that saw most units. Raises PermissionDenied, NotFound,
        InvalidInput.
        """
        ctx.require(Action.READ_EXPERIMENTS)
        _check_question(asked)
        await self._folder.fold(ctx.tenant_id)
        async with self._database.tenant_tx(ctx.tenant_id) as session:
            declared = await _declared(session, ctx.tenant_id)
            check_metric(asked.metric, declared)
            key, seen = await _baseline(session, ctx.tenant_id, declared[asked.metric], asked.experiment)
        return await asyncio.to_thread(_power, asked, declared[asked.metric], key, seen)

    def _all(self, asked: Sequence[tuple[Evidence, str | None]]) -> list[ExperimentResults | AppError]:
        answers: list[ExperimentResults | AppError] = []
        for evidence, metric in asked:
            try:
                answers.append(results_of(evidence, metric, self._clock.now()))
            except (InvalidInput, NotFound) as error:
                answers.append(error)
        return answers


def _check_question(asked: PowerQuestion) -> None:
    if not 1 <= asked.looks <= _MOST_LOOKS or not 2 <= len(asked.weights) <= _MOST_ARMS:
        raise InvalidInput(f"looks must be 1 to {_MOST_LOOKS}, and weights those of 2 to {_MOST_ARMS} arms, control first.")
    if asked.units is not None and not 0 < asked.units <= _MOST_UNITS:
        raise InvalidInput("units must be above 0.")
    if asked.effect is None and asked.relative is None and asked.units is None:
        raise InvalidInput("Give an effect, to learn how many units it takes, or units, to learn which effect they show.")


def _power(asked: PowerQuestion, metric: Metric, key: str, seen: Moments) -> ExperimentPower:
    from app.experiments.stats.power import Design, detectable_effect, units_needed  # SciPy, which few processes need

    variance = seen.variance or 0.0
    design = Design(tuple(map(float, asked.weights)), seen.mean, variance, metric.kind, asked.alpha, asked.power, asked.looks)
    size = None
    if asked.effect is not None or asked.relative is not None:
        size = units_needed(design, effect=asked.effect, relative=asked.relative)
    return ExperimentPower(
        metric.name,
        key,
        seen.n,
        seen.mean,
        variance**0.5,
        None if size is None else size.units,
        None if size is None else size.per_arm,
        None if asked.units is None else detectable_effect(design, asked.units),
    )


async def _declared(session: AsyncSession, tenant_id: UUID) -> dict[str, Metric]:
    """All metrics of the tenant, by name."""
    rows = (await session.execute(select(MetricRow).where(MetricRow.tenant_id == tenant_id))).scalars()
    return {row.name: store.metric_value(row) for row in rows}


async def _baseline(session: AsyncSession, tenant_id: UUID, metric: Metric, experiment: str | None) -> tuple[str, Moments]:
    """The experiment and the moments of its control arm; raises NotFound."""
    if experiment is not None:
        rows = [await store.find(session, tenant_id, experiment)]
    else:
        keys = select(MetricSumsRow.experiment).where(MetricSumsRow.tenant_id == tenant_id, MetricSumsRow.metric == metric.name)
        with_metric = select(ExperimentRow).where(ExperimentRow.tenant_id == tenant_id, ExperimentRow.key.in_(keys))
        rows = list((await session.execute(with_metric)).scalars())
    sums = await read_sums(session, tenant_id, [row.key for row in rows])
    found: Mapping[str, Moments] = {
        row.key: moments
        for row in rows
        for variant in row.variants
        if variant["control"] and (moments := arm_moments(sums[row.key].of(metric.name, variant["name"]), metric.aggregation)) is not None
        if moments.n > 1
    }
    if not found:
        where = "No experiment" if experiment is None else f"The experiment {experiment!r}"
        raise NotFound(f"{where} has units in its control arm yet whose {metric.name!r} is known: there is no variance to reckon with.")
    best = max(sorted(found), key=lambda key: found[key].n)
    return best, found[best]
