"""Always valid: a confidence sequence of the difference for monitoring, and its one-sided brother for guardrails.

An interval of the sequence may be looked at after every unit: the chance that any of them ever misses the true difference is at
most alpha (asymptotically). The price is width. One parameter says at how many units of both arms together it is narrowest; that is
where the experiment is planned to end, or 5,000. Any other choice is valid as well: at ten times as many units the interval is 7 %
wider than it could be, at a tenth of them 27 %.

Source: I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy, A. Ramdas, Time-uniform central limit theory and asymptotic confidence
sequences, Ann. Statist. 52 (2024) 2613-2640; equations 9, 155 and 161 of arXiv 2103.06476v7, and its appendix on one side.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from app.experiments.stats.types import Interval
from app.experiments.types import MetricDirection, MetricKind

if TYPE_CHECKING:
    from app.experiments.stats.differences import Difference
    from app.experiments.stats.moments import Moments

TUNED_AT = 5000.0
GUARDRAIL_ALPHA = 0.01
LEAST_UNITS = 50  # an arm
LEAST_EVENTS = 10  # of the two arms together: five an arm


def has_begun(control: Moments | None, arm: Moments | None, kind: MetricKind) -> bool:
    """Whether there are units enough for a theory of many: 50 an arm, and for proportions 10 units of either answer in both arms together.

    Together, since a guardrail is there for the arm that breaks what control never does.
    """
    if control is None or arm is None or min(control.n, arm.n) < LEAST_UNITS:
        return False
    if kind is not MetricKind.PROPORTION:
        return True
    events = round(control.mean * control.n) + round(arm.mean * arm.n)
    return LEAST_EVENTS <= events <= control.n + arm.n - LEAST_EVENTS


def confidence_sequence(difference: Difference, alpha: float = 0.05, tuned_at: float = TUNED_AT) -> Interval:
    """Two-sided interval of the difference, valid at every moment at once."""
    width = _width(difference, math.log(1 / alpha), _rho_squared(alpha, tuned_at))
    return Interval(difference.value - width, difference.value + width)


def sequential_p_value(difference: Difference, alpha: float = 0.05, tuned_at: float = TUNED_AT) -> float:
    """Always-valid p-value: at most alpha exactly where the confidence sequence of that alpha leaves 0 out."""
    units, rho_squared = _units(difference), _rho_squared(alpha, tuned_at)
    grown = units * rho_squared + 1
    evidence = rho_squared * difference.value**2 * units / difference.variance / (2 * grown) - math.log(grown) / 2
    return math.exp(-max(evidence, 0.0))


def lower_bound(difference: Difference, alpha: float = GUARDRAIL_ALPHA, tuned_at: float = TUNED_AT) -> float:
    """The difference stays above this bound at every moment at once, but for a chance of alpha."""
    rho_squared = _rho_squared(min(2 * alpha, 0.5), tuned_at)
    grown = _units(difference) * rho_squared + 1
    # log(1 + √grown/2a) instead of log(√grown/a); the second term of the width's logarithm is put in by _width.
    return difference.value - _width(difference, math.log(1 / math.sqrt(grown) + 1 / (2 * alpha)), rho_squared)


def upper_bound(difference: Difference, alpha: float = GUARDRAIL_ALPHA, tuned_at: float = TUNED_AT) -> float:
    """The difference stays below this bound at every moment at once, but for a chance of alpha."""
    return 2 * difference.value - lower_bound(difference, alpha, tuned_at)


def is_harmful(difference: Difference, direction: MetricDirection, alpha: float = GUARDRAIL_ALPHA, tuned_at: float = TUNED_AT) -> bool:
    """Whether the arm is worse than control in the metric's direction, said with an error of alpha over all moments together."""
    if direction is MetricDirection.INCREASE:
        return upper_bound(difference, alpha, tuned_at) < 0
    return lower_bound(difference, alpha, tuned_at) > 0


def _units(difference: Difference) -> int:
    return difference.control.n + difference.arm.n


def _rho_squared(alpha: float, tuned_at: float) -> float:
    spent = -2 * math.log(alpha)
    return (spent + math.log(spent + 1)) / tuned_at


def _width(difference: Difference, log_odds: float, rho_squared: float) -> float:
    scaled = _units(difference) * rho_squared
    return math.sqrt(difference.variance * 2 * (scaled + 1) / scaled * (log_odds + math.log(scaled + 1) / 2))
