"""What one serving process has to do with its machine's last good state: reading it at the start, keeping it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.prediction.last_good.reading import LastGoodState
from app.prediction.last_good.writing import LastGoodKeeper

if TYPE_CHECKING:
    from app.db.breaker import DatabaseBreaker
    from app.kernel.clock import Clock
    from app.prediction.last_good.writing import StateTelemetry
    from app.tenancy.sealed_files import SealedFolder

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class LastGood:
    state: LastGoodState
    keeper: LastGoodKeeper

    @classmethod
    def of(
        cls, folder: SealedFolder, sync_url: str, breaker: DatabaseBreaker, oldest_days: int, telemetry: StateTelemetry, clock: Clock
    ) -> LastGood:
        """Over the files of `folder`; connected to nothing yet."""
        return cls(LastGoodState(folder, clock, oldest_days * _DAY_S), LastGoodKeeper(sync_url, folder, telemetry, clock, breaker))
