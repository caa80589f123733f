"""From an experiment and its sums to what the statistics take, and back. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.errors import InvalidInput, NotFound
from app.experiments.answers import ExperimentResults, SampleRatioCheck, VariantResult
from app.experiments.stats.moments import arm_moments
from app.experiments.stats.types import Arm, Look, Plan, Verdict
from app.experiments.types import ExperimentSource, ExperimentStatus, MetricRole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from app.experiments.stats.types import Analysis, ArmResult
    from app.experiments.sums import ExperimentSums, FrozenLook
    from app.experiments.types import Experiment, Metric, Variant

_ENDED = (ExperimentStatus.STOPPED, ExperimentStatus.CONCLUDED)
NO_PLAN = "It was born in Unleash and has no plan: give it one with updateExperiment. Until then there is no verdict."


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of an experiment: `complete` is False where more has been logged than could be counted in time."""

    experiment: Experiment
    sums: ExperimentSums
    looks: Sequence[FrozenLook]
    declared: Mapping[str, Metric]  # all metrics of the tenant
    complete: bool = True

    @property
    def planless(self) -> bool:
        return self.experiment.source is ExperimentSource.UNLEASH and self.experiment.primary_metric is None


def metric_of(evidence: Evidence, name: str | None) -> tuple[Metric, MetricRole]:
    """The metric that is asked about, and its part in the plan; raises NotFound, InvalidInput (none is named, and none is primary)."""
    experiment = evidence.experiment
    if name is None:
        if experiment.primary_metric is not None:
            return experiment.primary_metric, MetricRole.PRIMARY
        if len(evidence.declared) == 1:
            return next(iter(evidence.declared.values())), MetricRole.PRIMARY
        names = ", ".join(sorted(evidence.declared)) or "none yet: declareMetric"
        raise InvalidInput(f"The experiment {experiment.key!r} has no primary metric: name one of the tenant's ({names}).")
    if experiment.primary_metric is not None and experiment.primary_metric.name == name:
        return experiment.primary_metric, MetricRole.PRIMARY
    for role, metrics in ((MetricRole.SECONDARY, experiment.secondary_metrics), (MetricRole.GUARDRAIL, experiment.guardrails)):
        for metric in metrics:
            if metric.name == name:
                return metric, role
    if experiment.source is ExperimentSource.UNLEASH and name in evidence.declared:
        return evidence.declared[name], MetricRole.PRIMARY if evidence.planless else MetricRole.SECONDARY
    measured = [experiment.primary_metric, *experiment.secondary_metrics, *experiment.guardrails]
    known = sorted(evidence.declared) if evidence.planless else [metric.name for metric in measured if metric is not None]
    raise NotFound(f"The experiment {experiment.key!r} does not measure {name[:64]!r}; it measures {', '.join(known) or 'nothing yet'}.")


def results_of(evidence: Evidence, metric_name: str | None, at: datetime) -> ExperimentResults:
    """What is known of one metric now, and what the plan says of it. Raises as `metric_of`."""
    metric, role = metric_of(evidence, metric_name)
    arms, problem = comparable(evidence)
    if problem is not None:
        return _without_comparison(evidence, metric, problem, at)
    analysis = _analysis(evidence, arms, metric, role)
    notes = [*_notes(evidence)]
    if analysis.adjustment.used:
        notes.append("Control's score on each unit's first input explains a part of the metric, which is taken out (CUPED).")
    elif analysis.adjustment.reason is not None:
        notes.append(f"Values are not adjusted by control's score. {analysis.adjustment.reason}")
    return ExperimentResults(
        metric.name,
        tuple(_variant(evidence, result) for result in analysis.variants),
        SampleRatioCheck(analysis.srm.p_value, analysis.srm.ok),
        Verdict.COLLECTING if evidence.planless and analysis.verdict is not Verdict.INVALID else analysis.verdict,
        None if evidence.planless else analysis.winner,
        analysis.looks,
        analysis.planned_looks,
        at,
        analysis.adjustment.used,
        tuple(notes),
    )


def comparable(evidence: Evidence) -> tuple[tuple[Variant, ...], str | None]:
    """The arms that answer, and why they cannot be compared; None: they can."""
    arms = tuple(arm for arm in evidence.experiment.arms if arm.weight > 0 or arm.name in evidence.sums.arms)
    controls = [arm for arm in arms if arm.control]
    if len(controls) != 1:
        return arms, "There is nothing to compare with: no variant is control."
    if len(arms) < 2:
        return arms, "There is one variant that answers, so nothing is compared here; see shadowResults."
    if any(arm.weight <= 0 for arm in arms):
        return arms, "A variant with units has the weight 0, so what the split should be is not known."
    return arms, None


def analysis_of(evidence: Evidence, arms: Sequence[Variant], metric: Metric, role: MetricRole) -> Analysis:
    """One metric by itself: not yet corrected for other metrics."""
    from app.experiments.stats.analysis import analyse  # SciPy: 27 MiB of a process that answers predictions alone

    experiment = evidence.experiment
    plan = Plan(
        arms=tuple(Arm(arm.name, arm.weight, arm.control) for arm in arms),
        kind=metric.kind,
        direction=metric.direction,
        aggregation=metric.aggregation,
        role=role,
        planned_looks=experiment.planned_looks,
        planned_units=experiment.planned_units,
        ended=experiment.status in _ENDED and not evidence.planless,
    )
    now = [evidence.sums.of(metric.name, arm.name) for arm in arms]
    looks = [Look(look.number, tuple(look.sums.of(metric.name, arm.name) for arm in arms)) for look in evidence.looks]
    if evidence.looks and _still_matures(evidence.looks[-1], experiment, evidence.sums):
        looks[-1] = Look(looks[-1].number, tuple(now))
    return analyse(plan, now, looks)


def _still_matures(look: FrozenLook, experiment: Experiment, sums: ExperimentSums) -> bool:
    """Whether the newest look is read with what its units did since: outcomes come after exposures, and often long after.

    A look between freezes with the first unit after it, which makes the next look's information; after the last no unit is counted.
    """
    return look.number >= experiment.planned_looks or look.units == sums.units


def _analysis(evidence: Evidence, arms: Sequence[Variant], metric: Metric, role: MetricRole) -> Analysis:
    secondary = evidence.experiment.secondary_metrics
    if role is not MetricRole.SECONDARY or metric not in secondary:
        return analysis_of(evidence, arms, metric, role)
    from app.experiments.stats.analysis import adjust_secondary  # as above

    together = adjust_secondary([analysis_of(evidence, arms, each, role) for each in secondary])
    return together[secondary.index(metric)]


def _variant(evidence: Evidence, result: ArmResult) -> VariantResult:
    decided = result.verdict is Verdict.INVALID or not evidence.planless
    return VariantResult(
        result.variant,
        result.units,
        evidence.sums.requests(result.variant),
        result.mean,
        result.standard_error,
        result.difference,
        result.difference_low,
        result.difference_high,
        result.lift,
        result.lift_low,
        result.lift_high,
        result.p_value,
        result.sequential_low,
        result.sequential_high,
        result.chance_to_beat_control,
        result.verdict if decided or result.verdict is None else Verdict.COLLECTING,
    )


def _without_comparison(evidence: Evidence, metric: Metric, problem: str, at: datetime) -> ExperimentResults:
    variants = []
    for arm in evidence.experiment.arms:
        sums = evidence.sums.of(metric.name, arm.name)
        moments = arm_moments(sums, metric.aggregation)
        mean, error = (None, None) if moments is None else (moments.mean, moments.standard_error)
        variants.append(VariantResult(arm.name, sums.units, evidence.sums.requests(arm.name), mean, error))
    looks, planned = len(evidence.looks), evidence.experiment.planned_looks
    check, notes = SampleRatioCheck(None, ok=True), (*_notes(evidence), problem)
    return ExperimentResults(metric.name, tuple(variants), check, Verdict.COLLECTING, None, looks, planned, at, adjusted=False, notes=notes)


def _notes(evidence: Evidence) -> list[str]:
    experiment, notes = evidence.experiment, []
    if not evidence.complete:
        notes.append("More was logged than could be counted in time: ask again in a moment.")
    if evidence.planless:
        notes.append(NO_PLAN)
    if experiment.status is ExperimentStatus.RUNNING and experiment.planned_units and evidence.sums.units >= experiment.planned_units:
        notes.append(f"The planned {experiment.planned_units:,} units are in: who comes now gets a variant and is not counted.")
    if experiment.status is ExperimentStatus.RUNNING and experiment.rollout == 0 and experiment.source is ExperimentSource.TURNOUT:
        notes.append("A guardrail took its traffic away: the audit log says which. rampExperiment brings it back.")
    return notes + _fallen(evidence)


def _fallen(evidence: Evidence) -> list[str]:
    return [
        f"{fallen:,} of {evidence.sums.arms[arm.name]['units']:,} units of {arm.name!r} got a fallback's answer at least once, for its "
        "version failed: they count as its own."
        for arm in evidence.experiment.arms
        if (fallen := evidence.sums.fell_back(arm.name))
    ]
