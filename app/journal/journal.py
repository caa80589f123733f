"""The journal of one serving process: each answer goes where its tenant wants it kept, before it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.journal.types import Durability

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from app.journal.direct import DirectLog
    from app.journal.spool import Spool
    from app.journal.types import Record
    from app.kernel.clock import Deadline


class Journal:
    """The spool, and the database for DATABASE; with `diskless`, where no disk outlives the machine, for all that must survive."""

    def __init__(self, spool: Spool, direct: DirectLog, *, diskless: bool = False) -> None:
        self._spool, self._direct = spool, direct
        firm = {Durability.DURABLE, Durability.DURABLE_FSYNC} if diskless else set()
        self._in_database = frozenset({Durability.DATABASE, *firm})
        self._at_once = frozenset({Durability.DURABLE, Durability.BUFFERED}) - self._in_database

    def check_room(self, durability: Durability) -> None:
        """Returns where a record may be written; call it BEFORE predicting. Raises LogUnavailable (retry_after_ms)."""
        if durability in self._in_database:
            self._direct.check_room()
        else:
            self._spool.check_room(durability)

    def append(self, record: Record, durability: Durability, deadline: Deadline | None = None) -> Awaitable[None] | None:
        """Awaited, returns when `record` is as safe as `durability` says; None: it is. Raises LogUnavailable, DeadlineExceeded."""
        if durability in self._at_once:
            self._spool.append_now(record, durability)
            return None
        if durability in self._in_database:
            return self._direct.append(record, deadline)
        return self._spool.append(record, durability)
