"""The planned analysis: each arm against control from the frozen sums of the looks, corrected for looks and for arms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.errors import InvalidInput
from app.experiments.stats.cuped import adjust
from app.experiments.stats.differences import Difference, compare, difference_interval, lift
from app.experiments.stats.looks import boundary, planned_p_value
from app.experiments.stats.multiplicity import HolmStep, holm
from app.experiments.types import MetricRole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.experiments.stats.differences import Lift
    from app.experiments.stats.types import Interval, Look, Plan


@dataclass(frozen=True, slots=True)
class Planned:
    """What the looks say of one arm. `p_value` counts looks and arms in; the interval agrees with it."""

    difference: Difference
    interval: Interval
    lift: Lift | None
    p_value: float
    significant: bool


@dataclass(frozen=True, slots=True)
class _Found:
    number: int
    difference: Difference
    p_value: float


def planned_analysis(plan: Plan, looks: Sequence[Look]) -> dict[int, Planned]:
    """By the arm's index, what the looks up to now say; arms of which nothing can be said yet are left out.

    What one look found stays found: p-values that count all planned looks in may be taken at their smallest over the looks done, and
    Holm's steps over these hold the error at alpha over looks and arms together. An arm that is found different is shown as its
    strongest look saw it, any other as the latest did. Secondary metrics and guardrails are not corrected for arms here.

    Raises InvalidInput: looks out of order, beyond the plan, or with another number of arms.

    Source: S. Holm (1979) over p-values of repeated significance tests; T. Ye, L. Li, X. Liu, L. Yao, Stat. Med. 32 (2013)
    1112-1124, for the step-down over looks.
    """
    _check(plan, looks)
    found: dict[int, list[_Found]] = {index: [] for index in plan.others}
    for look in looks:
        arms = adjust(look.arms, plan.aggregation).arms
        for index in plan.others:
            difference = compare(arms[plan.control], arms[index])
            if difference is not None:
                found[index].append(_Found(look.number, difference, planned_p_value(difference.z, look.number, plan.planned_looks)))
    steps = _steps(plan, [min((seen.p_value for seen in found[index]), default=1.0) for index in plan.others])
    return {index: _planned(plan, found[index], step) for index, step in zip(plan.others, steps, strict=True) if found[index]}


def _check(plan: Plan, looks: Sequence[Look]) -> None:
    numbers = [look.number for look in looks]
    if numbers != sorted(set(numbers)) or any(not 1 <= number <= plan.planned_looks for number in numbers):
        raise InvalidInput(f"Looks are numbered upwards from 1 to {plan.planned_looks}, not {numbers}.")
    if any(len(look.arms) != len(plan.arms) for look in looks):
        raise InvalidInput(f"A look has the sums of all {len(plan.arms)} arms.")


def _steps(plan: Plan, p_values: Sequence[float]) -> list[HolmStep]:
    if plan.role is MetricRole.PRIMARY:
        return holm(p_values, plan.alpha)
    return [HolmStep(p_value, plan.alpha, p_value <= plan.alpha) for p_value in p_values]


def _planned(plan: Plan, found: Sequence[_Found], step: HolmStep) -> Planned:
    shown = min(found, key=lambda seen: seen.p_value) if step.rejected else found[-1]
    critical_z = boundary(shown.number, plan.planned_looks, step.level)
    interval = difference_interval(shown.difference, critical_z)
    return Planned(shown.difference, interval, lift(shown.difference, critical_z), step.p_value, step.rejected)
