"""Mean, variance and standard error of one arm, per unit, from exact sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.experiments.stats.types import exact, quotient
from app.experiments.types import MetricAggregation

if TYPE_CHECKING:
    from app.experiments.stats.types import ArmSums, Exact

SILENT_COUNT_ZERO = frozenset({MetricAggregation.ANY, MetricAggregation.SUM})


@dataclass(frozen=True, slots=True)
class Moments:
    """`n` units, their mean and the variance of one unit (divisor n - 1; None below two units)."""

    n: int
    mean: float
    variance: float | None

    @property
    def mean_variance(self) -> float | None:
        """Variance of the mean."""
        return None if self.variance is None else self.variance / self.n

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean; None below two units."""
        return None if self.variance is None else math.sqrt(self.variance / self.n)


def units_analysed(sums: ArmSums, aggregation: MetricAggregation) -> int:
    """How many units enter the mean: all of them under ANY and SUM, those with a value under MEAN and LAST."""
    return sums.units if aggregation in SILENT_COUNT_ZERO else sums.counted


def moments(n: int, total: Exact, squares: Exact) -> Moments | None:
    """Moments from n, Σy and Σy², centred as fractions before they become floats. None without units."""
    if n == 0:
        return None
    # Whole numbers are exact as they are, and a good deal quicker than fractions of them.
    y, yy = (number if isinstance(number, int) else exact(number) for number in (total, squares))
    if n == 1:
        return Moments(n, quotient(y), None)
    # Sums that were rounded before they came here may leave a little less than nothing.
    centred = max(n * yy - y * y, 0)
    return Moments(n, quotient(y, n), quotient(centred, n * (n - 1)))


def arm_moments(sums: ArmSums, aggregation: MetricAggregation) -> Moments | None:
    """Moments of an arm under an aggregation; silent units add nothing to either sum, and count or not as it says."""
    return moments(units_analysed(sums, aggregation), sums.total, sums.squares)
