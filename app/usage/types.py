"""What a tenant used, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date


@dataclass(frozen=True, slots=True)
class Quantities:
    """What is paid for. `byte_us`: bytes of artifacts kept, times the microseconds they were."""

    requests: int
    rows: int
    compute_us: int
    byte_us: int


@dataclass(frozen=True, slots=True)
class VersionUsage:
    """What one version answered. `compute_us`: microseconds of computing."""

    model: str
    version: int
    requests: int
    rows: int
    compute_us: int


@dataclass(frozen=True, slots=True)
class DayUsage:
    """One version on one UTC day; `artifact_bytes` at its end. Without a model: uploads that no version was registered from."""

    day: date
    model: str | None
    version: int | None
    requests: int
    rows: int
    compute_us: int
    artifact_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """A tenant's usage of a time. `cost_micros`: millionths of `currency`."""

    quantities: Quantities
    artifact_bytes: int
    cost_micros: int
    currency: str
    by_model: tuple[VersionUsage, ...]
