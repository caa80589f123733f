"""CUPED: the part of a metric that was foreseeable before the variants came in is taken out, and intervals shrink.

The covariate x is control's score on the unit's first exposed input, computed for every arm. A unit without one takes the mean of all
x, so that nothing is taken out of its value. That is fair only while such units are few and fall on all arms alike; otherwise the
values stay as they are, and the reason is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from scipy.special import chdtrc

from app.experiments.stats.moments import SILENT_COUNT_ZERO, Moments, arm_moments, units_analysed
from app.experiments.stats.types import exact, quotient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.experiments.stats.types import ArmSums
    from app.experiments.types import MetricAggregation

MOST_MISSING = 0.01
UNEQUAL = 0.001


@dataclass(frozen=True, slots=True)
class Adjustment:
    """`used`, and if not the `reason`. `missing`: share, 0 to 1, of analysed units without covariate. `arms`: moments to compare,
    adjusted where it is used and plain otherwise, in order; None for an arm without units.
    """

    used: bool
    reason: str | None
    theta: float | None
    missing: float | None
    arms: tuple[Moments | None, ...]


@dataclass(frozen=True, slots=True)
class _Covered:
    """Of one arm: n analysed units, `covered` of them with x; sums of y and y² over all of them, of the rest over the covered ones."""

    n: int
    covered: int
    y: Fraction
    yy: Fraction
    covered_y: Fraction
    x: Fraction
    xx: Fraction
    xy: Fraction


@dataclass(frozen=True, slots=True)
class _Centred:
    """Sums of squares and products about the arm's means, and what is left of x's mean after the pooled one is taken off."""

    n: int
    y_mean: Fraction
    x_mean: Fraction
    yy: Fraction
    xx: Fraction
    xy: Fraction


def adjust(arms: Sequence[ArmSums], aggregation: MetricAggregation) -> Adjustment:
    """Every arm's moments with the covariate taken out, theta pooled over the arms, or the plain ones and why.

    Theta is the slope within arms (as in an analysis of covariance), so an effect of the variants does not leak into it.

    Source: A. Deng, Y. Xu, R. Kohavi, T. Walker, Improving the sensitivity of online controlled experiments by utilizing
    pre-experiment data, WSDM 2013, equations 4 to 6.
    """
    plain = tuple(arm_moments(sums, aggregation) for sums in arms)
    if all(sums.covered == 0 for sums in arms):
        return Adjustment(False, "No unit has a covariate.", None, 1.0 if any(plain) else None, plain)
    covered = [_covered(sums, aggregation) for sums in arms]
    units = sum(arm.n for arm in covered)
    missing = None if units == 0 else sum(arm.n - arm.covered for arm in covered) / units
    reason = _reason_against(covered, missing)
    if reason is not None:
        return Adjustment(False, reason, None, missing, plain)
    pooled = sum((arm.x for arm in covered), Fraction(0)) / sum(arm.covered for arm in covered)
    centred = [_centre(arm, pooled) for arm in covered]
    spread = sum((arm.xx for arm in centred), Fraction(0))
    if spread <= 0:
        return Adjustment(False, "The covariate does not vary.", None, missing, plain)
    theta = exact(quotient(sum((arm.xy for arm in centred), Fraction(0)) / spread))
    return Adjustment(True, None, float(theta), missing, tuple(_adjusted(arm, theta) for arm in centred))


def _reason_against(covered: Sequence[_Covered], missing: float | None) -> str | None:
    if missing is None or all(arm.covered == 0 for arm in covered):
        return "No unit has a covariate."
    if min(arm.n for arm in covered) < 2:
        return "An arm has fewer than two units."
    if missing > MOST_MISSING:
        return f"{missing:.2%} of the units have no covariate; at most {MOST_MISSING:.0%} may be without."
    if _missing_alike(covered) < UNEQUAL:
        return "Units without a covariate do not fall on the arms alike."
    return None


def _missing_alike(covered: Sequence[_Covered]) -> float:
    # Chi-square of the table arms x (with, without).
    share = 1 - sum(arm.covered for arm in covered) / sum(arm.n for arm in covered)
    if share <= 0:
        return 1.0
    statistic = sum((arm.n - arm.covered - share * arm.n) ** 2 / (arm.n * share * (1 - share)) for arm in covered)
    return float(chdtrc(len(covered) - 1, statistic))


def _covered(sums: ArmSums, aggregation: MetricAggregation) -> _Covered:
    if aggregation in SILENT_COUNT_ZERO:  # silent units have y = 0 and keep their x
        covered, x, xx = sums.covered, sums.cov_total, sums.cov_squares
    else:
        covered, x, xx = sums.both, sums.both_cov_total, sums.both_cov_squares
    numbers = (sums.total, sums.squares, sums.both_total, x, xx, sums.cross)
    return _Covered(units_analysed(sums, aggregation), covered, *(exact(number) for number in numbers))


def _centre(arm: _Covered, pooled: Fraction) -> _Centred:
    # d = x - pooled mean, and 0 for a unit without x.
    d = arm.x - arm.covered * pooled
    dd = arm.xx - 2 * pooled * arm.x + arm.covered * pooled**2
    yd = arm.xy - pooled * arm.covered_y
    y_mean, d_mean = arm.y / arm.n, d / arm.n
    return _Centred(arm.n, y_mean, d_mean, arm.yy - arm.y * y_mean, dd - d * d_mean, yd - arm.y * d_mean)


def _adjusted(arm: _Centred, theta: Fraction) -> Moments:
    centred = max(arm.yy - 2 * theta * arm.xy + theta**2 * arm.xx, Fraction(0))
    return Moments(arm.n, quotient(arm.y_mean - theta * arm.x_mean), quotient(centred, arm.n - 1))
