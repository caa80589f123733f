"""What usage costs: exact sums in whole numbers, rounded once."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import UsageSettings
    from app.usage.types import Quantities

_MILLION = 1_000_000
_GIB_DAY_BYTE_US = 1024**3 * 86_400 * _MILLION


@dataclass(frozen=True, slots=True)
class Prices:
    """In millionths of `currency`: of a million requests, a million rows, a second of computing, and a GiB kept for a day."""

    currency: str
    million_requests: int
    million_rows: int
    compute_second: int
    gib_day: int

    @classmethod
    def of(cls, settings: UsageSettings) -> Prices:
        per_million = settings.price_per_million_requests, settings.price_per_million_rows
        return cls(settings.currency, *per_million, settings.price_per_compute_second, settings.price_per_gib_day)

    def cost_micros(self, used: Quantities) -> int:
        """The sum of what each unit costs, exact, then rounded to a whole number of millionths, half of one up."""
        exact = (
            Fraction(used.requests * self.million_requests, _MILLION)
            + Fraction(used.rows * self.million_rows, _MILLION)
            + Fraction(used.compute_us * self.compute_second, _MILLION)
            + Fraction(used.byte_us * self.gib_day, _GIB_DAY_BYTE_US)
        )
        return int(exact + Fraction(1, 2))
