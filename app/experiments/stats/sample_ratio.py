"""Sample ratio: is the split what was asked for? Once at a planned moment, and at any moment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc, gammaln

from app.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

ALARM = 0.001
LEAST_EXPECTED = 5  # units an arm, below which chi-square's distribution does not hold
_CONCENTRATION = 100.0


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """`p_value` is the smallest of the checks that were due, None where none was; `ok` is False exactly where it is below 0.001.

    `sequential_p_value`: of the units now, valid at any moment. `fixed_p_value`: of the units at the last look.
    """

    p_value: float | None
    ok: bool
    sequential_p_value: float
    fixed_p_value: float | None


def chi_square(counts: Sequence[int], weights: Sequence[float]) -> float | None:
    """p-value of the counts against the weights, for one planned moment; None while an arm expects fewer than 5 units.

    Source: K. Pearson, Phil. Mag. 50 (1900) 157-175; alarm at 0.001 as A. Fabijan et al., KDD 2019.
    """
    shares = _shares(counts, weights)
    total = sum(counts)
    expected = [share * total for share in shares]
    if min(expected) < LEAST_EXPECTED:
        return None
    statistic = sum((count - due) ** 2 / due for count, due in zip(counts, expected, strict=True))
    return float(chdtrc(len(expected) - 1, statistic))


def sequential_multinomial(counts: Sequence[int], weights: Sequence[float]) -> float:
    """p-value of the counts against the weights that stays valid however often it is looked at, from the first unit on.

    It is 1 over the Bayes factor of a Dirichlet mixture around the expected shares, whose expectation is at most 1 while the
    split is right; so by Ville's inequality it ever falls below a with a chance of at most a. The mixture weighs as much as
    100 units: a heavier one finds a gross departure later and a small one hardly sooner.

    Source: M. Lindon, A. Malek, Anytime-valid inference for multinomial count data, NeurIPS 2022.
    """
    shares = np.array(_shares(counts, weights))
    seen = np.array(counts, dtype=float)
    prior = shares * _CONCENTRATION
    evidence = gammaln(_CONCENTRATION) - gammaln(_CONCENTRATION + seen.sum())
    evidence += np.sum(gammaln(prior + seen) - gammaln(prior) - seen * np.log(shares))
    return min(math.exp(-float(evidence)), 1.0) if evidence > 0 else 1.0


def sample_ratio(now: Sequence[int], at_look: Sequence[int] | None, weights: Sequence[float]) -> SampleRatio:
    """Both checks of units an arm: the sequential one of those that came until now, the fixed one of those at the last look, if any."""
    sequential = sequential_multinomial(now, weights)
    fixed = None if at_look is None else chi_square(at_look, weights)
    due = [] if not sum(now) else [sequential]
    due += [] if fixed is None else [fixed]
    p_value = min(due, default=None)
    return SampleRatio(p_value, p_value is None or p_value >= ALARM, sequential, fixed)


def _shares(counts: Sequence[int], weights: Sequence[float]) -> list[float]:
    whole = sum(weights)
    if len(counts) != len(weights) or any(not weight > 0 for weight in weights):
        raise InvalidInput("A sample ratio needs one weight above 0 for each arm.")
    return [weight / whole for weight in weights]
