"""Rows as arrays: what crosses from the checked request to a runtime, and back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Said = tuple[int | None, list[float] | None, float | None]  # of one row: label, probabilities and value, in plain numbers


# These are made on every request; frozen, each would cost three times as much. Nobody changes them.
@dataclass(slots=True)
class Batch:
    """Checked rows in signature order.

    `numbers`: (rows, k) float64, the k columns that are not STRING, in signature order; NaN is a missing value,
    BOOLEAN is 0.0 or 1.0. `texts`: one tuple of `rows` strings for each STRING column, None for a missing value.
    """

    rows: int
    numbers: NDArray[np.float64]
    texts: tuple[tuple[str | None, ...], ...] = ()

    @property
    def values(self) -> Sequence[float | None] | NDArray[np.float64]:
        """The first row of `numbers`."""
        first: NDArray[np.float64] = self.numbers[0]
        return first


class Row(Batch):
    """A batch of one row as its `values` came, None or NaN for a missing one. `numbers` is made when it is first read."""

    __slots__ = ("values",)
    values: Sequence[float | None]

    def __init__(self, values: Sequence[float | None], texts: tuple[tuple[str | None, ...], ...] = ()) -> None:
        self.rows, self.values, self.texts = 1, values, texts

    if not TYPE_CHECKING:  # which knows the attributes by their names

        def __getattr__(self, name: str) -> Any:
            """Of what has not been set."""
            if name != "numbers":
                raise AttributeError(name)
            self.numbers = np.array((self.values,), dtype=np.float64)
            return self.numbers


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

    @property
    def first(self) -> Said:
        """What was said of the first row."""
        return next(self.each())

    def each(self) -> Iterator[Said]:
        """What was said of each row."""
        columns = (self.labels, self.probabilities, self.values)
        rows = next((len(column) for column in columns if column is not None), 0)
        return zip(*(repeat(None, rows) if column is None else column.tolist() for column in columns), strict=True)


class RowScores(Scores):
    """The scores of one row, as they were said: `first`. The arrays are made when one of them is first read."""

    __slots__ = ("first",)
    first: Said

    def __init__(self, said: Said) -> None:
        self.first = said

    def each(self) -> Iterator[Said]:
        return iter((self.first,))

    if not TYPE_CHECKING:  # which knows the attributes by their names

        def __getattr__(self, name: str) -> Any:
            """Of what has not been set."""
            if name not in {"labels", "probabilities", "values"}:
                raise AttributeError(name)
            label, probabilities, value = self.first
            self.labels = None if label is None else np.array((label,), dtype=np.int32)
            self.probabilities = None if probabilities is None else np.array((probabilities,), dtype=np.float64)
            self.values = None if value is None else np.array((value,), dtype=np.float64)
            return getattr(self, name)
