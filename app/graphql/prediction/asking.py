"""The predictor's calls with the arguments of the contract: what the fields' resolvers do, whoever runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import strawberry

from app.graphql.scalars import given
from app.prediction import types

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from app.graphql.context import GraphQLContext

_LEFT_OUT: Any = strawberry.UNSET


def one(
    context: GraphQLContext,
    model: str,
    features: Any,
    unit: Any = _LEFT_OUT,
    attributes: Any = _LEFT_OUT,
    alias: Any = _LEFT_OUT,
    version: Any = _LEFT_OUT,
) -> Awaitable[types.Prediction]:
    """`Query.predict`; raises as the predictor does."""
    context.predicts = True
    request = types.RouteRequest(model, given(unit), given(attributes), given(alias), given(version))
    return context.services.predictor.predict(context.request, request, features)


def many(
    context: GraphQLContext,
    model: str,
    rows: Any = _LEFT_OUT,
    matrix: Any = _LEFT_OUT,
    unit: Any = _LEFT_OUT,
    attributes: Any = _LEFT_OUT,
    alias: Any = _LEFT_OUT,
    version: Any = _LEFT_OUT,
) -> Awaitable[types.BatchPrediction]:
    """`Query.predictBatch`; raises as the predictor does."""
    context.predicts = context.predicts_many = True
    request = types.RouteRequest(model, given(unit), given(attributes), given(alias), given(version))
    return context.services.predictor.predict_batch(context.request, request, types.BatchRows(given(rows), given(matrix)))
