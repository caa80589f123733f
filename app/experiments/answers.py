"""What experiments answer about themselves: results, shadows, power. Frozen values in the contract's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from app.experiments.stats.types import Verdict


@dataclass(frozen=True, slots=True)
class SampleRatioCheck:
    p_value: float | None
    ok: bool


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One arm. `exposures`: predictions that its units asked for; `units` is what everything else is about."""

    variant: str
    units: int
    exposures: int
    mean: float | None
    standard_error: float | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None
    p_value: float | None = None
    sequential_low: float | None = None
    sequential_high: float | None = None
    chance_to_beat_control: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class ExperimentResults:
    """`adjusted`: the part that control's score foretells was taken out. `notes`: what a reader should know, as sentences."""

    metric: str
    variants: tuple[VariantResult, ...]
    srm: SampleRatioCheck
    verdict: Verdict
    winner: str | None
    looks: int
    planned_looks: int
    computed_at: datetime
    adjusted: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """A shadow against control on identical inputs. Shares and errors are None where there is nothing to take them of.

    Classes: `champion_correct` and `shadow_correct` of `labelled`; `difference` is the shadow's accuracy less the champion's,
    `p_value` McNemar's. Numbers: `champion_error` and `shadow_error` are mean absolute ones, and `difference` is the shadow's less
    the champion's.
    """

    variant: str
    pairs: int
    agreement: float | None
    agreement_low: float | None
    agreement_high: float | None
    labelled: int
    champion_correct: int | None = None
    shadow_correct: int | None = None
    champion_error: float | None = None
    shadow_error: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class PowerQuestion:
    """What a metric's next experiment is to show. `effect` is absolute, `relative` of the mean; `weights` of the arms, control first."""

    metric: str
    experiment: str | None = None  # whose control arm is looked at; None: the one with most units
    effect: float | None = None
    relative: float | None = None
    units: int | None = None
    weights: tuple[int, ...] = (1, 1)
    looks: int = 1
    alpha: float = 0.05
    power: float = 0.8


@dataclass(frozen=True, slots=True)
class ExperimentPower:
    """`experiment`: whose control arm `mean` and `standard_deviation` of one unit were seen in, on `observed_units` units."""

    metric: str
    experiment: str
    observed_units: int
    mean: float
    standard_deviation: float
    units: int | None  # of all arms together, for the effect that was asked about
    units_per_arm: tuple[int, ...] | None
    detectable_effect: float | None  # absolute, of the units that were asked about
