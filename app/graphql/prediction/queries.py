"""Predictions: queries, since a repeat is safe (and a new prediction)."""

from __future__ import annotations

from typing import Annotated

import strawberry

from app.graphql.context import Info, root_field
from app.graphql.prediction import asking
from app.graphql.prediction.types import BatchPrediction, Prediction
from app.graphql.scalars import Attributes, FeatureMatrix, FeatureRow, given
from app.kernel.context import Action
from app.prediction import types

_UNIT = strawberry.argument(description="Who is randomised: a user, a device, a session. 1 to 256 bytes of UTF-8, taken as sent.")
Unit = Annotated[strawberry.ID | None, _UNIT]


@strawberry.type
class PredictionQuery:
    @root_field(
        Action.PREDICT,
        "One prediction. `unit` is who is randomised (a user, a device, a session). "
        "`version` or `alias` pins the request and leaves experiments aside.",
        graphql_type=Prediction | None,
        direct=asking.one,
    )
    async def predict(
        self,
        info: Info,
        model: str,
        features: FeatureRow,
        unit: Unit = strawberry.UNSET,
        attributes: Attributes | None = strawberry.UNSET,
        alias: str | None = strawberry.UNSET,
        version: int | None = strawberry.UNSET,
    ) -> types.Prediction:
        return await asking.one(info.context, model, features, given(unit), given(attributes), given(alias), given(version))

    @root_field(
        Action.PREDICT,
        "Many rows, one route: every row goes to the same version. Exactly one of rows and matrix.",
        graphql_type=BatchPrediction | None,
        direct=asking.many,
    )
    async def predict_batch(
        self,
        info: Info,
        model: str,
        rows: list[FeatureRow] | None = strawberry.UNSET,
        matrix: FeatureMatrix | None = strawberry.UNSET,
        unit: Unit = strawberry.UNSET,
        attributes: Attributes | None = strawberry.UNSET,
        alias: str | None = strawberry.UNSET,
        version: int | None = strawberry.UNSET,
    ) -> types.BatchPrediction:
        optional = map(given, (rows, matrix, unit, attributes, alias, version))
        return await asking.many(info.context, model, *optional)
