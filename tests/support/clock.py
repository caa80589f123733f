"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class ManualClock:
    """Wall time and monotonic time together, moved by hand; both to the microsecond."""

    def __init__(self, start: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)) -> None:
        self.start = start
        self.passed = timedelta()

    def advance(self, seconds: float) -> None:
        self.passed += timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self.start + self.passed

    def time_ms(self) -> int:
        return (self.now() - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)

    def monotonic(self) -> float:
        return 1000.0 + self.passed.total_seconds()
