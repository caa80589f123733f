"""Time, injected: nothing below `main.py` reads a clock of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for what people and logs see, monotonic time for limits and deadlines."""

    def now(self) -> datetime: ...  # aware, UTC
    def time_ms(self) -> int: ...  # milliseconds since the Unix epoch
    def monotonic(self) -> float: ...  # seconds; never steps back


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment (monotonic seconds) after which nobody waits for the answer; one object is handed down a whole request."""

    at: float

    @classmethod
    def after(cls, seconds: float, clock: Clock | None = None) -> Deadline:
        return cls((clock.monotonic() if clock else time.monotonic()) + seconds)

    def remaining_s(self, clock: Clock | None = None) -> float:
        """Seconds left; zero or negative once it has passed."""
        return self.at - (clock.monotonic() if clock else time.monotonic())
