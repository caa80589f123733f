"""The last good state of this machine as a picture, for a start without a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from app.prediction.last_good.state import LastGoodFiles, StateRefused
from app.prediction.picture import FROZEN, picture_of

if TYPE_CHECKING:
    from app.kernel.clock import Clock
    from app.prediction.picture import Picture
    from app.tenancy.sealed_files import SealedFolder

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture from the disk, and how long ago the database said that this is how things are."""

    picture: Picture
    age_s: float


class LastGoodState:
    """Of one machine. States older than `oldest_s` are not served by."""

    def __init__(self, folder: SealedFolder, clock: Clock, oldest_s: float) -> None:
        self._files = LastGoodFiles(folder, FROZEN.shape)
        self._clock, self._oldest_s = clock, oldest_s

    def read(self) -> Kept | None:
        """None where there is none that may be served by; why one that is there may not be is in the log."""
        try:
            kept = self._read()
        except StateRefused as refused:
            why = str(refused)
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # of another program, in spite of its shape
            why = f"it cannot be read: {type(error).__name__}"
        else:
            if kept is None:
                log.warning("no_last_good_state")
            return kept
        log.error("last_good_state_refused", why=why)
        return None

    def _read(self) -> Kept | None:
        found = self._files.read()
        if found is None:
            return None
        head, rows = found
        age_s = max(0.0, (self._clock.time_ms() - head.confirmed_ms) / 1000)
        if age_s > self._oldest_s:
            raise StateRefused(f"it is {age_s / 86_400:.1f} days old; at most {self._oldest_s / 86_400:g} are served by")
        return Kept(picture_of(head.generation, rows), age_s)
