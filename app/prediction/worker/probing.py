"""Tries an estimator out: on a row that it answers, and on that row with each column missing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from app.kernel.signature import Column, ColumnType, Signature
from app.kernel.tensors import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from app.prediction.worker.columns import Hint

_BUDGET_S = 5.0
_NUMBERS_TO_TRY = (0.0, 1.0, 0.5, 100.0)


def rows_of(batch: Batch) -> Iterator[Batch]:
    """Each row as a batch of its own."""
    for i in range(batch.rows):
        yield Batch(1, batch.numbers[i : i + 1], tuple((column[i],) for column in batch.texts))


def base_batch(call: Callable[[Batch], Any], signature: Signature, hints: dict[int, Hint], sample: Batch | None) -> Batch:
    """One row that the estimator answers: the sample's fullest, else one made up; raises its last error where it answers none."""
    if sample is not None and sample.rows:
        gaps = np.isnan(sample.numbers).sum(axis=1) + sum(
            (np.array([value is None for value in column]) for column in sample.texts), np.zeros(sample.rows)
        )
        return list(rows_of(sample))[int(np.argmin(gaps))]
    for number in _NUMBERS_TO_TRY[:-1]:
        row = _made_up(signature, hints, number)
        if _answers(call, row):
            return row
    row = _made_up(signature, hints, _NUMBERS_TO_TRY[-1])
    call(row)
    return row


def find_optional(call: Callable[[Batch], Any], signature: Signature, base: Batch, wanted: Sequence[int]) -> frozenset[int]:
    """Which of the `wanted` columns may be missing: the estimator still answers the base row without them.

    Many columns are tried in one call and halved where it fails. What is not tried in five seconds is held to be required.
    """
    until = time.monotonic() + _BUDGET_S
    optional: set[int] = set()
    waiting = [list(wanted)] if wanted else []
    while waiting and time.monotonic() < until:
        group = waiting.pop()
        if _answers(call, _with_gaps(signature, base, group)):
            optional.update(group)
        elif len(group) > 1:
            middle = len(group) // 2
            waiting += [group[:middle], group[middle:]]
    return frozenset(optional)


def _answers(call: Callable[[Batch], Any], batch: Batch) -> bool:
    try:
        call(batch)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  whatever it says, it does not answer
        return False
    return True


def _with_gaps(signature: Signature, base: Batch, columns: Sequence[int]) -> Batch:
    """One copy of the base row for each of the columns, with that column missing."""
    numbers = np.repeat(base.numbers, len(columns), axis=0)
    texts = [[column[0]] * len(columns) for column in base.texts]
    place = {}
    number = text = 0
    for i, column in enumerate(signature.columns):
        if column.type is ColumnType.STRING:
            place[i] = ("text", text)
            text += 1
        else:
            place[i] = ("number", number)
            number += 1
    for row, i in enumerate(columns):
        kind, at = place[i]
        if kind == "text":
            texts[at][row] = None
        else:
            numbers[row, at] = np.nan
    return Batch(len(columns), numbers, tuple(map(tuple, texts)))


def _made_up(signature: Signature, hints: dict[int, Hint], number: float) -> Batch:
    numbers, texts = [], []
    for i, column in enumerate(signature.columns):
        hint = hints.get(i)
        example = hint.example if hint is not None else None
        if column.type is ColumnType.STRING:
            texts.append((_text(column, example),))
        elif isinstance(example, bool | int | float):
            numbers.append(float(example))
        else:
            numbers.append(_clamped(column, number))
    return Batch(1, np.array([numbers], dtype=np.float64).reshape(1, len(numbers)), tuple(texts))


def _text(column: Column, example: Any) -> str:
    if column.categories:
        return column.categories[0]
    return example if isinstance(example, str) else "text"


def _clamped(column: Column, number: float) -> float:
    if column.type is ColumnType.BOOLEAN:
        return 0.0
    low = -np.inf if column.minimum is None else column.minimum
    high = np.inf if column.maximum is None else column.maximum
    return float(min(max(number, low), high))
