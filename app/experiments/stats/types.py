"""What the statistics take and give: sums of an arm, a plan, and the numbers of a result. Frozen values that compute no more than a sum."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from operator import index
from typing import TYPE_CHECKING, Any

from app.errors import InvalidInput
from app.experiments.types import MetricAggregation, MetricDirection, MetricKind, MetricRole

if TYPE_CHECKING:
    from app.experiments.stats.cuped import Adjustment
    from app.experiments.stats.sample_ratio import SampleRatio

Exact = int | float | Decimal | Fraction
MOST_ARMS = 10


class Verdict(StrEnum):
    COLLECTING = "COLLECTING"
    WINNER = "WINNER"
    LOSER = "LOSER"
    NO_DIFFERENCE = "NO_DIFFERENCE"
    INVALID = "INVALID"


class DecidedBy(StrEnum):
    """Which of the two analyses spoke of an arm."""

    LOOK = "LOOK"
    SEQUENCE = "SEQUENCE"


def exact(number: Exact) -> Fraction:
    """The number itself, without rounding. Raises InvalidInput: NaN and infinities."""
    if isinstance(number, Fraction):
        return number
    if isinstance(number, float | Decimal):
        if not math.isfinite(number):
            raise InvalidInput("Sums must be finite numbers.")
        return Fraction(number)
    return Fraction(index(number))  # numpy's integers too, whose own arithmetic would overflow


def quotient(number: int | Fraction, divisor: int = 1) -> float:
    """The float nearest to number / divisor. Raises InvalidInput: there is none, values being so large that squares leave all bounds."""
    try:
        return float(number / divisor)
    except OverflowError:
        raise InvalidInput("Values of this metric are too large to take a variance of.") from None


@dataclass(frozen=True, slots=True)
class ArmSums:
    """One arm and one metric: sums over units, from which everything else follows. Two add up to the sums of both together.

    `units`: exposed in this arm. `counted`: of these, the ones that have a value y; `total` and `squares` are sums of y and y².
    Under ANY and SUM the silent ones count as 0; under MEAN and LAST they are left out.
    `covered`: exposed units that have a covariate x, with sums of x and x². `both` and what begins with it: units with y and x;
    `cross` is the sum of x·y over them.
    Sums may be int, Fraction, Decimal (as PostgreSQL's numeric comes) or float. They are centred as fractions, so nothing is
    lost to cancellation but what the sum itself had lost before it came here: keep them exact in the database.

    Raises InvalidInput: counts that contradict each other, or a sum that is not finite.
    """

    units: int = 0
    counted: int = 0
    total: Exact = 0
    squares: Exact = 0
    covered: int = 0
    cov_total: Exact = 0
    cov_squares: Exact = 0
    both: int = 0
    both_total: Exact = 0
    both_squares: Exact = 0
    cross: Exact = 0
    both_cov_total: Exact = 0
    both_cov_squares: Exact = 0

    def __post_init__(self) -> None:
        if not (0 <= self.counted <= self.units and 0 <= self.covered <= self.units):
            raise InvalidInput("Of an arm's units neither fewer than none nor more than all can have a value or a covariate.")
        if not 0 <= self.both <= min(self.counted, self.covered):
            raise InvalidInput("Units with both a value and a covariate are at most those with either.")

    def __add__(self, other: ArmSums) -> ArmSums:
        return ArmSums(*(_plus(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)))


def _plus(one: Any, other: Any) -> Any:
    # Decimal adds to 28 digits only and float to 16, so both go through fractions.
    return one + other if isinstance(one, int) and isinstance(other, int) else exact(one) + exact(other)


@dataclass(frozen=True, slots=True)
class Arm:
    """`weight`: share of the split, in any unit that all arms have in common."""

    name: str
    weight: float
    control: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """The sums as they stood when look `number` (from 1) was due, in the plan's order of arms."""

    number: int
    arms: tuple[ArmSums, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What was decided before the first unit came.

    `planned_units`: of all arms together, at which it ends; look k falls at k/planned_looks of it. `ended`: nobody new comes
    in, because it was stopped or concluded. `alpha`: two-sided. Raises InvalidInput: not one control, 2 to 10 arms, weights
    above 0, at least one look, alpha between 0 and 1.
    """

    arms: tuple[Arm, ...]
    kind: MetricKind = MetricKind.MEAN
    direction: MetricDirection = MetricDirection.INCREASE
    aggregation: MetricAggregation = MetricAggregation.SUM
    role: MetricRole = MetricRole.PRIMARY
    alpha: float = 0.05
    planned_looks: int = 1
    planned_units: int | None = None
    ended: bool = False

    def __post_init__(self) -> None:
        if not 2 <= len(self.arms) <= MOST_ARMS:
            raise InvalidInput(f"An experiment has 2 to {MOST_ARMS} arms, not {len(self.arms)}.")
        if sum(arm.control for arm in self.arms) != 1:
            raise InvalidInput("Exactly one arm must be control.")
        if any(not arm.weight > 0 for arm in self.arms):
            raise InvalidInput("Weights must be above 0.")
        if self.planned_looks < 1 or not 0 < self.alpha < 1:
            raise InvalidInput("A plan has at least one look, and an alpha between 0 and 1.")

    @property
    def control(self) -> int:
        """Index of the control arm."""
        return next(place for place, arm in enumerate(self.arms) if arm.control)

    @property
    def others(self) -> tuple[int, ...]:
        """Indices of the arms that are compared with control."""
        return tuple(place for place, arm in enumerate(self.arms) if not arm.control)

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.direction is MetricDirection.INCREASE else -1


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ArmResult:
    """The numbers of one arm.

    `mean` and `standard_error` (of the mean): of the sums as they are now, unadjusted. `difference` to `p_value`: against
    control, by the planned analysis, from the frozen sums of a look; None for control and before the first look. `p_value`
    is corrected for looks and arms: it is at most alpha exactly where the interval leaves 0 out. `sequential_…`: the
    confidence sequence of the difference now. `harmful`: a guardrail's one-sided sequence says that this arm is worse than control.
    """

    variant: str
    units: int
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
    sequential_p_value: float | None = None
    chance_to_beat_control: float | None = None
    verdict: Verdict | None = None
    decided_by: DecidedBy | None = None
    harmful: bool = False


@dataclass(frozen=True, slots=True)
class Analysis:
    """`adjustment`: whether the covariate was used now, and why not. `winner`: the best of the arms that beat control."""

    variants: tuple[ArmResult, ...]
    srm: SampleRatio
    verdict: Verdict
    winner: str | None
    looks: int
    planned_looks: int
    adjustment: Adjustment
    plan: Plan
