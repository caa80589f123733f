"""Pure decisions about experiments: what may be tried, what may follow what, and which buckets of a layer are whose."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from app.errors import Conflict, InvalidInput
from app.experiments.targeting import targeting_problems
from app.experiments.types import (
    BUCKETS,
    UNLEASH_PREFIX,
    ExperimentSource,
    ExperimentStatus,
    Metric,
    MetricAggregation,
    MetricDirection,
    MetricKind,
)
from app.kernel.names import check_name, is_storable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from app.experiments.types import Experiment, ExperimentPlan, Variant

Slots = tuple[tuple[int, int], ...]

MOST_SHADOWS = 2  # of one model, over all experiments that run
MOST_OF_A_MODEL = 20  # that run at once, in one layer
_VARIANTS = range(2, 11)
_WEIGHTS = range(1, 10_001)
_LEAST_UNITS, _MOST_UNITS = 100, 2**53
_LOOKS = range(1, 51)
_MOST_METRICS = 20  # secondary ones, and guardrails
_MOST_OVERRIDES = 200
_LONGEST_TEXT = 10_000
_MOST_PROBLEMS = 10  # told at once
_LEAST_ROLLOUT = 0.1
_STEPS = BUCKETS // 100  # of one percent

_NEXT = {
    ExperimentStatus.DRAFT: "it can be started, changed (updateExperiment) or concluded",
    ExperimentStatus.RUNNING: "it can be ramped, stopped or concluded",
    ExperimentStatus.STOPPED: "it can be concluded; to go on, create another",
    ExperimentStatus.CONCLUDED: "it is over; to go on, create another",
}
_FROM = {
    "start": {ExperimentStatus.DRAFT},
    "ramp": {ExperimentStatus.RUNNING},
    "stop": {ExperimentStatus.RUNNING},
    "conclude": {ExperimentStatus.DRAFT, ExperimentStatus.RUNNING, ExperimentStatus.STOPPED},
    "update": {ExperimentStatus.DRAFT},
}


def metric(name: str, kind: MetricKind, direction: MetricDirection, aggregation: MetricAggregation | None) -> Metric:
    """The metric with its aggregation: ANY for a PROPORTION and SUM for a MEAN, unless another is named."""
    usual = MetricAggregation.ANY if kind is MetricKind.PROPORTION else MetricAggregation.SUM
    return Metric(name, kind, direction, aggregation or usual)


def check_plan(plan: ExperimentPlan) -> None:
    """Returns where the plan can be tried; raises InvalidInput with a sentence for each thing that is wrong, the first ten."""
    problems = [*_names(plan), *_text("hypothesis", plan.hypothesis), *_variants(plan.variants), *_planned(plan), *_metrics(plan)]
    problems += [*targeting_problems(plan.targeting), *_overrides(plan)]
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        raise InvalidInput(" ".join(problems[:_MOST_PROBLEMS]) + (f" And {more} more." if more > 0 else ""))


def check_analysis(plan: ExperimentPlan) -> None:
    """As `check_plan`, of the metrics and the looks alone: all that is the service's own of an experiment that was born in Unleash."""
    if problems := [*_text("hypothesis", plan.hypothesis), *_planned(plan), *_metrics(plan)]:
        raise InvalidInput(" ".join(problems[:_MOST_PROBLEMS]))


def check_transition(key: str, status: ExperimentStatus, source: ExperimentSource, step: str) -> None:
    """Returns where `step` (start, ramp, stop, conclude, update) may follow; raises Conflict that says what may.

    Of an experiment that was born in Unleash, `update` gives it a plan, and `conclude` waits for the flag to be off.
    """
    if source is ExperimentSource.UNLEASH:
        if (step == "conclude" and status is ExperimentStatus.STOPPED) or (step == "update" and status is ExperimentStatus.RUNNING):
            return
        raise Conflict(
            f"The experiment {key!r} is a flag of the Unleash server: change the flag there. It is {status} here"
            " and can be concluded once the flag is off."
        )
    if status in _FROM[step]:
        return
    if step == "update" and status is ExperimentStatus.RUNNING:
        raise Conflict(
            f"The experiment {key!r} is RUNNING: its variants, weights and plan stay as they are, for a change would move units from"
            " one variant to another and spoil the comparison. Change how many take part with rampExperiment, or stop it and create"
            " another."
        )
    done = {"start": "started", "ramp": "ramped", "stop": "stopped", "conclude": "concluded", "update": "changed"}[step]
    raise Conflict(f"The experiment {key!r} is {status} and cannot be {done}: {_NEXT[status]}.")


def version_to_promote(experiment: Experiment, name: str) -> int:
    """The version of the variant; raises InvalidInput where there is none or it names no version, Conflict where it never ran."""
    if experiment.status is ExperimentStatus.DRAFT:
        raise Conflict(f"The experiment {experiment.key!r} is a DRAFT: nothing was found out yet. Conclude it without promoteVariant.")
    for variant in experiment.variants:
        if variant.name == name:
            if variant.version is None:
                raise InvalidInput(f"The variant {name!r} names the alias {variant.alias!r} and no version: use promote.")
            return variant.version
    known = ", ".join(variant.name for variant in experiment.variants)
    raise InvalidInput(f"promoteVariant is {name[:48]!r}; the experiment {experiment.key!r} has the variants {known}.")


def buckets_of(rollout: float) -> int:
    """How many of the 100,000 buckets `rollout` percent are; raises InvalidInput unless it is 0.1 to 100 in steps of 0.001."""
    if not math.isfinite(rollout) or not _LEAST_ROLLOUT <= rollout <= 100:
        raise InvalidInput(f"rollout is {rollout}; it must be {_LEAST_ROLLOUT} to 100 percent of units.")
    buckets = round(rollout * _STEPS)
    if abs(rollout * _STEPS - buckets) > 1e-6:
        raise InvalidInput(f"rollout is {rollout}; it must have at most three decimals, like 33.333.")
    return buckets


def percent_of(buckets: int) -> float:
    """The same share in percent."""
    return buckets / _STEPS


def slots_for(layer: str | None, own: Slots, others: Iterable[Slots], buckets: int) -> Slots:
    """The experiment's slots once it has `buckets` of them, in the order in which it took them; raises Conflict where there is no room.

    More: free ones are taken, lowest first, and none is given up. Fewer: the last taken go back, so nobody joins.
    """
    kept = _shrunk(own, buckets)
    missing = buckets - _size(kept)
    free = _gaps(sorted([*kept, *(slot for slots in others for slot in slots)]))
    if missing > (room := _size(free)):
        have = f" It has {percent_of(_size(own)):g} % now." if own else ""
        raise Conflict(
            f"{percent_of(room):g} % of the layer {layer!r} is free, and {percent_of(missing):g} % more is asked for.{have}"
            " Ask for less, or ramp down, stop or conclude another experiment of the layer."
        )
    taken = list(kept)
    for start, end in free:
        if missing <= 0:
            break
        end = min(end, start + missing)  # noqa: PLW2901  no more than is needed
        missing -= end - start
        if taken and taken[-1][1] == start:
            start = taken.pop()[0]  # noqa: PLW2901  one slot, where it goes on from the last
        taken.append((start, end))
    return tuple(taken)


def check_beside(plan: ExperimentPlan, running: Sequence[tuple[str, str | None, int]]) -> None:
    """Returns where the experiment may run beside `running`, (key, layer, shadows) of its model's others; raises Conflict."""
    for key, layer, _ in running:
        if plan.layer is None or layer != plan.layer:
            raise Conflict(
                f"The experiment {key!r} runs on the model {plan.model!r}: stop or conclude it first, or put both into one layer"
                " before they start."
            )
    if len(running) >= MOST_OF_A_MODEL:
        raise Conflict(f"{len(running)} experiments run on the model {plan.model!r}, which is as many as there may be.")
    shadows = sum(variant.shadow for variant in plan.variants)
    if shadows and shadows + sum(count for _, _, count in running) > MOST_SHADOWS:
        raise Conflict(f"At most {MOST_SHADOWS} shadow variants run on a model at once: {', '.join(key for key, _, n in running if n)}.")


def check_declared(wanted: Collection[Metric], declared: Collection[Metric]) -> None:
    """Returns where each metric is declared as it is wanted; raises Conflict that names the ones that differ."""
    known = {each.name: each for each in declared}
    texts = [
        f"The metric {each.name!r} of your tenant is {_described(known[each.name])}, not {_described(each)}: use it so, or name another."
        for each in wanted
        if known[each.name] != each
    ]
    if texts:
        raise Conflict(" ".join(texts))


def _described(each: Metric) -> str:
    return f"{each.kind} {each.direction} {each.aggregation}"


def _names(plan: ExperimentPlan) -> list[str]:
    found = [*_name("experiment", plan.key), *_name("model", plan.model)]
    if plan.layer is not None:
        found += _name("layer", plan.layer)
    if plan.key.startswith(UNLEASH_PREFIX):
        found.append(f"Keys that begin with {UNLEASH_PREFIX!r} are kept for experiments that are born in Unleash.")
    return found


def _name(kind: str, name: str) -> list[str]:
    try:
        check_name(kind, name)
    except InvalidInput as error:
        return [error.message]
    return []


def _text(name: str, text: str | None) -> list[str]:
    if text is None:
        return []
    if len(text) > _LONGEST_TEXT:
        return [f"{name} has {len(text):,} characters; at most {_LONGEST_TEXT:,} are kept."]
    if not is_storable(text):
        return [f"{name} holds a character that cannot be stored: NUL, or half of a surrogate pair."]
    return []


def _variants(variants: Sequence[Variant]) -> list[str]:
    if len(variants) not in _VARIANTS:
        return [f"There are {len(variants)} variants; there must be 2 to 10, the control and the shadows among them."]
    found = [problem for variant in variants for problem in _name("variant", variant.name)]
    found += [f"The variant {name!r} is there twice." for name in _doubled(variant.name for variant in variants)]
    controls = [variant for variant in variants if variant.control]
    if len(controls) != 1:
        found.append(f"There are {len(controls)} control variants; there must be exactly one, which the others are compared with.")
    found += [
        f"The control {variant.name!r} cannot be a shadow: it answers, and a shadow does not." for variant in controls if variant.shadow
    ]
    shadows = sum(variant.shadow for variant in variants)
    if shadows > MOST_SHADOWS:
        found.append(f"There are {shadows} shadow variants; at most {MOST_SHADOWS} run on a model.")
    for variant in variants:
        if not variant.shadow and variant.weight not in _WEIGHTS:
            found.append(f"The variant {variant.name!r} has the weight {variant.weight}; it must be 1 to 10,000.")
    return found


def _planned(plan: ExperimentPlan) -> list[str]:
    found = []
    if plan.planned_units is not None and not _LEAST_UNITS <= plan.planned_units <= _MOST_UNITS:
        found.append(f"plannedUnits is {plan.planned_units}; it must be at least {_LEAST_UNITS}, or be left out.")
    if plan.planned_looks not in _LOOKS:
        found.append(f"plannedLooks is {plan.planned_looks}; it must be 1 to 50.")
    elif plan.planned_looks > 1 and plan.planned_units is None:
        found.append(f"plannedLooks is {plan.planned_looks}, so plannedUnits is needed: looks fall at equal shares of it.")
    return found


def _metrics(plan: ExperimentPlan) -> list[str]:
    found = [problem for each in plan.metrics for problem in _name("metric", each.name)]
    found += [
        f"The metric {name!r} is there twice: a metric is primary, secondary or a guardrail, and once."
        for name in _doubled(each.name for each in plan.metrics)
    ]
    for what, listed in (("secondaryMetrics", plan.secondary_metrics), ("guardrails", plan.guardrails)):
        if len(listed) > _MOST_METRICS:
            found.append(f"{what} has {len(listed)} metrics; at most {_MOST_METRICS} are taken.")
    found += [
        f"The metric {each.name!r} is a PROPORTION, whose aggregation is ANY: leave it out, or make the metric a MEAN."
        for each in plan.metrics
        if each.kind is MetricKind.PROPORTION and each.aggregation is not MetricAggregation.ANY
    ]
    return found


def _overrides(plan: ExperimentPlan) -> list[str]:
    if len(plan.overrides) > _MOST_OVERRIDES:
        return [f"There are {len(plan.overrides)} overrides; at most {_MOST_OVERRIDES} are taken."]
    answering = {variant.name for variant in plan.variants if not variant.shadow}
    found = [
        f"An override names the variant {name[:48]!r}, which is none that answers."
        for name in dict.fromkeys(variant for _, variant in plan.overrides)
        if name not in answering
    ]
    if doubled := _doubled(unit for unit, _ in plan.overrides):
        found.append(f"{len(doubled)} of the overrides' units are there twice: a unit is forced into one variant.")
    return found


def _doubled(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in names:
        if name in seen:
            twice[name] = None
        seen.add(name)
    return list(twice)


def _size(slots: Iterable[tuple[int, int]]) -> int:
    return sum(end - start for start, end in slots)


def _shrunk(slots: Slots, buckets: int) -> Slots:
    kept: list[tuple[int, int]] = []
    for start, end in slots:
        if buckets <= 0:
            break
        kept.append((start, min(end, start + buckets)))
        buckets -= end - start
    return tuple(kept)


def _gaps(taken: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What `taken`, sorted, leaves of the layer, lowest first."""
    gaps, position = [], 0
    for start, end in taken:
        if start > position:
            gaps.append((position, start))
        position = max(position, end)
    return [*gaps, (position, BUCKETS)] if position < BUCKETS else gaps
