"""What clients send about experiments, and how it becomes the room's values."""

from __future__ import annotations

from typing import Any

import strawberry

from app.experiments import rules, types
from app.graphql.experiments.enums import MetricAggregation, MetricDirection, MetricKind
from app.graphql.scalars import BigInt, given


@strawberry.input
class VariantInput:
    name: str
    version: int
    weight: int = 1
    control: bool = False
    shadow: bool = False

    def value(self) -> types.Variant:
        return types.Variant(self.name, self.version, None, self.weight, self.control, self.shadow)


@strawberry.input(description="Left out: ANY for PROPORTION, SUM for MEAN.")
class MetricInput:
    name: str
    kind: MetricKind
    direction: MetricDirection = MetricDirection.INCREASE
    aggregation: MetricAggregation | None = strawberry.UNSET

    def value(self) -> types.Metric:
        return rules.metric(self.name, self.kind, self.direction, given(self.aggregation))


@strawberry.input(description="Operators are Unleash's: IN, NOT_IN, STR_STARTS_WITH, NUM_GTE, SEMVER_GT, ...")
class TargetingRuleInput:
    attribute: str
    operator: str
    values: list[str]

    def value(self) -> types.TargetingRule:
        return types.TargetingRule(self.attribute, self.operator, tuple(self.values))


@strawberry.input
class UnitOverrideInput:
    unit: strawberry.ID
    variant: str

    def pair(self) -> tuple[str, str]:
        return str(self.unit), self.variant


@strawberry.input
class CreateExperimentInput:
    key: str
    model: str
    hypothesis: str | None = strawberry.UNSET
    variants: list[VariantInput]
    primary_metric: MetricInput
    secondary_metrics: list[MetricInput] | None = strawberry.field(default_factory=list)
    guardrails: list[MetricInput] | None = strawberry.field(default_factory=list)
    planned_units: BigInt | None = strawberry.field(
        default=strawberry.UNSET,
        description="Units at which it ends. Looks fall at k/plannedLooks of it. Left out: one look, when it is stopped.",
    )
    planned_looks: int | None = 1
    layer: str | None = strawberry.field(default=strawberry.UNSET, description="Experiments of one layer never share a unit.")
    targeting: list[TargetingRuleInput] | None = strawberry.field(default_factory=list)
    overrides: list[UnitOverrideInput] | None = strawberry.field(
        default_factory=list, description="Units forced into a variant (to test by hand); left out of the results."
    )

    def plan(self) -> types.ExperimentPlan:
        """The plan without its overrides, which name units."""
        return types.ExperimentPlan(
            key=self.key,
            model=self.model,
            hypothesis=given(self.hypothesis),
            variants=_values(self.variants),
            primary_metric=self.primary_metric.value(),
            secondary_metrics=_values(self.secondary_metrics),
            guardrails=_values(self.guardrails),
            planned_units=given(self.planned_units),
            planned_looks=1 if self.planned_looks is None else self.planned_looks,
            layer=given(self.layer),
            targeting=_values(self.targeting),
        )

    def forced(self) -> tuple[tuple[str, str], ...]:
        """(unit, variant) of each override."""
        return tuple(override.pair() for override in self.overrides or ())


@strawberry.input(description="What changes; what is left out stays. Null clears what may be left out.")
class UpdateExperimentInput:
    hypothesis: str | None = strawberry.UNSET
    variants: list[VariantInput] | None = strawberry.field(default=strawberry.UNSET, description="All of them, not only what changes.")
    primary_metric: MetricInput | None = strawberry.UNSET
    secondary_metrics: list[MetricInput] | None = strawberry.UNSET
    guardrails: list[MetricInput] | None = strawberry.UNSET
    planned_units: BigInt | None = strawberry.UNSET
    planned_looks: int | None = strawberry.UNSET
    layer: str | None = strawberry.UNSET
    targeting: list[TargetingRuleInput] | None = strawberry.UNSET
    overrides: list[UnitOverrideInput] | None = strawberry.UNSET

    def changes(self) -> dict[str, Any]:
        """What was sent, by the plan's names; the overrides apart."""
        changes: dict[str, Any] = {
            name: value
            for name, value in {"hypothesis": self.hypothesis, "planned_units": self.planned_units, "layer": self.layer}.items()
            if value is not strawberry.UNSET
        }
        for name, listed in {
            "variants": self.variants, "secondary_metrics": self.secondary_metrics, "guardrails": self.guardrails,
            "targeting": self.targeting,
        }.items():  # fmt: skip
            if listed is not strawberry.UNSET:
                changes[name] = _values(listed)
        if self.planned_looks is not strawberry.UNSET:
            changes["planned_looks"] = 1 if self.planned_looks is None else self.planned_looks
        if isinstance(self.primary_metric, MetricInput):  # there is no taking it away
            changes["primary_metric"] = self.primary_metric.value()
        return changes

    def forced(self) -> tuple[tuple[str, str], ...] | None:
        """(unit, variant) of each override; None where they stay."""
        return None if self.overrides is strawberry.UNSET else tuple(override.pair() for override in self.overrides or ())


def _values(inputs: Any) -> tuple[Any, ...]:
    return tuple(each.value() for each in inputs or ())
