"""What a row's table says of the requests of a stretch of time. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.chaos.history import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.chaos.load import Tried


@dataclass(frozen=True, slots=True)
class Stretch:
    """Requests of some time: how many, how many were answered, how fast (milliseconds; of the answered ones), and the other codes."""

    asked: int
    answered: int
    p50_ms: float
    p99_ms: float
    slowest_ms: float  # of all, answered or not
    codes: dict[str, int]

    @property
    def success(self) -> float:
        """Share of requests that were answered; 0 where nobody asked."""
        return self.answered / self.asked if self.asked else 0.0

    @property
    def failed(self) -> int:
        return self.asked - self.answered

    def __str__(self) -> str:
        others = "".join(f", {count} {code}" for code, count in sorted(self.codes.items()))
        share = f"{100 * self.success:.2f} %"
        return f"{self.answered}/{self.asked} answered ({share}), p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms{others}"


def stretch(tried: Sequence[Tried]) -> Stretch:
    """The figures of these requests."""
    times = sorted(1000 * each.took_s for each in tried if each.operation.outcome is Outcome.OK)
    codes = Counter(each.code for each in tried if each.code)
    slowest = max((1000 * each.took_s for each in tried), default=0.0)
    return Stretch(len(tried), len(times), quantile(times, 0.5), quantile(times, 0.99), slowest, dict(codes))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the ordered values lie; 0 of none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
