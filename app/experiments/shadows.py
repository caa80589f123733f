"""Champion and shadow on identical inputs: what a split needs many times the units for. Source: the journal's shadow answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Double, Text, bindparam

from app.experiments.answers import ShadowResult
from app.experiments.exposures import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from app.experiments.ports import ClassesLookup
    from app.experiments.types import Experiment

# Pairs: a shadow's answers to inputs that control answered. An outcome without row is about the one row of a prediction that is no batch;
# of several outcomes of one row the last counts. Numbers agree that are alike to six digits, as in a comparison of two versions.
_PAIRS = statement("""
with pairs as (
    select a.variant, a.served_label, a.label, a.served_score, a.score, o.value, t.text as truth
    from shadow_answers a
    left join lateral (
      select o.value from outcomes o
      where o.tenant_id = :tenant and o.prediction_id = a.prediction_id and o.metric = :metric
        and (o.row = a.row or (o.row is null and not exists (
          select from shadow_answers b where b.tenant_id = :tenant and b.prediction_id = a.prediction_id and b.kind = 'SHADOW'
            and b.variant = a.variant and b.row <> a.row)))
      order by o.occurred_at desc, o.id desc limit 1
    ) o on true
    left join unnest(:values, :texts) as t (value, text) on t.value = o.value
    where a.tenant_id = :tenant and a.experiment = :experiment and a.kind = 'SHADOW' and a.served_variant = :control
  ),
  numbers as (
    select *, abs(score - value)::text::numeric as far, abs(served_score - value)::text::numeric as champion_far from pairs
  )
select variant, count(*) as pairs,
  count(*) filter (where case when served_label is not null or label is not null then label = served_label
    else abs(score - served_score) <= 1e-6 * greatest(abs(score), abs(served_score)) end) as agreed,
  count(*) filter (where truth is not null and label is not null and served_label is not null) as labelled,
  count(*) filter (where truth = served_label and label is not null) as champion_correct,
  count(*) filter (where truth = label and served_label is not null) as shadow_correct,
  count(*) filter (where truth = served_label and label <> truth) as only_champion,
  count(*) filter (where truth = label and served_label <> truth) as only_shadow,
  count(far - champion_far) as measured, sum(far) filter (where champion_far is not null) as shadow_error,
  sum(champion_far) filter (where far is not null) as champion_error,
  sum(far - champion_far) as total, sum((far - champion_far) * (far - champion_far)) as squares
from numbers group by variant""").bindparams(
    bindparam("metric", type_=Text()),
    bindparam("experiment", type_=Text()),
    bindparam("control", type_=Text()),
    bindparam("values", type_=ARRAY(Double())),
    bindparam("texts", type_=ARRAY(Text())),
)


async def shadow_results(session: AsyncSession, experiment: Experiment, metric: str | None, lookup: ClassesLookup) -> list[ShadowResult]:
    """A result for each shadow variant, in the order in which they were declared. In the caller's transaction. Raises NotFound."""
    control = next((arm for arm in experiment.arms if arm.control), None)
    if control is None:
        return [_nothing(shadow.name) for shadow in experiment.shadows]
    classes = None if control.version is None else await lookup.classes(session, experiment.tenant_id, experiment.model, control.version)
    truths = true_labels(classes or ())
    given = {"tenant": experiment.tenant_id, "experiment": experiment.key, "metric": metric or "", "control": control.name}
    given |= {"values": [value for value, _ in truths], "texts": [text for _, text in truths]}
    rows = {row["variant"]: row for row in (await session.execute(_PAIRS, given)).mappings()}
    judge = _classes if classes else _numbers
    # In a thread: the first to ask imports SciPy.
    judged = await asyncio.to_thread(lambda: {name: judge(row) for name, row in rows.items()})
    return [judged[shadow.name] if shadow.name in judged else _nothing(shadow.name) for shadow in experiment.shadows]


def true_labels(classes: Sequence[str]) -> list[tuple[float, str]]:
    """The outcome's value that stands for each class: the number that the text is, where all are numbers, else the place from 0."""
    try:
        numbers = [float(text) for text in classes]
    except ValueError:
        numbers = []
    if len(set(numbers)) != len(classes):
        numbers = [float(place) for place in range(len(classes))]
    return list(zip(numbers, classes, strict=True))


def _classes(row: Any) -> ShadowResult:
    from app.experiments.stats.paired import mcnemar, paired_difference, share  # SciPy, which few processes need

    agreement, labelled = share(row["agreed"], row["pairs"]), row["labelled"]
    only_champion, only_shadow = row["only_champion"], row["only_shadow"]
    difference = paired_difference(labelled, only_shadow - only_champion, only_shadow + only_champion)
    interval = None if difference is None else difference.interval
    return ShadowResult(
        row["variant"],
        row["pairs"],
        None if agreement is None else agreement.value,
        None if agreement is None else agreement.low,
        None if agreement is None else agreement.high,
        labelled,
        champion_correct=row["champion_correct"],
        shadow_correct=row["shadow_correct"],
        difference=None if difference is None else difference.mean,
        difference_low=None if interval is None else interval.low,
        difference_high=None if interval is None else interval.high,
        p_value=mcnemar(only_champion, only_shadow).p_value,
    )


def _numbers(row: Any) -> ShadowResult:
    from app.experiments.stats.paired import paired_difference, share  # as above

    agreement, measured = share(row["agreed"], row["pairs"]), row["measured"]
    difference = paired_difference(measured, row["total"] or 0, row["squares"] or 0)
    interval = None if difference is None else difference.interval
    return ShadowResult(
        row["variant"],
        row["pairs"],
        None if agreement is None else agreement.value,
        None if agreement is None else agreement.low,
        None if agreement is None else agreement.high,
        measured,
        champion_error=float(row["champion_error"] / measured) if measured else None,
        shadow_error=float(row["shadow_error"] / measured) if measured else None,
        difference=None if difference is None else difference.mean,
        difference_low=None if interval is None else interval.low,
        difference_high=None if interval is None else interval.high,
        p_value=None if difference is None else difference.p_value,
    )


def _nothing(variant: str) -> ShadowResult:
    return ShadowResult(variant, 0, None, None, None, 0)
