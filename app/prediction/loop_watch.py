"""When the event loop of this process was held up: who was late because of that was not late by its own doing."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.kernel.clock import Clock

TICK_S = 0.025
LATE_S = 0.05  # who comes so much later than the time was up cannot say what had come by then
_PUNCTUAL_S = 0.005  # timers are no more exact than some milliseconds
_MOST_KEPT = 1024  # stretches; of a loop that is late at every tick those of the last half minute


class LoopWatch:
    """Of one serving process, its loop's alone. Wakes every `TICK_S` and remembers by how much it came too late.

    Before `run`, and without it, the loop is taken to be there all the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: deque[tuple[float, float]] = deque(maxlen=_MOST_KEPT)  # from when to when, oldest first
        self._due: float | None = None  # the next tick

    def there_s(self, since: float, until: float) -> float:
        """Of the time from `since` to `until` (monotonic seconds, and over) how much the loop was there to send and to listen.

        0 where it came to `until` itself more than `LATE_S` late.
        """
        now = self._clock.monotonic()
        if now - until > LATE_S:
            return 0.0
        there = until - since
        if self._due is not None and self._due + _PUNCTUAL_S < min(now, until):  # held up, and the tick has not come round yet
            there -= min(now, until) - max(self._due, since)
        for began, ended in reversed(self._held):
            if ended <= since:
                break
            there -= max(0.0, min(ended, until) - max(began, since))
        return max(0.0, there)

    async def run(self) -> None:
        """Watches until it is cancelled."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def tick() -> None:  # no task that sleeps: that would come round a turn later still
            nonlocal timer
            self.woke()
            timer = loop.call_later(TICK_S, tick)

        self.begin()
        timer = loop.call_later(TICK_S, tick)
        try:
            await loop.create_future()
        finally:
            timer.cancel()
            self._due = None

    def begin(self) -> None:
        """The first tick is due in `TICK_S`."""
        self._due = self._clock.monotonic() + TICK_S

    def woke(self) -> None:
        """The tick that was due has come; the next one is due in `TICK_S`."""
        now = self._clock.monotonic()
        if self._due is not None and now - self._due > _PUNCTUAL_S:
            self._held.append((self._due, now))
        self._due = now + TICK_S
