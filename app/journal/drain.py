"""From the spool into the database: one process a machine, exactly once, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from app.journal.aside import Aside, frames_in
from app.journal.codec import decode
from app.journal.depth import DrainStatus, read_depth, write_status
from app.journal.landing import Leftover, land
from app.journal.reader import SpoolReader
from app.journal.sink import SinkUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from app.journal.reader import Piece
    from app.journal.sink import Sink
    from app.journal.types import Record
    from app.kernel.clock import Clock

_BATCH = 2000
_POLL_S = 0.05
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0
_HELD_EVERY_S = 30.0
_HEED_EVERY_S = 600.0
_SPEAK_EVERY_S = 1.0
_REPORT_EVERY_S = 5.0
_TODAY = "the partition of today"
_log = structlog.get_logger(__name__)


def collect_seldom() -> None:
    """For a drain's process: thousands of records come and go, none is in a cycle, and looking for cycles took a third of the time."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What goes into the database in one go, and where it was read."""

    pieces: list[Piece] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    @property
    def length(self) -> int:
        """In bytes, damage apart."""
        return sum(piece.length for piece in self.pieces if piece.records)


class Drain:
    """Moves what waits in `spool` into `sink`. The caller holds the spool's drain lock."""

    def __init__(self, spool: Path, sink: Sink, clock: Clock, *, batch: int = _BATCH) -> None:
        self._spool, self._sink, self._clock, self._batch = spool, sink, clock, batch
        self._reader = SpoolReader(spool, clock)
        self._aside = Aside(spool, clock)
        self._ahead: _Batch | None = None  # the next one, read already
        self._behind = False  # more was there than was taken last
        self._waiting_for: str | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._moved = self._moved_bytes = 0
        self._speak_at = self._held_at = self._heed_at = clock.monotonic()
        self._report_at, self._reported = self._speak_at + _REPORT_EVERY_S, 0

    async def run(self, stop: asyncio.Event, *, last_effort_s: float) -> int:
        """About how many records stay (0 is exact), once `stop` is set and `last_effort_s` seconds were enough to empty it, or not."""
        while not stop.is_set():
            pause_s = await self._round()
            if pause_s:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause_s)
        with suppress(SinkUnavailable, TimeoutError, OSError):
            async with asyncio.timeout(last_effort_s):
                while await self.step():
                    pass
        self._speak()
        await self._sink.close()
        return read_depth(self._spool, self._clock).records

    async def step(self) -> int:
        """How many pieces of segments were dealt with; 0: nothing waits. Raises SinkUnavailable, with nothing lost."""
        try:
            return await self._step()
        except BaseException:
            self._ahead = None
            self._reader.rewind()
            raise

    async def _step(self) -> int:
        batch = self._ahead if self._ahead and self._ahead.pieces else self._gather()
        full = len(batch.records) >= self._batch
        ahead = asyncio.create_task(asyncio.to_thread(self._gather)) if full else None  # read while the database works
        try:
            leftover = await land(self._sink, batch.records)
        finally:
            if ahead:
                await asyncio.wait([ahead])
        self._ahead = ahead.result() if ahead else None
        self._behind = full or any(piece.end < piece.segment.size_bytes for piece in batch.pieces)
        if leftover.missing:
            self._hold_or_wait(leftover.missing)
        self._refuse(leftover)
        self._commit(batch)
        if full:
            self._report()
        return len(batch.pieces)

    def _gather(self) -> _Batch:
        batch = _Batch()
        for piece in self._reader.pieces():
            batch.pieces.append(piece)
            batch.records.extend(piece.records)
            if len(batch.records) >= self._batch:
                break
        return batch

    def _commit(self, batch: _Batch) -> None:
        for piece in batch.pieces:
            for damage in piece.damage:
                self._aside.keep_damaged(piece.segment, damage.offset, damage.data, damage.reason)
            self._reader.commit(piece)
        self._moved += len(batch.records)
        self._moved_bytes += batch.length

    async def retry_held(self) -> None:
        """Tries the records again whose days had no partition. Raises SinkUnavailable."""
        for segment in self._aside.held_segments():
            records = [decode(payload) for payload in frames_in(segment.path.read_bytes())]
            leftover = await land(self._sink, records)
            if not leftover.missing:
                self._refuse(leftover)
                self._aside.release(segment, len(records))

    async def _round(self) -> float:
        """One step and what to wait after it, in seconds."""
        now = self._clock.monotonic()
        try:
            await self.step()
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
            pause_s = 0.0 if self._behind else _POLL_S  # what drips is gathered: a commit costs as much as the rows of many
        if now >= self._speak_at:
            self._speak_at = now + _SPEAK_EVERY_S
            self._speak()
        return pause_s

    async def _heed(self, now: float) -> None:
        """What waits for a person may be of somebody who was erased meanwhile."""
        if self._aside.quarantined and now >= self._heed_at:
            await self._aside.heed(self._sink)
            self._heed_at = now + _HEED_EVERY_S

    def _refuse(self, leftover: Leftover) -> None:
        """Last, when nothing can be tried again any more: a record is put into quarantine once."""
        for record, reason in leftover.refused:
            self._aside.refuse(record, reason)

    def _hold_or_wait(self, missing: list[Record]) -> None:
        """Today's partition is made by the parent process within seconds: wait for it. Another day's must not keep today's records back."""
        today = self._clock.now().date()
        if any(record.at.date() == today for record in missing):
            raise SinkUnavailable(_TODAY)
        self._aside.hold(missing)

    def _report(self) -> None:
        """Now and then while there is more than goes in one batch: how it gets on."""
        now = self._clock.monotonic()
        if now >= self._report_at:
            waiting = read_depth(self._spool, self._clock)
            _log.info("journal.draining", records=self._moved - self._reported, waiting=waiting.records, oldest_s=waiting.oldest_age_s)
            self._report_at, self._reported = now + _REPORT_EVERY_S, self._moved

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
        days = self._aside.held_days | ({self._clock.now().date().isoformat()} if self._waiting_for == _TODAY else set())
        aside = self._aside
        status = DrainStatus(self._clock.time_ms(), self._waiting_for, aside.held, aside.quarantined, mean, tuple(sorted(days)))
        with suppress(OSError):  # a full disk must not end the one process that makes room
            write_status(self._spool, status)
