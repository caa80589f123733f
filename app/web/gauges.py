"""Values that nobody changes at one place, copied into their instruments once a second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.journal.spool import Spool
    from app.kernel.clock import Clock
    from app.observability.metrics import Telemetry
    from app.prediction.follower import Follower
    from app.prediction.pool import RuntimePool
    from app.prediction.routing import RoutingTable

EVERY_S = 1.0


class Gauges:
    """Copies until cancelled; one a serving process."""

    def __init__(
        self, telemetry: Telemetry, spool: Spool, pool: RuntimePool, table: RoutingTable, follower: Follower, clock: Clock
    ) -> None:
        self._telemetry = telemetry
        self._spool = spool
        self._pool = pool
        self._table = table
        self._follower = follower
        self._clock = clock
        self._dropped = 0
        self._others: list[Callable[[], None]] = []

    def also(self, copy: Callable[[], None]) -> None:
        """Has `copy` called as often."""
        self._others.append(copy)

    async def run(self) -> None:
        while True:
            self.copy()
            await asyncio.sleep(EVERY_S)

    def copy(self) -> None:
        """One copy of each value."""
        if self._follower.refreshed_at is not None:
            age_s = self._clock.monotonic() - self._follower.refreshed_at
            self._telemetry.snapshot_confirmed(self._clock.time_ms() / 1000 - age_s, self._table.generation)
        self._telemetry.models_loaded(self._pool.size, self._pool.held_bytes)
        for copy in self._others:
            copy()
        dropped = self._spool.dropped
        if dropped > self._dropped:
            self._telemetry.journal_dropped(dropped - self._dropped)
            self._dropped = dropped
