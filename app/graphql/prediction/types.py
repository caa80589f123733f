"""Predictions on the wire."""

from __future__ import annotations

import strawberry

from app.graphql.scalars import FloatMatrix, FloatVector, StringVector
from app.prediction.types import RoutingReason

RoutingReasonEnum = strawberry.enum(RoutingReason, name="RoutingReason", description="Why this version answered.")


@strawberry.type
class ClassProbability:
    label: str
    probability: float


@strawberry.type
class Prediction:
    id: strawberry.ID = strawberry.field(description="UUIDv7: what recordOutcome takes.")
    model: str
    version: int
    variant: str | None
    experiment: str | None
    reason: RoutingReason
    label: str | None = strawberry.field(description="Classifiers: the predicted class as text. Null for regressors.")
    probability: float | None = strawberry.field(description="Classifiers that have probabilities: that of `label`.")
    probabilities: list[ClassProbability] | None
    value: float | None = strawberry.field(description="Regressors: the predicted number. Null for classifiers.")
    degraded: bool = strawberry.field(
        description="True where a fallback answered, or where the route may be out of date because the database has been away for long."
    )


@strawberry.type
class BatchPrediction:
    id: strawberry.ID = strawberry.field(description="One id for the batch; an outcome names its row.")
    model: str
    version: int
    variant: str | None
    experiment: str | None
    reason: RoutingReason
    degraded: bool
    row_count: int
    classes: list[str] | None
    labels: StringVector | None
    probabilities: FloatMatrix | None = strawberry.field(description="One list a row, in the order of `classes`.")
    values: FloatVector | None
