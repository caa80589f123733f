"""Several questions at once: Holm over the arms of the primary metric, Benjamini-Hochberg over secondary metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class HolmStep:
    """`p_value`: adjusted, to be held against alpha itself. `level`: the alpha at which this question's own interval agrees
    with the answer: it leaves 0 out exactly where `rejected`.
    """

    p_value: float
    level: float
    rejected: bool


def holm(p_values: Sequence[float], alpha: float) -> list[HolmStep]:
    """Step-down over m questions, in their order: the chance of any false answer is at most alpha.

    Source: S. Holm, Scand. J. Statist. 6 (1979) 65-70.
    """
    count = len(p_values)
    order = sorted(range(count), key=p_values.__getitem__)
    adjusted: dict[int, float] = {}
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min((count - rank) * p_values[index], 1.0))
        adjusted[index] = highest
    rejected = sum(p_value <= alpha for p_value in adjusted.values())
    # A question that is no longer reached keeps the level at which the first one failed.
    level = {index: alpha / (count - min(rank, rejected, count - 1)) for rank, index in enumerate(order)}
    return [HolmStep(adjusted[index], level[index], adjusted[index] <= alpha) for index in range(count)]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in their order: taking those up to q keeps the expected share of false ones among them at q.

    Source: Y. Benjamini, Y. Hochberg, J. R. Statist. Soc. B 57 (1995) 289-300.
    """
    count = len(p_values)
    adjusted = [1.0] * count
    lowest = 1.0
    order = sorted(range(count), key=p_values.__getitem__)
    for rank, index in reversed(list(enumerate(order, 1))):
        lowest = min(lowest, p_values[index] * count / rank)
        adjusted[index] = lowest
    return adjusted
