"""A request for predictions and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    import numpy as np
    from numpy.typing import NDArray


class RoutingReason(StrEnum):
    """Why this version answered."""

    EXPERIMENT = "EXPERIMENT"
    OUT_OF_ROLLOUT = "OUT_OF_ROLLOUT"
    NOT_TARGETED = "NOT_TARGETED"
    HOLDOUT = "HOLDOUT"
    PINNED = "PINNED"  # the request named a version or an alias
    ALIAS = "ALIAS"  # no experiment runs: the alias production
    FLAG_OFF = "FLAG_OFF"
    NO_UNIT = "NO_UNIT"
    UNKNOWN_VARIANT = "UNKNOWN_VARIANT"
    FALLBACK = "FALLBACK"


# What each request for one row makes anew is not frozen: to make that costs three times as much, and nobody changes it.
@dataclass(slots=True)
class RouteRequest:
    """Which model, for whom. `version` or `alias` pins the request."""

    model: str
    unit: str | None = None
    attributes: Mapping[str, str] | None = None
    alias: str | None = None
    version: int | None = None


@dataclass(slots=True)
class ClassProbability:
    label: str
    probability: float


class Prediction(NamedTuple):
    """`classes`, `shares`: all classes and their probabilities, in one order; None where there are none."""

    id: UUID
    model: str
    version: int
    variant: str | None
    experiment: str | None
    reason: RoutingReason
    label: str | None
    probability: float | None
    classes: Sequence[str] | None
    shares: list[float] | None
    value: float | None
    degraded: bool

    @property
    def probabilities(self) -> list[ClassProbability] | None:
        """Made where it is asked for, which is seldom."""
        if self.classes is None or self.shares is None:
            return None
        return [ClassProbability(name, share) for name, share in zip(self.classes, self.shares, strict=True)]


@dataclass(frozen=True, slots=True)
class BatchPrediction:
    """`labels`, `values`: one a row. `probabilities`: (rows, classes), in the order of `classes`."""

    id: UUID
    model: str
    version: int
    variant: str | None
    experiment: str | None
    reason: RoutingReason
    degraded: bool
    row_count: int
    classes: list[str] | None
    labels: list[str] | None
    probabilities: NDArray[np.float64] | None
    values: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class BatchRows:
    """Exactly one of the two, as sent; of a large request `[ManyRows]`, and ManyRows in the place of the matrix's data."""

    rows: list[Any] | None
    matrix: Any
