"""A model's answers as they are told and written down: rows, labels, and the one number by which an answer is weighed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from app.journal.types import PredictionRecord
from app.kernel.tensors import Batch, Scores
from app.prediction.types import BatchPrediction, Prediction

if TYPE_CHECKING:
    from uuid import UUID

    from numpy.typing import NDArray

    from app.kernel.tensors import Said
    from app.prediction.choosing import Chosen
    from app.prediction.types import RouteRequest
    from app.registry.types import VersionRoute

N = TypeVar("N", bound=np.generic)


def score(said: Said) -> float | None:
    """What a row's answer is weighed by: the probability of its label, or the predicted number."""
    label, probabilities, value = said
    return value if label is None or probabilities is None else probabilities[label]


def label(route: VersionRoute, said: Said) -> str | None:
    """A row's class as text; None of a regressor."""
    return None if said[0] is None or route.classes is None else route.classes[said[0]]


def first_rows(batch: Batch, scores: Scores, most: int) -> tuple[Batch, Scores]:
    """The first `most` rows and their answers: of a larger batch a copy, so that it is not kept for its first rows."""
    if batch.rows <= most:
        return batch, scores
    texts = tuple(column[:most] for column in batch.texts)
    first = Scores(_head(scores.labels, most), _head(scores.probabilities, most), _head(scores.values, most))
    return Batch(most, batch.numbers[:most].copy(), texts), first


def record(
    tenant_id: UUID,
    prediction_id: UUID,
    chosen: Chosen,
    unit_hash: str | None,
    key_generation: int,
    batch: Batch,
    scores: Scores,
    seconds: float,
) -> PredictionRecord:
    """What the journal keeps of this answer."""
    return PredictionRecord(  # by place: fifteen names would take as long again as all of this does
        prediction_id,
        tenant_id,
        unit_hash,
        key_generation,
        chosen.model.name,
        chosen.routed.route.number,
        str(chosen.reason),
        chosen.experiment,
        chosen.variant,
        chosen.propensity,
        chosen.flag_revision,
        rows := batch.rows,
        int(seconds * 1e6),
        score(scores.first) if rows == 1 else None,
        chosen.degraded,
    )


def one(prediction_id: UUID, request: RouteRequest, chosen: Chosen, scores: Scores) -> Prediction:
    """The answer to one row."""
    index, shares, value = scores.first
    route = chosen.routed.route
    label = classes = probability = None
    if index is not None:
        classes = route.classes or ()
        label = classes[index]
        probability = None if shares is None else shares[index]
    return Prediction(  # by place, as above
        prediction_id,
        request.model,
        route.number,
        chosen.variant,
        chosen.experiment,
        chosen.reason,
        label,
        probability,
        classes,
        shares,
        value,
        chosen.degraded,
    )


def many(rows: int, prediction_id: UUID, request: RouteRequest, chosen: Chosen, scores: Scores) -> BatchPrediction:
    """The answers to many rows."""
    classes = chosen.routed.route.classes
    labels = None if scores.labels is None or classes is None else np.array(classes, dtype=object)[scores.labels].tolist()
    return BatchPrediction(
        id=prediction_id,
        model=request.model,
        version=chosen.routed.route.number,
        variant=chosen.variant,
        experiment=chosen.experiment,
        reason=chosen.reason,
        degraded=chosen.degraded,
        row_count=rows,
        classes=None if classes is None else list(classes),
        labels=labels,
        probabilities=scores.probabilities,
        values=scores.values,
    )


def _head(array: NDArray[N] | None, most: int) -> NDArray[N] | None:
    return None if array is None else array[:most].copy()
