"""Sums from raw rows, exactly, as a database keeps them; and quickly, for simulations."""

from fractions import Fraction

import numpy as np

from app.experiments.stats.types import Arm, ArmSums


def sums_of(values, covariates=None):
    """One entry a unit, None where it has no value or no covariate."""
    covariates = [None] * len(values) if covariates is None else covariates
    y = [Fraction(value) for value in values if value is not None]
    x = [Fraction(value) for value in covariates if value is not None]
    pairs = [(Fraction(a), Fraction(b)) for a, b in zip(values, covariates, strict=True) if a is not None and b is not None]
    return ArmSums(
        units=len(values),
        counted=len(y),
        total=sum(y),
        squares=sum(value * value for value in y),
        covered=len(x),
        cov_total=sum(x),
        cov_squares=sum(value * value for value in x),
        both=len(pairs),
        both_total=sum(a for a, _ in pairs),
        both_squares=sum(a * a for a, _ in pairs),
        cross=sum(a * b for a, b in pairs),
        both_cov_total=sum(b for _, b in pairs),
        both_cov_squares=sum(b * b for _, b in pairs),
    )


def quick_sums(y, x=None):
    """Every unit has a value, and a covariate if there are any: arrays in, float sums out."""
    n, total, squares = len(y), float(np.sum(y)), float(np.dot(y, y))
    if x is None:
        return ArmSums(n, n, total, squares)
    x_total, x_squares = float(np.sum(x)), float(np.dot(x, x))
    return ArmSums(n, n, total, squares, n, x_total, x_squares, n, total, squares, float(np.dot(x, y)), x_total, x_squares)


def arms(*weights):
    """Arms a (control), b, c, ... with these weights."""
    return tuple(Arm("abcdefghij"[place], weight, control=place == 0) for place, weight in enumerate(weights))
