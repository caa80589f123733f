"""Rows as arrays: what crosses from the checked request to a runtime, and back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


# Batch and Scores are made on every request; frozen, each would cost three times as much. Nobody changes them.
@dataclass(slots=True)
class Batch:
    """Checked rows in signature order.

    `numbers`: (rows, k) float64, the k columns that are not STRING, in signature order; NaN is a missing value,
    BOOLEAN is 0.0 or 1.0. `texts`: one tuple of `rows` strings for each STRING column, None for a missing value.
    """

    rows: int
    numbers: NDArray[np.float64]
    texts: tuple[tuple[str | None, ...], ...] = ()


def joined(batches: Sequence[Batch]) -> Batch:
    """All their rows, one batch after the other; they are of one signature."""
    texts = tuple(tuple(chain.from_iterable(columns)) for columns in zip(*(batch.texts for batch in batches), strict=True))
    return Batch(sum(batch.rows for batch in batches), np.concatenate([batch.numbers for batch in batches]), texts)


@dataclass(slots=True)
class Scores:
    """What the estimator answered, one entry a row.

    Classifiers: `labels` (rows,) int32, indices into the version's classes, as `predict` said;
    `probabilities` (rows, classes) float64 or None where the estimator has none. Regressors: `values` (rows,) float64.
    """

    labels: NDArray[np.int32] | None = None
    probabilities: NDArray[np.float64] | None = None
    values: NDArray[np.float64] | None = None
