"""From the spool into the database: one process a machine, exactly once, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import structlog

from app.journal.aside import Aside, frames_in
from app.journal.codec import decode
from app.journal.depth import DrainStatus, write_status
from app.journal.reader import SpoolReader
from app.journal.sink import PartitionMissing, RecordsRefused, SinkUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from app.journal.reader import Piece
    from app.journal.sink import Sink
    from app.journal.types import Record
    from app.kernel.clock import Clock

_BATCH = 5000
_POLL_S = 0.05
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0
_HELD_EVERY_S = 30.0
_HEED_EVERY_S = 600.0
_SPEAK_EVERY_S = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Leftover:
    missing: list[Record] = field(default_factory=list)  # their day has no partition
    refused: list[tuple[Record, str]] = field(default_factory=list)  # with the reason


class Drain:
    """Moves what waits in `spool` into `sink`. The caller holds the spool's drain lock."""

    def __init__(self, spool: Path, sink: Sink, clock: Clock, *, batch: int = _BATCH) -> None:
        self._spool, self._sink, self._clock, self._batch = spool, sink, clock, batch
        self._reader = SpoolReader(spool, clock)
        self._aside = Aside(spool, clock)
        self._waiting_for: str | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._moved = self._moved_bytes = 0
        self._speak_at = self._held_at = self._heed_at = clock.monotonic()

    async def run(self, stop: asyncio.Event, *, last_effort_s: float) -> bool:
        """Drains until `stop`, then empties the spool for at most `last_effort_s` seconds. Returns whether it is empty."""
        while not stop.is_set():
            pause_s = await self._round()
            if pause_s:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause_s)
        try:
            async with asyncio.timeout(last_effort_s):
                while await self.step():
                    pass
                empty = True
        except (SinkUnavailable, TimeoutError, OSError):
            empty = False
        self._speak()
        await self._sink.close()
        return empty and not self._aside.held

    async def step(self) -> int:
        """How many pieces of segments were dealt with; 0: nothing waits. Raises SinkUnavailable, with nothing lost."""
        pieces: list[Piece] = []
        records: list[Record] = []
        for piece in self._reader.pieces():
            pieces.append(piece)
            records += piece.records
            if len(records) >= self._batch:
                break
        leftover = await self._store(records)
        if leftover.missing:
            self._hold_or_wait(leftover.missing)
        self._refuse(leftover)
        for piece in pieces:
            for damage in piece.damage:
                self._aside.keep_damaged(piece.segment, damage.offset, damage.data, damage.reason)
            self._reader.commit(piece)
        self._moved += len(records)
        self._moved_bytes += sum(piece.length for piece in pieces if piece.records)
        return len(pieces)

    async def retry_held(self) -> None:
        """Tries the records again whose days had no partition. Raises SinkUnavailable."""
        for segment in self._aside.held_segments():
            records = [decode(payload) for payload in frames_in(segment.path.read_bytes())]
            leftover = await self._store(records)
            if not leftover.missing:
                self._refuse(leftover)
                self._aside.release(segment, len(records))

    async def _round(self) -> float:
        """One step and what to wait after it, in seconds."""
        now = self._clock.monotonic()
        try:
            moved = await self.step()
            if now >= self._held_at:
                self._held_at = now + _HELD_EVERY_S
                self._reader.clear_unborn()
                await self.retry_held()
                await self._heed(now)
        except (SinkUnavailable, OSError) as error:  # OSError: our own disk, full perhaps
            self._stalled(str(error) or type(error).__name__)
            pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311  jitter, no secret
            self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        else:
            self._going()
            pause_s = 0.0 if moved else _POLL_S
        if now >= self._speak_at:
            self._speak_at = now + _SPEAK_EVERY_S
            self._speak()
        return pause_s

    async def _heed(self, now: float) -> None:
        """What waits for a person may be of somebody who was erased meanwhile."""
        if self._aside.quarantined and now >= self._heed_at:
            await self._aside.heed(self._sink)
            self._heed_at = now + _HEED_EVERY_S

    async def _store(self, records: list[Record]) -> _Leftover:
        """What of `records` could not be committed; all others are."""
        leftover = _Leftover()
        if records:
            await self._divide(records, leftover)
        return leftover

    async def _divide(self, records: list[Record], leftover: _Leftover) -> None:
        try:
            await self._sink.insert(records)
        except PartitionMissing:
            days = [list(day) for _, day in groupby(sorted(records, key=_day), key=_day)]
            if len(days) == 1:
                leftover.missing.extend(records)
                return
            for day in days:
                await self._divide(day, leftover)
        except RecordsRefused as error:
            if len(records) == 1:
                leftover.refused.append((records[0], str(error)))
                return
            half = len(records) // 2
            await self._divide(records[:half], leftover)
            await self._divide(records[half:], leftover)

    def _refuse(self, leftover: _Leftover) -> None:
        """Last, when nothing can be tried again any more: a record is put into quarantine once."""
        for record, reason in leftover.refused:
            self._aside.refuse(record, reason)

    def _hold_or_wait(self, missing: list[Record]) -> None:
        """Today's partition is made by the supervisor any moment: wait for it. Another day's must not keep today's records back."""
        today = self._clock.now().date()
        if any(record.at.date() == today for record in missing):
            raise SinkUnavailable("the partition of today")
        self._aside.hold(missing)

    def _stalled(self, reason: str) -> None:
        if self._waiting_for != reason:
            _log.warning("journal.drain_stalled", waiting_for=reason)
        self._waiting_for = reason

    def _going(self) -> None:
        self._pause_s = _FIRST_PAUSE_S
        if self._waiting_for is not None:
            _log.info("journal.drain_resumed", waited_for=self._waiting_for)
        self._waiting_for = None

    def _speak(self) -> None:
        mean = self._moved_bytes // self._moved if self._moved else None
        status = DrainStatus(self._clock.time_ms(), self._waiting_for, self._aside.held, self._aside.quarantined, mean)
        with suppress(OSError):  # a full disk must not end the one process that makes room
            write_status(self._spool, status)


def _day(record: Record) -> str:
    return record.at.date().isoformat()
