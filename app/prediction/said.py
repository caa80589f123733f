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

    from app.prediction.choosing import Chosen
    from app.prediction.types import RouteRequest
    from app.registry.types import VersionRoute

N = TypeVar("N", bound=np.generic)


def score(scores: Scores, row: int = 0) -> float | None:
    """What a row's answer is weighed by: the probability of its label, or the predicted number."""
    if scores.values is not None:
        return float(scores.values[row])
    if scores.probabilities is not None and scores.labels is not None:
        return float(scores.probabilities[row, scores.labels[row]])
    return None


def label(route: VersionRoute, scores: Scores, row: int) -> str | None:
    """A row's class as text; None of a regressor."""
    return None if scores.labels is None or route.classes is None else route.classes[int(scores.labels[row])]


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
        score(scores) if rows == 1 else None,
        chosen.degraded,
    )


def one(prediction_id: UUID, request: RouteRequest, chosen: Chosen, scores: Scores) -> Prediction:
    """The answer to one row."""
    label = probability = classes = shares = None
    if scores.labels is not None:
        classes = chosen.routed.route.classes or ()
        index = int(scores.labels[0])
        label = classes[index]
        if scores.probabilities is not None:
            shares = scores.probabilities[0].tolist()
            probability = shares[index]
    value = None if scores.values is None else float(scores.values[0])
    return Prediction(  # by place, as above
        prediction_id,
        request.model,
        chosen.routed.route.number,
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


def many(prediction_id: UUID, request: RouteRequest, chosen: Chosen, rows: int, scores: Scores) -> BatchPrediction:
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
