"""What a compiled graph answered, as scores. Pure: the proof and the serving process use the same code.

The layout is in the names of the graph's outputs: `values` (rows, 1) for regressors; `probabilities` (rows, classes) for
classifiers whose predict is the likeliest class; `labels` (rows,) int64, indices into the classes, where it is another, with
`probabilities` where the estimator has them, and `margins` (rows, classes), or (rows, 1) of two classes, where it has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from app.kernel.signature import Task
from app.kernel.tensors import RowScores, Scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

VALUES, PROBABILITIES, LABELS, MARGINS = "values", "probabilities", "labels", "margins"
LAYOUTS = ((VALUES,), (PROBABILITIES,), (LABELS, PROBABILITIES), (LABELS, MARGINS))
PROBABILITY_TOLERANCE = 1e-5  # the most that a probability may be off by; the setting is far stricter unless somebody loosens it
VALUE_TOLERANCE = 1e-5  # likewise, of regressors, relative to how far their answers are apart
_TOO_CLOSE = 2 * PROBABILITY_TOLERANCE  # each of two probabilities may be off by the tolerance, in opposite directions
_INFINITE = float("inf")
_NO_DOUBT: NDArray[np.intp] = np.empty(0, dtype=np.intp)
_DOUBTED: NDArray[np.intp] = np.zeros(1, dtype=np.intp)  # the one row


class Malformed(Exception):
    """The graph's outputs are not laid out as this module says; the text says how."""


class Answer(NamedTuple):
    """`doubtful`: the rows, by number, whose answer is not finite, or whose two likeliest classes are so close that the
    estimator may say the other one: the estimator itself must answer these. Their scores mean nothing.
    """

    scores: Scores
    doubtful: NDArray[np.intp]


def read_answer(task: Task, classes: int, rows: int, outputs: Mapping[str, NDArray[Any]]) -> Answer:
    """The scores of `rows` rows; raises Malformed."""
    if task is Task.REGRESSION:
        values = _float64(outputs, VALUES, (rows, 1))[:, 0]
        return Answer(Scores(values=values), _NO_DOUBT if np.isfinite(values).all() else np.flatnonzero(~np.isfinite(values)))
    if LABELS not in outputs:
        probabilities = _float64(outputs, PROBABILITIES, (rows, classes))
        if rows == 1:
            return read_probabilities(probabilities)
        labels = probabilities.argmax(axis=1).astype(np.int32)
        return Answer(Scores(labels=labels, probabilities=probabilities), _unsure(probabilities, close=True))
    labels = outputs[LABELS].reshape(-1)
    if labels.dtype != np.int64 or labels.shape != (rows,) or (rows and not (labels.min() >= 0 and labels.max() < classes)):
        raise Malformed("The graph's labels are not one class a row.")
    labels = labels.astype(np.int32)
    if PROBABILITIES in outputs:
        probabilities = _float64(outputs, PROBABILITIES, (rows, classes))
        return Answer(Scores(labels=labels, probabilities=probabilities), _unsure(probabilities, close=False))
    if MARGINS not in outputs:
        raise Malformed("The graph gives labels alone.")
    margins = outputs[MARGINS].reshape(rows, -1).astype(np.float64)
    return Answer(Scores(labels=labels), _unsure(margins, close=True))


def read_probabilities(found: NDArray[Any]) -> Answer:
    """The scores of one row's probabilities (1, classes), of either float, which are copied."""
    probabilities: list[float] = found[0].tolist()
    scores = RowScores((probabilities.index(max(probabilities)), probabilities, None))
    return Answer(scores, _NO_DOUBT if _sure(probabilities, close=True) else _DOUBTED)


def read_each(task: Task, classes: int, rows: int, outputs: Mapping[str, NDArray[Any]]) -> list[Answer]:
    """As `read_answer`, each row's by itself."""
    scores, doubtful = read_answer(task, classes, rows, outputs)
    answers = [Answer(RowScores(said), _NO_DOUBT) for said in scores.each()]
    for row in doubtful.tolist():
        answers[row] = Answer(answers[row].scores, _DOUBTED)
    return answers


def _float64(outputs: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    found = outputs.get(name)
    if found is None or found.dtype.char not in "fd":
        raise Malformed(f"The graph gives no {name}.")
    if found.size != shape[0] * shape[1]:
        raise Malformed(f"The graph's {name} have the shape {found.shape}; expected {shape}.")
    return found.reshape(shape).astype(np.float64)


def _unsure(found: NDArray[np.float64], *, close: bool) -> NDArray[np.intp]:
    """Rows with a number that is not finite and, where `close`, with two largest numbers that differ by next to nothing."""
    if found.shape[0] == 1:  # plain numbers are faster than arrays of one row
        return _NO_DOUBT if _sure(found[0].tolist(), close=close) else _DOUBTED
    largest = float(np.abs(found).max(initial=0.0))  # NaN where there is one
    if largest < _INFINITE:
        if not close:
            return _NO_DOUBT
        second, first = _two_largest(found)
        if (first - second).min(initial=_INFINITE) > _TOO_CLOSE * max(1.0, largest):  # as of most batches: no row needs a look of its own
            return _NO_DOUBT
    bad = ~np.isfinite(found).all(axis=1)
    if close:
        with np.errstate(invalid="ignore"):
            second, first = _two_largest(found)
            bad |= ~(first - second > _TOO_CLOSE * np.maximum(1.0, np.maximum(first, -second)))
    return np.flatnonzero(bad)


def _two_largest(found: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each row's second largest number, and its largest; of one margin alone nothing, and how far it is from there."""
    if found.shape[1] == 1:
        return np.zeros(len(found)), np.abs(found[:, 0])
    if found.shape[1] == 2:  # in a third of the time that sorting takes
        return np.minimum(found[:, 0], found[:, 1]), np.maximum(found[:, 0], found[:, 1])
    second, first = np.partition(found, -2, axis=1)[:, -2:].T
    return second, first


def _sure(numbers: list[float], *, close: bool) -> bool:
    if not abs(sum(numbers)) < _INFINITE:  # one that is not finite makes the sum so
        return False
    if not close:
        return True
    if len(numbers) == 1:
        return abs(numbers[0]) > _TOO_CLOSE * max(1.0, abs(numbers[0]))
    second, first = sorted(numbers)[-2:]
    return first - second > _TOO_CLOSE * max(1.0, first, -second)
