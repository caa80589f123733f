"""Planned looks: O'Brien-Fleming boundaries, and p-values that count the looks in.

At look k of K the statistic z_k decides where |z_k| reaches C·√(K/k). In sums S_k = √k·z_k, whose steps are independent standard
normals, that boundary is a flat C·√K, so the chance to cross it comes from one density carried from look to look.
Looks are taken at equal steps of information; a missed one only makes the test stricter.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.polynomial.chebyshev import Chebyshev
from scipy.special import ndtr, ndtri

from app.errors import InvalidInput
from app.experiments.stats.roots import root

_FAR = 8.0  # beyond it a p-value is below 1e-14
_DEGREE = 128


def crossing_probability(constant: float, looks: int, drift: float = 0.0) -> float:
    """Chance that a boundary with this constant is crossed at any of the looks, on either side. `drift`: mean of z at the last look.

    Source: P. Armitage, C. K. McPherson, B. C. Rowe, J. R. Statist. Soc. A 132 (1969) 235-244 (the recursion); C. Jennison,
    B. W. Turnbull, Group Sequential Methods (2000), chapter 19 (its quadrature).
    """
    edge, step = constant * math.sqrt(looks), drift / math.sqrt(looks)
    nodes, weights = _quadrature(64 * math.ceil((48 + 8 * edge) / 64))  # few sizes, since making nodes takes longest
    places, weights = nodes * edge, weights * edge
    beyond = ndtr(places + step - edge) + ndtr(-places - step - edge)
    density = _normal_density(places - step)
    carried = _normal_density(places[:, None] - places[None, :] - step) * weights
    crossed = float(ndtr(step - edge) + ndtr(-step - edge))
    for _ in range(looks - 1):
        crossed += float(np.sum(weights * density * beyond))
        density = carried @ density
    return min(crossed, 1.0)


@lru_cache(maxsize=1024)
def final_boundary(looks: int, alpha: float = 0.05) -> float:
    """The constant C: critical |z| at the last of `looks` looks, two-sided alpha.

    Source: P. C. O'Brien, T. R. Fleming, Biometrics 35 (1979) 549-556.
    """
    if looks < 1 or not 0 < alpha < 1:
        raise InvalidInput("Boundaries need at least one look and an alpha between 0 and 1.")
    least = -float(ndtri(alpha / 2))
    if looks == 1:
        return least
    # Without any correction the boundary is too low, with one for as many independent looks too high.
    most = -float(ndtri(alpha / (2 * looks)))
    return root(lambda constant: crossing_probability(constant, looks) - alpha, least, most, within=1e-12)


def boundary(look: int, looks: int, alpha: float = 0.05) -> float:
    """Critical |z| at look `look` (from 1) of `looks`."""
    if not 1 <= look <= looks:
        raise InvalidInput(f"Look {look} is not one of {looks} planned ones.")
    return final_boundary(looks, alpha) * math.sqrt(looks / look)


def planned_p_value(z: float, look: int, looks: int) -> float:
    """Two-sided p-value of z at a look that counts all planned looks in: at most alpha exactly where the boundary of alpha is reached.

    It is the chance, without any effect, that the boundary of this family which z just touches is crossed at any look. So the
    smallest one over the looks is a p-value as well: whoever acts at whichever look errs with at most alpha.
    """
    if not 1 <= look <= looks:
        raise InvalidInput(f"Look {look} is not one of {looks} planned ones.")
    constant = abs(z) * math.sqrt(look / looks)
    plain = 2 * float(ndtr(-constant))
    if looks == 1:
        return plain
    # Past the table its last entry is an upper bound: the ratio falls with the distance.
    return min(plain * float(_ratio(looks)(min(constant, _FAR))), 1.0)


@lru_cache(maxsize=128)
def _ratio(looks: int) -> Chebyshev:
    # How many times likelier any look crosses than the last one alone: between 1 and 2, and smooth, so a polynomial holds it.
    def ratio(constants: np.ndarray) -> np.ndarray:
        return np.array([crossing_probability(constant, looks) / (2 * ndtr(-constant)) for constant in constants])

    return Chebyshev.interpolate(ratio, _DEGREE, domain=[0.0, _FAR])


@lru_cache(maxsize=256)
def _quadrature(points: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(points)


def _normal_density(x: np.ndarray) -> np.ndarray:
    density: np.ndarray = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return density
