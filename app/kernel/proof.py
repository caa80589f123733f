"""What was found out about compiling a version: whether a graph may answer for its estimator, or why not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Proof:
    """The verdict. `reason`: why the estimator itself serves, in words; None: the graph does.

    `tolerance`: how far an answer may be from the estimator's: a probability as it is, a number in the unit of the target.
    An answer farther than usual from `middle`, the median answer, may be off by that much more. `handed_back`: rows that
    the graph leaves to the estimator, because they are outside what was proved or too close to call.
    """

    reason: str | None
    rows: int = 0
    tolerance: float | None = None
    middle: float = 0.0
    largest_difference: float | None = None
    handed_back: int = 0
    native_us: float | None = None  # one row, median
    compiled_us: float | None = None
    precision: str | None = None  # "float32", "float64"
    mismatches: int = 0  # of live requests, found while it served

    @property
    def speed_up(self) -> float | None:
        """How many times faster the graph answers one row; None where no graph got that far."""
        return None if not self.native_us or not self.compiled_us else self.native_us / self.compiled_us

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Proof:
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


@dataclass(frozen=True, slots=True)
class Compiled:
    """A verdict and, where it is good, the graph's bytes."""

    proof: Proof
    graph: bytes | None = None
