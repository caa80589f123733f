"""Champion and shadow on identical inputs: how often they agree, and once the truth is known, who was right more often or came closer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import bdtr, ndtri, stdtr, stdtrit

from app.errors import InvalidInput
from app.experiments.stats.moments import moments
from app.experiments.stats.types import Exact, Interval


@dataclass(frozen=True, slots=True)
class Share:
    """A share, 0 to 1, of `of` pairs, with its interval."""

    value: float
    low: float
    high: float
    of: int


@dataclass(frozen=True, slots=True)
class McNemar:
    """`only_champion` and `only_shadow`: pairs that one alone had right. `p_value`: exact; `mid_p`: less cautious, and closer to
    alpha; None without such pairs.
    """

    only_champion: int
    only_shadow: int
    p_value: float | None
    mid_p: float | None


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of the differences of n pairs; what needs a variance is None below two pairs."""

    n: int
    mean: float
    standard_error: float | None
    interval: Interval | None
    p_value: float | None


def share(hits: int, of: int, alpha: float = 0.05) -> Share | None:
    """Share with Wilson's interval, or None of nothing.

    Source: E. B. Wilson, J. Am. Statist. Assoc. 22 (1927) 209-212.
    """
    if not 0 <= hits <= of:
        raise InvalidInput("Of the pairs at most all can agree.")
    if of == 0:
        return None
    z_squared, value = float(ndtri(alpha / 2)) ** 2, hits / of
    middle = (value + z_squared / (2 * of)) / (1 + z_squared / of)
    width = math.sqrt(z_squared * (value * (1 - value) / of + z_squared / (4 * of**2))) / (1 + z_squared / of)
    # At the edges rounding would leave the interval a hair short of 0 or 1.
    return Share(value, 0.0 if hits == 0 else middle - width, 1.0 if hits == of else middle + width, of)


def mcnemar(only_champion: int, only_shadow: int) -> McNemar:
    """Is one right more often than the other? Exact at any size: pairs that both had right, or neither, say nothing of it.

    Source: Q. McNemar, Psychometrika 12 (1947) 153-157; mid-p as M. W. Fagerland, S. Lydersen, P. Laake, BMC Med. Res.
    Methodol. 13 (2013) 91.
    """
    if min(only_champion, only_shadow) < 0:
        raise InvalidInput("Numbers of pairs are not negative.")
    fewer, pairs = min(only_champion, only_shadow), only_champion + only_shadow
    if pairs == 0:
        return McNemar(0, 0, None, None)
    tail = float(bdtr(fewer, pairs, 0.5))
    below = float(bdtr(fewer - 1, pairs, 0.5)) if fewer else 0.0
    return McNemar(only_champion, only_shadow, min(2 * tail, 1.0), min(tail + below, 1.0))


def paired_difference(n: int, total: Exact, squares: Exact, alpha: float = 0.05) -> PairedDifference | None:
    """Mean difference with Student's interval and two-sided p-value, from n pairs, Σd and Σd² (kept exact). None without pairs.

    For classes, d = (shadow right) - (champion right) gives the difference of accuracies. Without any variance the interval
    and p-value are None: there is nothing to measure chance by.
    """
    found = moments(n, total, squares)
    if found is None:
        return None
    error = found.standard_error
    if not error:
        return PairedDifference(n, found.mean, error, None, None)
    width = -float(stdtrit(n - 1, alpha / 2)) * error
    p_value = 2 * float(stdtr(n - 1, -abs(found.mean) / error))
    return PairedDifference(n, found.mean, error, Interval(found.mean - width, found.mean + width), p_value)
