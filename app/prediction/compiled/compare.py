"""Whether a graph answers as its estimator does. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.kernel.signature import Task
from app.prediction.compiled.outputs import PROBABILITY_TOLERANCE, VALUE_TOLERANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from app.kernel.tensors import Scores

MARGIN = 4  # how many times closer than the tolerance a graph must be in the proof: other rows come than those that were tried
MOST_HANDED_BACK = 0.5  # of the ordinary rows; a graph that leaves more to the estimator is not worth having


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What a difference is measured by. See `Proof`."""

    tolerance: float
    middle: float = 0.0
    share: float = VALUE_TOLERANCE  # of an answer's distance from `middle`

    @classmethod
    def of(cls, task: Task, ordinary: Scores, share: float = VALUE_TOLERANCE) -> Yardstick:
        """From the estimator's answers to ordinary rows: how far the answers of a regressor are apart is its scale.

        `share`: how far a probability may be off, and a number in shares of that scale; at most the module's own bounds.
        """
        if task is Task.CLASSIFICATION or ordinary.values is None or not ordinary.values.size:
            return cls(min(share, PROBABILITY_TOLERANCE) if task is Task.CLASSIFICATION else 0.0)
        low, middle, high = (float(x) for x in np.quantile(ordinary.values, (0.05, 0.5, 0.95)))
        scale = (high - low) or float(np.abs(ordinary.values - middle).max()) or abs(middle)
        return cls(min(share, VALUE_TOLERANCE) * scale, middle, min(share, VALUE_TOLERANCE))

    def allowed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far from each of the estimator's answers a graph's may be."""
        return np.asarray(np.maximum(self.tolerance, self.share * np.abs(values - self.middle)))


@dataclass(frozen=True, slots=True)
class Comparison:
    """`fault`: what is wrong with the graph's answers, in words; None: nothing."""

    fault: str | None
    largest_difference: float


def difference(native: Scores, compiled: Scores, yardstick: Yardstick, margin: int = 1) -> Comparison:
    """Compares the same rows, answered by the estimator and by the graph; `margin`: how many times closer than allowed they must be."""
    if native.labels is not None:
        if compiled.labels is None or (native.probabilities is None) != (compiled.probabilities is None):
            return Comparison("the graph gives other kinds of answers than the estimator", np.inf)
        wrong = int((native.labels != compiled.labels).sum())
        if wrong:
            return Comparison(f"another class than scikit-learn's on {wrong} of {len(native.labels)} rows", np.inf)
        if native.probabilities is None or compiled.probabilities is None:
            return Comparison(None, 0.0)
        largest = float(np.abs(native.probabilities - compiled.probabilities).max(initial=0.0))
        return _judged(largest, exceeds=not largest <= yardstick.tolerance / margin, tolerance=yardstick.tolerance / margin)
    if native.values is None or compiled.values is None:
        return Comparison("the graph gives other kinds of answers than the estimator", np.inf)
    off = np.abs(native.values - compiled.values)
    allowed = yardstick.allowed(native.values)
    excess = ~(off <= allowed / margin)
    usual = off[allowed == yardstick.tolerance]
    largest = float((off[excess] if excess.any() else usual).max(initial=0.0))
    return _judged(largest, exceeds=bool(excess.any()), tolerance=yardstick.tolerance / margin)


def _judged(largest: float, *, exceeds: bool, tolerance: float) -> Comparison:
    fault = f"an answer {largest:.2g} from scikit-learn's, where {tolerance:.2g} is allowed" if exceeds else None
    return Comparison(fault, largest)


def rows_of(scores: Scores, rows: NDArray[np.intp]) -> Scores:
    """These rows of the scores."""
    return type(scores)(
        labels=None if scores.labels is None else scores.labels[rows],
        probabilities=None if scores.probabilities is None else scores.probabilities[rows],
        values=None if scores.values is None else scores.values[rows],
    )
