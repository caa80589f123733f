"""The one door: a plan, the sums of the arms now and at the looks done; the numbers of every arm and the verdict come back.

Verdicts are about units, never requests: sums are over units, whatever number of predictions each of them asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from app.errors import InvalidInput
from app.experiments.stats import sequences
from app.experiments.stats.chance import beta_chance, normal_chance
from app.experiments.stats.cuped import Adjustment, adjust
from app.experiments.stats.differences import Difference, compare
from app.experiments.stats.moments import arm_moments
from app.experiments.stats.multiplicity import benjamini_hochberg
from app.experiments.stats.planned import Planned, planned_analysis
from app.experiments.stats.sample_ratio import SampleRatio, sample_ratio
from app.experiments.stats.types import Analysis, ArmResult, ArmSums, DecidedBy, Interval, Look, Plan, Verdict
from app.experiments.stats.verdicts import ArmVerdict, best_arm, judge_arm, judge_experiment, undecided
from app.experiments.types import MetricKind, MetricRole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.experiments.stats.moments import Moments


def analyse(plan: Plan, now: Sequence[ArmSums], looks: Sequence[Look] = ()) -> Analysis:
    """Every number of a result, and the verdict.

    `now`: the arms' sums at this moment, in the plan's order; from them come mean, standard error, confidence sequence, chance and
    the sequential check of the split. `looks`: the frozen sums of the looks done, oldest first; from them come the planned
    numbers, which are None before the first. One look of which the sums are lost may be left out.

    INVALID where the split is not what was asked for. Before the last look and before the end: COLLECTING, WINNER where a look found
    an arm better than control, LOSER where every arm is found worse. After it NO_DIFFERENCE where nothing was found. A run that
    ended before its last look is judged by the confidence sequence, unless a look had decided before.

    Raises InvalidInput: sums or looks that do not fit the plan.
    """
    if len(now) != len(plan.arms):
        raise InvalidInput(f"The plan has {len(plan.arms)} arms, and there are sums of {len(now)}.")
    planned = planned_analysis(plan, looks)
    adjustment = adjust(now, plan.aggregation)
    raw = [arm_moments(sums, plan.aggregation) for sums in now] if adjustment.used else adjustment.arms
    srm = _split(plan, now, looks)
    done = looks[-1].number if looks else 0
    variants = []
    for index, (arm, moments) in enumerate(zip(plan.arms, raw, strict=True)):
        error = None if moments is None else moments.standard_error
        result = ArmResult(arm.name, now[index].units, None if moments is None else moments.mean, error)
        if not arm.control:
            result = _with_planned(result, planned.get(index))
            result = _with_present(plan, result, raw, adjustment, index)
            result = _judged(plan, done, result, planned.get(index), srm)
        variants.append(result)
    return _concluded(plan, tuple(variants), srm, done, adjustment)


def adjust_secondary(analyses: Sequence[Analysis]) -> list[Analysis]:
    """The analyses of one experiment's secondary metrics, with p-values adjusted together (Benjamini-Hochberg over metrics and arms).

    An arm that a look had found different keeps its verdict where the adjusted p-value is at most alpha, and loses it otherwise;
    intervals stay those of the single metric.
    """
    places = [
        (place, index)
        for place, analysis in enumerate(analyses)
        for index, result in enumerate(analysis.variants)
        if result.p_value is not None
    ]
    p_values = [analyses[place].variants[index].p_value or 0.0 for place, index in places]
    adjusted = dict(zip(places, benjamini_hochberg(p_values), strict=True))
    return [
        _concluded(
            analysis.plan,
            tuple(_corrected(analysis, result, adjusted.get((place, index))) for index, result in enumerate(analysis.variants)),
            analysis.srm,
            analysis.looks,
            analysis.adjustment,
        )
        for place, analysis in enumerate(analyses)
    ]


def _corrected(analysis: Analysis, result: ArmResult, p_value: float | None) -> ArmResult:
    if p_value is None:
        return result
    if result.decided_by is DecidedBy.LOOK and p_value > analysis.plan.alpha:
        return replace(result, p_value=p_value, verdict=undecided(analysis.plan, analysis.looks), decided_by=None)
    return replace(result, p_value=p_value)


def _concluded(plan: Plan, variants: tuple[ArmResult, ...], srm: SampleRatio, done: int, adjustment: Adjustment) -> Analysis:
    verdict = judge_experiment([result.verdict for result in variants if result.verdict is not None])
    winner = best_arm(plan, variants) if verdict is Verdict.WINNER else None
    return Analysis(variants, srm, verdict, winner, done, plan.planned_looks, adjustment, plan)


def _split(plan: Plan, now: Sequence[ArmSums], looks: Sequence[Look]) -> SampleRatio:
    at_look = [sums.units for sums in looks[-1].arms] if looks else None
    return sample_ratio([sums.units for sums in now], at_look, [arm.weight for arm in plan.arms])


def _with_planned(result: ArmResult, planned: Planned | None) -> ArmResult:
    if planned is None:
        return result
    lift = planned.lift
    return replace(
        result,
        difference=planned.difference.value,
        difference_low=planned.interval.low,
        difference_high=planned.interval.high,
        lift=None if lift is None else lift.value,
        lift_low=None if lift is None else lift.low,
        lift_high=None if lift is None else lift.high,
        p_value=planned.p_value,
    )


def _with_present(plan: Plan, result: ArmResult, raw: Sequence[Moments | None], adjustment: Adjustment, index: int) -> ArmResult:
    difference = compare(adjustment.arms[plan.control], adjustment.arms[index])
    result = replace(result, chance_to_beat_control=_chance(plan, raw[plan.control], raw[index], difference, adjusted=adjustment.used))
    if difference is None or not sequences.has_begun(raw[plan.control], raw[index], plan.kind):
        return result
    alpha, tuned_at = _sequence_alpha(plan), _tuned_at(plan, index)
    interval = sequences.confidence_sequence(difference, alpha, tuned_at)
    return replace(
        result,
        sequential_low=interval.low,
        sequential_high=interval.high,
        sequential_p_value=sequences.sequential_p_value(difference, alpha, tuned_at),
        harmful=plan.role is MetricRole.GUARDRAIL and sequences.is_harmful(difference, plan.direction, tuned_at=tuned_at),
    )


def _judged(plan: Plan, done: int, result: ArmResult, planned: Planned | None, srm: SampleRatio) -> ArmResult:
    if not srm.ok:
        return replace(result, verdict=Verdict.INVALID)
    significant = planned.difference.value if planned is not None and planned.significant else None
    low, high = result.sequential_low, result.sequential_high
    sequence = None if low is None or high is None else Interval(low, high)
    judged: ArmVerdict = judge_arm(plan, done, significant, sequence, harmful=result.harmful)
    return replace(result, verdict=judged.verdict, decided_by=judged.decided_by)


def _sequence_alpha(plan: Plan) -> float:
    # The primary metric's sequences hold for all arms together, since one of them may decide.
    return plan.alpha / len(plan.others) if plan.role is MetricRole.PRIMARY else plan.alpha


def _tuned_at(plan: Plan, index: int) -> float:
    if plan.planned_units is None:
        return sequences.TUNED_AT
    pair = plan.arms[plan.control].weight + plan.arms[index].weight
    return plan.planned_units * pair / sum(arm.weight for arm in plan.arms)


def _chance(plan: Plan, control: Moments | None, arm: Moments | None, difference: Difference | None, *, adjusted: bool) -> float | None:
    if control is None or arm is None:
        return None
    if plan.kind is MetricKind.PROPORTION and not adjusted:
        higher = beta_chance(control.mean * control.n, control.n, arm.mean * arm.n, arm.n)
    elif difference is None:
        return None
    else:
        higher = normal_chance(difference.value, difference.variance)
    return higher if plan.sign > 0 else 1 - higher
