"""Experiments, variants and metrics on the wire. Fields read the room's values by attribute."""

from __future__ import annotations

from datetime import datetime

import strawberry

from app.graphql.experiments.enums import ExperimentSource, ExperimentStatus, MetricAggregation, MetricDirection, MetricKind
from app.graphql.experiments.results import ResultsOfExperiment
from app.graphql.paging import PageInfo
from app.graphql.scalars import BigInt


@strawberry.type
class Variant:
    name: str
    version: int | None
    alias: str | None
    weight: int
    control: bool
    shadow: bool = strawberry.field(description="It gets the same input as what answers, off the caller's time, and answers nobody.")


@strawberry.type
class Metric:
    name: str
    kind: MetricKind
    direction: MetricDirection
    aggregation: MetricAggregation


@strawberry.type
class TargetingRule:
    attribute: str
    operator: str
    values: list[str]


@strawberry.type
class Experiment(ResultsOfExperiment):
    key: str
    model: str
    status: ExperimentStatus
    source: ExperimentSource
    hypothesis: str | None
    rollout: float = strawberry.field(
        description="What share of units takes part, in percent. 0: a draft, or a guardrail took its traffic away."
    )
    variants: list[Variant]
    primary_metric: Metric | None = strawberry.field(description="Null for an experiment that was born in Unleash and never given one.")
    secondary_metrics: list[Metric]
    guardrails: list[Metric]
    planned_units: BigInt | None
    planned_looks: int
    layer: str | None
    targeting: list[TargetingRule] = strawberry.field(description="Who may take part: all of these hold.")
    created_at: datetime
    created_by: str
    started_at: datetime | None
    ended_at: datetime | None
    revision: int = strawberry.field(description="Raised by every change.")


@strawberry.type
class ExperimentEdge:
    cursor: str
    node: Experiment


@strawberry.type
class ExperimentConnection:
    edges: list[ExperimentEdge]
    page_info: PageInfo
