"""Where a function of one number crosses zero. scipy.optimize knows too, and takes a second and 40 MiB of each process that imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_EPSILON = 2.0**-52


def root(of: Callable[[float], float], low: float, high: float, *, within: float) -> float:
    """A place between `low` and `high` where `of`, which is continuous, changes its sign: as near as `within`, or as floats are.

    Never leaves the bracket, and halves it wherever a parabola through three places is not to be trusted. Raises ValueError: `of` has
    the same sign at both ends.

    Source: T. R. Chandrupatla, Advances in Engineering Software 28 (1997) 145-149.
    """
    newest, other = high, low
    at_newest, at_other = of(newest), of(other)
    if at_newest * at_other > 0:
        raise ValueError("The function has the same sign at both ends.")
    third, at_third, share = other, at_other, 0.5
    while True:
        best, at_best = (newest, at_newest) if abs(at_newest) < abs(at_other) else (other, at_other)
        nearest = (2 * _EPSILON * abs(best) + 0.5 * within) / abs(other - newest) if other != newest else 1.0
        if at_best == 0 or nearest > 0.5:
            return best
        place = newest + min(max(share, nearest), 1 - nearest) * (other - newest)
        value = of(place)
        if (value > 0) == (at_newest > 0):
            third, at_third = newest, at_newest
        else:
            third, at_third = other, at_other
            other, at_other = newest, at_newest
        newest, at_newest = place, value
        share = _next_share((newest, at_newest), (other, at_other), (third, at_third))


def _next_share(newest: tuple[float, float], other: tuple[float, float], third: tuple[float, float]) -> float:
    """How far from `newest` towards `other` to look next: where the parabola through all three crosses, if it is monotonic; else half."""
    (a, at_a), (b, at_b), (c, at_c) = newest, other, third
    if at_b in (at_a, at_c) or c == b:
        return 0.5
    xi, phi = (a - b) / (c - b), (at_a - at_b) / (at_c - at_b)
    if not (phi * phi < xi and (1 - phi) ** 2 < 1 - xi):
        return 0.5
    return at_a / (at_b - at_a) * at_c / (at_b - at_c) + (c - a) / (b - a) * at_a / (at_c - at_a) * at_b / (at_c - at_b)
