"""The predictor's calls with the arguments of the contract, None where one was left out: what the fields do, whoever runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.prediction import types

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from app.graphql.context import GraphQLContext


def one(
    context: GraphQLContext,
    model: str,
    features: Any,
    unit: Any = None,
    attributes: Any = None,
    alias: Any = None,
    version: Any = None,
) -> Awaitable[types.Prediction]:
    """`Query.predict`; raises as the predictor does."""
    context.predicts = True
    request = types.RouteRequest(model, unit, attributes, alias, version)
    return context.services.predictor.predict(context.request, request, features)


def many(
    context: GraphQLContext,
    model: str,
    rows: Any = None,
    matrix: Any = None,
    unit: Any = None,
    attributes: Any = None,
    alias: Any = None,
    version: Any = None,
) -> Awaitable[types.BatchPrediction]:
    """`Query.predictBatch`; raises as the predictor does."""
    context.predicts = context.predicts_many = True
    request = types.RouteRequest(model, unit, attributes, alias, version)
    return context.services.predictor.predict_batch(context.request, request, types.BatchRows(rows, matrix))
