"""What an experiment found out, on the wire: mixed into the type Experiment, which adds nothing to it."""

from __future__ import annotations

from datetime import datetime

import strawberry

from app.experiments import answers, types
from app.experiments.stats.types import Verdict
from app.graphql.context import Info, root_field
from app.graphql.scalars import BigInt, given
from app.kernel.context import Action

strawberry.enum(Verdict, name="Verdict")


@strawberry.type
class VariantResult:
    variant: str
    units: BigInt
    exposures: BigInt = strawberry.field(description="Predictions that its units asked for. Everything else is about units.")
    mean: float | None
    standard_error: float | None
    difference: float | None = strawberry.field(
        description="Against control, by the planned analysis; null for control, and before its first look. lift is relative: 0.05 is 5 %."
    )
    difference_low: float | None
    difference_high: float | None
    lift: float | None
    lift_low: float | None
    lift_high: float | None
    p_value: float | None
    sequential_low: float | None = strawberry.field(description="Always valid, at any moment: the confidence sequence of the difference.")
    sequential_high: float | None
    chance_to_beat_control: float | None = strawberry.field(description="For reading only; never a stop rule.")
    verdict: Verdict | None


@strawberry.type
class SampleRatioCheck:
    p_value: float | None
    ok: bool


@strawberry.type
class ExperimentResults:
    metric: str
    variants: list[VariantResult]
    srm: SampleRatioCheck = strawberry.field(description="Sample ratio mismatch: is the split what was asked for?")
    verdict: Verdict = strawberry.field(description="What the planned analysis says now.")
    winner: str | None
    looks: int = strawberry.field(description="Looks done, and planned.")
    planned_looks: int
    computed_at: datetime
    adjusted: bool = strawberry.field(
        description="What control's score on a unit's first input foretells of the metric was taken out of the comparison (CUPED)."
    )
    notes: list[str] = strawberry.field(description="What a reader should know, as sentences.")


@strawberry.type(description="A shadow variant against control on identical inputs: every row that control answered is a pair.")
class ShadowResult:
    variant: str
    pairs: BigInt
    agreement: float | None = strawberry.field(
        description="The share of pairs, 0 to 1, with the same label; or numbers alike to six digits."
    )
    agreement_low: float | None
    agreement_high: float | None
    labelled: BigInt = strawberry.field(
        description="Pairs whose truth is known: an outcome of the metric. For classes its value is the number that the class's text is, "
        "where all are numbers, else the class's place in `classes`, from 0."
    )
    champion_correct: BigInt | None = strawberry.field(description="Of the labelled pairs; null for regressors.")
    shadow_correct: BigInt | None
    champion_error: float | None = strawberry.field(description="Mean absolute error; null for classifiers.")
    shadow_error: float | None
    difference: float | None = strawberry.field(
        description="The shadow's accuracy (classes) or mean absolute error (numbers), less the champion's."
    )
    difference_low: float | None
    difference_high: float | None
    p_value: float | None = strawberry.field(description="McNemar's exact test for classes, the paired t test for numbers.")


@strawberry.type(description="How many units an effect takes, from the mean and variance of your tenant's own units.")
class ExperimentPower:
    metric: str
    experiment: str = strawberry.field(description="Whose control arm was looked at.")
    observed_units: BigInt
    mean: float
    standard_deviation: float = strawberry.field(description="Of one unit.")
    units: BigInt | None = strawberry.field(description="Of all arms together, at the last look; null where no effect was asked about.")
    units_per_arm: list[BigInt] | None
    detectable_effect: float | None = strawberry.field(description="Absolute; null where no number of units was asked about.")


@strawberry.type
class ResultsOfExperiment:
    """The base of the GraphQL type Experiment that brings its results."""

    @strawberry.field(
        graphql_type=ExperimentResults | None,
        description="Of one metric; left out, the primary one. Everything that was logged or recorded before is in it.",
    )
    async def results(
        self, root: strawberry.Parent[types.Experiment], info: Info, metric: str | None = strawberry.UNSET
    ) -> answers.ExperimentResults:
        found = await info.context.loaders.results.load((root, given(metric)))
        if isinstance(found, Exception):
            raise found
        return found

    @strawberry.field(
        graphql_type=list[ShadowResult],
        description="Each shadow variant against control. The truth is an outcome of `metric`; left out, the primary one.",
    )
    async def shadow_results(
        self, root: strawberry.Parent[types.Experiment], info: Info, metric: str | None = strawberry.UNSET
    ) -> list[answers.ShadowResult]:
        return await info.context.services.results.shadows(info.context.request, root, given(metric))


@strawberry.type
class ResultsQuery:
    @root_field(
        Action.READ_EXPERIMENTS,
        "Before an experiment: how many units an effect takes (`effect` is absolute; `relativeEffect` 0.05 is 5 %), or which effect "
        "`units` show. `weights` are those of the arms, control first. Mean and variance are those of the control arm of `experiment`; "
        "left out, of the experiment that saw most units.",
        graphql_type=ExperimentPower | None,
    )
    async def experiment_power(
        self,
        info: Info,
        metric: str,
        experiment: str | None = strawberry.UNSET,
        effect: float | None = strawberry.UNSET,
        relative_effect: float | None = strawberry.UNSET,
        units: BigInt | None = strawberry.UNSET,
        weights: list[int] | None = strawberry.UNSET,
        looks: int = 1,
        alpha: float = 0.05,
        power: float = 0.8,
    ) -> answers.ExperimentPower:
        arms = tuple(given(weights) or (1, 1))
        asked = answers.PowerQuestion(
            metric, given(experiment), given(effect), given(relative_effect), given(units), arms, looks, alpha, power
        )
        return await info.context.services.results.power(info.context.request, asked)
