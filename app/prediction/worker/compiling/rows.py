"""The rows on which a graph is proved: the sample, and more than a thousand made around it. The same seed, so the same rows each time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from app.kernel.signature import Column, ColumnType, Signature
from app.kernel.tensors import Batch
from app.prediction.compiled.inputs import LARGEST_PROVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SAMPLE_ROWS, PERTURBED_ROWS, THRESHOLD_ROWS, FAR_ROWS, MIXED_ROWS = 200, 700, 600, 200, 200
_EXTREMES = (0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 1e-7, 1e7, -1e7, 1e15, -1e15, LARGEST_PROVED, -LARGEST_PROVED)
_LARGEST_WHOLE = 2.0**53
_UNSEEN = "a category that nobody has seen"
_MOST_ALONE = 40  # columns that are varied one at a time


class RowMaker:
    """`ordinary`: how many rows at the start are such as clients send; the others look for trouble."""

    def __init__(
        self, signature: Signature, base: Batch, thresholds: dict[int, NDArray[np.float64]], categories: Sequence[tuple[str, ...]]
    ) -> None:
        """`base`: the sample, at least one row. `thresholds`: by position in the signature. `categories`: those known of each text."""
        self._rng = np.random.default_rng(20_261_121)
        self._signature = signature
        self._numeric = [(i, c) for i, c in enumerate(signature.columns) if c.type is not ColumnType.STRING]
        self._textual = [c for c in signature.columns if c.type is ColumnType.STRING]
        self._thresholds = [thresholds.get(i, np.empty(0)) for i, _ in self._numeric]
        self._choices = [self._texts_to_try(c, known) for c, known in zip(self._textual, categories, strict=True)]
        self._base = base
        self._spread = self._spreads()
        self._numbers: list[NDArray[np.float64]] = []
        self._texts: list[tuple[str | None, ...]] = []
        self.ordinary = 0

    def batch(self) -> Batch:
        """All rows; each would pass the check of a request."""
        self._take(np.arange(min(self._base.rows, SAMPLE_ROWS)))
        self._perturbed()
        self.ordinary = len(self._numbers)
        self._on_thresholds()
        self._far()
        self._one_at_a_time()
        self._mixed()
        numbers = np.array(self._numbers, dtype=np.float64).reshape(len(self._numbers), len(self._numeric))
        for k, (_, column) in enumerate(self._numeric):
            numbers[:, k] = _fitting(column, numbers[:, k], self._base.numbers[0, k])
        texts = tuple(tuple(column) for column in zip(*self._texts, strict=True)) if self._textual else ()
        return Batch(len(numbers), numbers, texts)

    def _spreads(self) -> NDArray[np.float64]:
        """How far each number varies: over the sample, between thresholds, or by its own size."""
        spreads = []
        for k in range(len(self._numeric)):
            values = np.concatenate([self._base.numbers[:, k], self._thresholds[k]])
            values = values[np.isfinite(values)]
            spread = float(values.std()) if len(values) > 1 else 0.0
            spreads.append(spread or max(1.0, float(np.abs(values).max(initial=0.0))))
        return np.array(spreads)

    def _texts_to_try(self, column: Column, known: tuple[str, ...]) -> list[str | None]:
        allowed: list[str | None] = list(column.categories) if column.categories is not None else [*known, _UNSEEN, "", "ÅŁ東"]
        return allowed if column.required else [*allowed, None]

    # --- kinds of rows

    def _add(self, row: NDArray[np.float64], texts: tuple[str | None, ...]) -> None:
        self._numbers.append(row)
        self._texts.append(texts)

    def _row(self, i: int) -> tuple[NDArray[np.float64], tuple[str | None, ...]]:
        return self._base.numbers[i].copy(), tuple(column[i] for column in self._base.texts)

    def _take(self, rows: NDArray[np.intp]) -> None:
        for i in rows.tolist():
            self._add(*self._row(i))

    def _any_row(self) -> tuple[NDArray[np.float64], tuple[str | None, ...]]:
        return self._row(int(self._rng.integers(self._base.rows)))

    def _perturbed(self) -> None:
        for _ in range(PERTURBED_ROWS):
            row, texts = self._any_row()
            moved = self._rng.random(len(row)) < 0.7
            row = np.where(moved, row + self._rng.normal(size=len(row)) * self._spread, row)
            self._add(row, self._changed(texts, 0.5))

    def _changed(self, texts: tuple[str | None, ...], share: float) -> tuple[str | None, ...]:
        changed = []
        for text, choices in zip(texts, self._choices, strict=True):
            other = choices[int(self._rng.integers(len(choices)))] if choices else text
            changed.append(other if self._rng.random() < share else text)
        return tuple(changed)

    def _on_thresholds(self) -> None:
        columns = [k for k in range(len(self._numeric)) if len(self._thresholds[k])]
        for n in range(THRESHOLD_ROWS if columns else 0):
            k = columns[n % len(columns)]
            row, texts = self._any_row()
            row[k] = _beside(float(self._rng.choice(self._thresholds[k])), n // len(columns))
            self._add(row, texts)

    def _far(self) -> None:
        """All columns at once far from where they usually are: large numbers that cancel out show what a graph rounds."""
        for _ in range(FAR_ROWS):
            row, texts = self._any_row()
            away = 10.0 ** self._rng.uniform(0.5, 8)
            self._add(row + self._rng.normal(size=len(row)) * self._spread * away, texts)

    def _one_at_a_time(self) -> None:
        """Each column by itself at its extremes and missing; of very many columns, some."""
        chosen = np.arange(len(self._numeric))
        if len(chosen) > _MOST_ALONE:
            chosen = np.sort(self._rng.choice(chosen, _MOST_ALONE, replace=False))
        for k in chosen.tolist():
            for value in (*_EXTREMES, np.nan):
                row, texts = self._row(0)
                row[k] = value
                self._add(row, texts)
        for k, choices in enumerate(self._choices[:_MOST_ALONE]):
            for text in choices[:100]:
                row, texts = self._row(0)
                self._add(row, (*texts[:k], text, *texts[k + 1 :]))

    def _mixed(self) -> None:
        """Many columns at once: missing, extreme, on thresholds."""
        for _ in range(MIXED_ROWS):
            row, texts = self._any_row()
            what = self._rng.random(len(row))
            extreme = self._rng.choice(_EXTREMES, size=len(row))
            row = np.where(what < 0.15, np.nan, np.where(what < 0.3, extreme, row))
            for k in np.flatnonzero(what > 0.7):
                if len(self._thresholds[k]):
                    row[k] = _beside(float(self._rng.choice(self._thresholds[k])), int(self._rng.integers(7)))
            self._add(row, self._changed(texts, 0.5))


def _beside(value: float, which: int) -> float:
    """The value or a neighbour of it, among numbers of 64 bits and of 32."""
    narrow = np.float32(np.clip(value, -LARGEST_PROVED, LARGEST_PROVED))
    beside: tuple[Any, ...] = (
        value,
        np.nextafter(value, np.inf),
        np.nextafter(value, -np.inf),
        narrow,
        np.nextafter(narrow, np.float32(np.inf)),
        np.nextafter(narrow, np.float32(-np.inf)),
        (value + float(narrow)) / 2,
    )
    return float(beside[which % len(beside)])


def _fitting(column: Column, values: NDArray[np.float64], otherwise: float) -> NDArray[np.float64]:
    """The values as a request may hold them: of the column's type, within its bounds, missing only where that is allowed."""
    missing = np.isnan(values)
    fitting = np.clip(np.where(missing, 0.0, values), -LARGEST_PROVED, LARGEST_PROVED)
    if column.type is ColumnType.BOOLEAN:
        fitting = (fitting > 0.5).astype(np.float64)
    elif column.type is ColumnType.INTEGER:
        fitting = np.clip(np.rint(fitting), -_LARGEST_WHOLE, _LARGEST_WHOLE)
    low = -np.inf if column.minimum is None else column.minimum
    high = np.inf if column.maximum is None else column.maximum
    fitting = np.clip(fitting, low, high)
    return np.where(missing, otherwise if column.required else np.nan, fitting)
