"""How many units an effect takes, and which effect so many units show: from control's mean and variance, before the experiment.

The same boundaries as the analysis: O'Brien-Fleming over the planned looks, alpha shared by the arms that are compared with control
(Bonferroni; Holm, which the analysis uses, is a little stronger).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from app.errors import InvalidInput
from app.experiments.stats.looks import crossing_probability, final_boundary
from app.experiments.stats.roots import root
from app.experiments.types import MetricKind

_EVERY_CHANCE = 60.0  # a drift at which any boundary is crossed


@dataclass(frozen=True, slots=True)
class Design:
    """`weights`: of the arms, control first. `mean` and `variance`: of one unit under control, as this tenant's own log has them.

    For PROPORTION the variance follows from the mean. Raises InvalidInput: fewer than two arms, a weight or variance that is not
    above 0, alpha or power outside 0 to 1, a proportion outside 0 to 1.
    """

    weights: tuple[float, ...]
    mean: float
    variance: float = 0.0
    kind: MetricKind = MetricKind.MEAN
    alpha: float = 0.05
    power: float = 0.8
    looks: int = 1

    def __post_init__(self) -> None:
        if len(self.weights) < 2 or any(not weight > 0 for weight in self.weights):
            raise InvalidInput("A design has at least two arms, each with a weight above 0.")
        if not (0 < self.alpha < 1 and self.alpha < self.power < 1):
            raise InvalidInput("alpha and power are between 0 and 1, and power above alpha.")
        if self.kind is MetricKind.PROPORTION and not 0 < self.mean < 1:
            raise InvalidInput("A proportion is between 0 and 1.")
        if self.kind is MetricKind.MEAN and not self.variance > 0:
            raise InvalidInput("The variance of a unit must be above 0.")


@dataclass(frozen=True, slots=True)
class SampleSize:
    """`units`: of all arms together when the experiment runs to its end. `per_arm`: in the order of weights."""

    units: int
    per_arm: tuple[int, ...]


def units_needed(design: Design, *, effect: float | None = None, relative: float | None = None) -> SampleSize:
    """Units for an effect, absolute (`effect`) or relative to control's mean (`relative`: 0.05 is 5 %), of either sign.

    The arm with the smallest weight decides. Raises InvalidInput: not exactly one effect, one of 0, or one that leaves a
    proportion outside 0 to 1.
    """
    absolute = _absolute(design, effect, relative)
    drift = needed_drift(design.alpha / (len(design.weights) - 1), design.power, design.looks)
    units = math.ceil(drift**2 * _spread(design, absolute) / absolute**2)
    whole = sum(design.weights)
    return SampleSize(units, tuple(math.ceil(units * weight / whole) for weight in design.weights))


def detectable_effect(design: Design, units: int) -> float:
    """The smallest absolute increase that so many units of all arms together show with the design's power.

    Raises InvalidInput: no increase of a proportion is large enough.
    """
    drift = needed_drift(design.alpha / (len(design.weights) - 1), design.power, design.looks)

    def short_of(effect: float) -> float:
        return effect - drift * math.sqrt(_spread(design, effect) / units)

    if design.kind is MetricKind.MEAN:
        return -short_of(0.0)
    largest = 1 - design.mean
    if short_of(largest) < 0:
        raise InvalidInput(f"{units} units show no increase of a proportion of {design.mean}.")
    return root(short_of, 0.0, largest, within=1e-15)


def power_of(design: Design, units: int, effect: float) -> float:
    """Chance that so many units of all arms together show this absolute effect, against the arm with the smallest weight."""
    alpha = design.alpha / (len(design.weights) - 1)
    drift = abs(effect) * math.sqrt(units / _spread(design, effect))
    return crossing_probability(final_boundary(design.looks, alpha), design.looks, drift)


@lru_cache(maxsize=1024)
def needed_drift(alpha: float, power: float, looks: int) -> float:
    """Mean that z must have at the last look for the given power; its square grows a little with the looks.

    Source: C. Jennison, B. W. Turnbull, Group Sequential Methods (2000), section 2.3 and table 2.4.
    """
    constant = final_boundary(looks, alpha)
    return root(lambda drift: crossing_probability(constant, looks, drift) - power, 0.0, _EVERY_CHANCE, within=1e-12)


def _absolute(design: Design, effect: float | None, relative: float | None) -> float:
    if (effect is None) == (relative is None):
        raise InvalidInput("Give one effect: absolute or relative.")
    absolute = effect if effect is not None else (relative or 0.0) * design.mean
    if not absolute:
        raise InvalidInput("An effect of 0 takes endless units.")
    if design.kind is MetricKind.PROPORTION and not 0 <= design.mean + absolute <= 1:
        raise InvalidInput("With this effect the proportion is outside 0 to 1.")
    return absolute


def _spread(design: Design, effect: float) -> float:
    # Variance of the difference, times the units of all arms.
    whole = sum(design.weights)
    control, smallest = design.weights[0] / whole, min(design.weights[1:]) / whole
    if design.kind is MetricKind.MEAN:
        return design.variance * (1 / control + 1 / smallest)
    changed = design.mean + effect
    return design.mean * (1 - design.mean) / control + changed * (1 - changed) / smallest
