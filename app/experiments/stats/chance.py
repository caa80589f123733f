"""Chance to beat control, for reading only: a rule that stops on it errs about as often as one that peeks at plain p-values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import betainc, betaincc, betainccinv, betaincinv, ndtr

if TYPE_CHECKING:
    from collections.abc import Callable

_TAIL = 1e-15
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def normal_chance(difference: float, variance: float) -> float:
    """Chance that the true difference is above 0: normal posterior of the difference of two means under a flat prior."""
    return float(ndtr(difference / math.sqrt(variance)))


def beta_chance(control_events: float, control_units: int, arm_events: float, arm_units: int) -> float:
    """Chance that the arm's true proportion is above control's: beta posteriors under uniform priors, by quadrature; no random draws.

    Source: the integral of one posterior's density times the other's tail, as in A. Gelman et al., Bayesian Data Analysis,
    chapter 2; Gauss-Legendre over the narrower posterior, so that the other is smooth across it.
    """
    control, arm = _posterior(control_events, control_units), _posterior(arm_events, arm_units)
    if _variance(control) <= _variance(arm):
        return _mean_over(control, lambda x: betaincc(*arm, x))
    return _mean_over(arm, lambda x: betainc(*control, x))


def _posterior(events: float, units: int) -> tuple[float, float]:
    return 1.0 + events, 1.0 + units - events


def _variance(posterior: tuple[float, float]) -> float:
    a, b = posterior
    return a * b / ((a + b) ** 2 * (a + b + 1))


def _mean_over(posterior: tuple[float, float], function: Callable[[np.ndarray], np.ndarray]) -> float:
    a, b = posterior
    low, high = float(betaincinv(a, b, _TAIL)), float(betainccinv(a, b, _TAIL))
    x = low + (high - low) * (_NODES + 1) / 2
    log_density = (a - 1) * np.log(x) + (b - 1) * np.log1p(-x)
    # Divided by its own sum, so the beta function, which loses digits with millions of units, is not needed.
    density = _WEIGHTS * np.exp(log_density - log_density.max())
    return float(np.sum(density * function(x)) / np.sum(density))
