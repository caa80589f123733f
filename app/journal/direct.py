"""Records straight into the database: for answers that must outlive the machine. Those who come together share one commit."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from app.errors import DeadlineExceeded, LogUnavailable
from app.journal.landing import land
from app.journal.sink import Patience, SinkUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.journal.landing import Leftover
    from app.journal.sink import Sink
    from app.journal.types import Record
    from app.kernel.clock import Clock, Deadline

# An answer waits for this: what the server has not done by then is given up, and tried again under the same ids.
HASTE = Patience("turnout-answers", connect_s=1.0, command_s=1.5, statement_s=1.2, lock_s=0.8)
_GATHER_S = 0.0003  # after the first of a batch; those who come while a batch is committed gather by themselves
_BATCH = 1000
_MOST_WAITING = 10_000
_PATIENCE_S = 2.0  # no try is begun later
_PAUSE_S = 0.05
_LOOK_EVERY_S = 1.0  # whether a database that was away is back
_RETRY_MS = 1000
_log = structlog.get_logger(__name__)


class CommitTelemetry(Protocol):
    def journal_committed(self, outcome: str, records: int) -> None:
        """Records that were to be in the database before their answers, and "committed", "repeated" or "given_up"."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    record: Record
    committed: asyncio.Future[None]


class DirectLog:
    """Gives back only when a record is committed in the database. One a serving process; belongs to its event loop."""

    def __init__(self, sink: Sink, telemetry: CommitTelemetry, clock: Clock) -> None:
        self._sink, self._telemetry, self._clock = sink, telemetry, clock
        self._waiting: list[_Waiting] = []
        self._rounds: asyncio.Task[None] | None = None
        self._away_since: float | None = None
        self._look: asyncio.Task[None] | None = None
        self._look_at = 0.0

    def check_room(self) -> None:
        """Returns where the database is not known to be away; call it BEFORE predicting. Raises LogUnavailable (retry_after_ms)."""
        if self._away_since is not None:
            self._look_for_it()
            raise _away()
        if len(self._waiting) >= _MOST_WAITING:
            raise LogUnavailable("Too many answers wait to be committed in the database.", retry_after_ms=_RETRY_MS)

    async def append(self, record: Record, deadline: Deadline | None = None) -> None:
        """Returns when `record` is committed. Raises LogUnavailable, or DeadlineExceeded: whether it is in the log is then unknown."""
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(record, committed))
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._commit_all())
        if deadline is None:
            await committed
            return
        try:
            await asyncio.wait_for(committed, max(0.0, deadline.remaining_s(self._clock)))
        except TimeoutError:
            raise DeadlineExceeded("The answer was not committed in the database before the deadline.") from None

    async def close(self) -> None:
        """Commits what waits, as far as the database takes it, and lets go. Idempotent."""
        if self._rounds:
            await self._rounds
        if self._look:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
        await self._sink.close()

    async def _commit_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHER_S)
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            # Whoever went away has no answer, so nothing of it need be in the log.
            if batch := [each for each in batch if not each.committed.done()]:
                await self._commit(batch)

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        """Until it is done or there is no more patience. A commit that was cut off may have counted: the same ids make it the same rows."""
        records = [each.record for each in batch]
        until, tries = self._clock.monotonic() + _PATIENCE_S, 0
        while True:
            tries += 1
            try:
                leftover = await land(self._sink, records)
                break
            except SinkUnavailable as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001  nobody may wait for ever for what we did not foresee
                _log.exception("journal.commit_failed")
                reason = type(error).__name__
            pause_s = _PAUSE_S * random.uniform(1.0, 2.0)  # noqa: S311  jitter, no secret
            given_up = self._clock.monotonic() + pause_s > until or all(each.committed.done() for each in batch)
            if given_up or tries > 1:  # a connection that was lost while nobody looked is no database that is away
                self._missed(reason)
            if given_up:
                _tell(batch, _away())
                self._telemetry.journal_committed("given_up", len(batch))
                return
            await asyncio.sleep(pause_s)
        self._found()
        self._answer(batch, leftover, "repeated" if tries > 1 else "committed")

    def _answer(self, batch: Sequence[_Waiting], leftover: Leftover, outcome: str) -> None:
        failed = {id(record) for record in leftover.missing} | {id(record) for record, _ in leftover.refused}
        if failed:
            reasons = sorted({"no partition" for _ in leftover.missing} | {reason for _, reason in leftover.refused})
            _log.error("journal.not_committed", records=len(failed), reasons=reasons)
            _tell([each for each in batch if id(each.record) in failed], _away())
            self._telemetry.journal_committed("given_up", len(failed))
        for each in batch:
            if not each.committed.done():
                each.committed.set_result(None)
        if len(batch) > len(failed):
            self._telemetry.journal_committed(outcome, len(batch) - len(failed))

    def _missed(self, reason: str) -> None:
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
            _log.error("journal.database_away", reason=reason)

    def _found(self) -> None:
        if self._away_since is not None:
            _log.info("journal.database_back", after_s=round(self._clock.monotonic() - self._away_since, 3))
            self._away_since = None

    def _look_for_it(self) -> None:
        """Asks something small once a second, beside the requests that are refused meanwhile."""
        busy = self._rounds is not None and not self._rounds.done()  # the connection is in use: what waits will find out
        if busy or (self._look and not self._look.done()) or self._clock.monotonic() < self._look_at:
            return
        self._look_at = self._clock.monotonic() + _LOOK_EVERY_S
        self._look = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        try:
            await self._sink.erased((), ())
        except SinkUnavailable:
            return
        self._found()


def _tell(batch: Sequence[_Waiting], error: LogUnavailable) -> None:
    for each in batch:
        if not each.committed.done():
            each.committed.set_exception(LogUnavailable(error.message, **error.details))


def _away() -> LogUnavailable:
    return LogUnavailable("The prediction log's database cannot be written.", retry_after_ms=_RETRY_MS)
