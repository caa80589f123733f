"""What happened after a prediction, on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry

from app.experiments import outcomes, types
from app.experiments.outcome_rules import OutcomeToRecord
from app.graphql.codes import ErrorCode
from app.graphql.context import Info, root_mutation
from app.graphql.experiments.inputs import MetricInput
from app.graphql.experiments.types import Metric
from app.graphql.scalars import given
from app.kernel.context import Action


@strawberry.input(description="idempotencyKey left out: (predictionId, metric, row) is the key; with `unit` it must be given.")
class OutcomeInput:
    prediction_id: strawberry.ID | None = strawberry.UNSET
    row: int | None = strawberry.field(default=strawberry.UNSET, description="Of a batch, counted from 0.")
    unit: strawberry.ID | None = strawberry.UNSET
    metric: str
    value: float
    occurred_at: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="Left out: now. At most outcomeWindowDays ago; clocks may be five minutes ahead.",
    )
    idempotency_key: str | None = strawberry.UNSET

    def outcome(self) -> OutcomeToRecord:
        prediction, unit = given(self.prediction_id), given(self.unit)
        return OutcomeToRecord(
            self.metric,
            self.value,
            None if prediction is None else str(prediction),
            given(self.row),
            None if unit is None else str(unit),
            given(self.occurred_at),
            given(self.idempotency_key),
        )


@strawberry.type(description="pending: the prediction is genuine and has not reached the log yet; it is joined when it does.")
class Outcome:
    id: strawberry.ID
    metric: str
    value: float
    duplicate: bool
    pending: bool


@strawberry.type
class RejectedOutcome:
    index: int
    code: ErrorCode
    message: str


@strawberry.type
class RecordedOutcomes:
    recorded: list[Outcome]
    rejected: list[RejectedOutcome]


@strawberry.type
class OutcomeMutation:
    @root_mutation(
        Action.RECORD_OUTCOME,
        "What happened after a prediction (a click, a purchase, the true label). Exactly one of predictionId and unit.",
        graphql_type=Outcome | None,
    )
    async def record_outcome(self, info: Info, input: OutcomeInput) -> outcomes.Outcome:  # noqa: A002  the contract's name
        return await info.context.services.outcomes.record(info.context.request, input.outcome())

    @root_mutation(Action.RECORD_OUTCOME, "Up to 1,000; good ones are kept, bad ones are listed.", graphql_type=RecordedOutcomes | None)
    async def record_outcomes(self, info: Info, inputs: list[OutcomeInput]) -> Any:
        return await info.context.services.outcomes.record_many(info.context.request, [each.outcome() for each in inputs])

    @root_mutation(
        Action.MANAGE_EXPERIMENTS,
        "A metric of your tenant. Experiments that are born in Unleash measure all of them. Declared otherwise already: CONFLICT.",
        graphql_type=Metric | None,
    )
    async def declare_metric(self, info: Info, input: MetricInput) -> types.Metric:  # noqa: A002  as its siblings
        return await info.context.services.outcomes.declare_metric(info.context.request, input.value())
