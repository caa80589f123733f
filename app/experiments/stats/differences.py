"""Difference and lift of an arm against control: Welch's test, with an interval at whatever critical value a plan asks for.

Proportions take the same road: a unit's value is 0 or 1, and its variance p(1-p)·n/(n-1). There is no difference before two units
an arm, nor while neither arm varies; with a handful of units the t distribution makes the interval as wide as it has to be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.special import ndtr, ndtri, stdtr, stdtrit

from app.experiments.stats.types import Interval

if TYPE_CHECKING:
    from app.experiments.stats.moments import Moments

_SMALLEST_P = 1e-300  # beyond it a quantile is no longer a number; a z of 37 says enough


@dataclass(frozen=True, slots=True)
class Difference:
    """`value`: arm minus control. `degrees`: of freedom, Welch-Satterthwaite. `z`: the normal deviate that is as rare as the
    t statistic, signed; `p_value`: two-sided, for one test without looks.
    """

    control: Moments
    arm: Moments
    value: float
    variance: float
    degrees: float
    z: float
    p_value: float

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class Lift:
    """Relative difference: 0.05 is 5 % above control."""

    value: float
    low: float
    high: float


def compare(control: Moments | None, arm: Moments | None) -> Difference | None:
    """Arm against control, or None where nothing can be said: fewer than two units an arm, or no variance in either.

    Source: B. L. Welch, Biometrika 34 (1947) 28-35; F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110-114.
    """
    if control is None or arm is None or control.variance is None or arm.variance is None:
        return None
    ours, theirs = control.variance / control.n, arm.variance / arm.n
    variance = ours + theirs
    if not variance > 0:
        return None
    # As shares of the whole: squares of very small variances would vanish.
    ours, theirs = ours / variance, theirs / variance
    degrees = 1 / (ours**2 / (control.n - 1) + theirs**2 / (arm.n - 1))
    value = arm.mean - control.mean
    p_value = 2 * float(stdtr(degrees, -abs(value) / math.sqrt(variance)))
    z = math.copysign(-float(ndtri(max(p_value, _SMALLEST_P) / 2)), value)
    return Difference(control, arm, value, variance, degrees, z, p_value)


def difference_interval(difference: Difference, critical_z: float) -> Interval:
    """The interval that leaves 0 out exactly where |z| is above `critical_z`; 1.96 makes it the usual one of 95 %."""
    width = _critical_t(difference, critical_z) * difference.standard_error
    return Interval(difference.value - width, difference.value + width)


def lift(difference: Difference, critical_z: float) -> Lift | None:
    """Relative difference with Fieller's interval, which leaves 0 out exactly where the difference's does.

    None where control's mean is not above 0, or not significantly at the same critical value: a ratio to what may be nothing
    has no interval.

    Source: E. C. Fieller, J. R. Statist. Soc. B 16 (1954) 175-185.
    """
    ours, theirs = difference.control, difference.arm
    square = _critical_t(difference, critical_z) ** 2
    control_variance, arm_variance = ours.mean_variance, theirs.mean_variance
    if control_variance is None or arm_variance is None:
        return None
    below = ours.mean**2 - square * control_variance
    if ours.mean <= 0 or below <= 0:
        return None
    middle = ours.mean * theirs.mean
    spread = math.sqrt(
        square * (ours.mean**2 * arm_variance + theirs.mean**2 * control_variance - square * control_variance * arm_variance)
    )
    return Lift(difference.value / ours.mean, (middle - spread) / below - 1, (middle + spread) / below - 1)


def _critical_t(difference: Difference, critical_z: float) -> float:
    return -float(stdtrit(difference.degrees, float(ndtr(-critical_z))))
