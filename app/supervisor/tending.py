"""What the owner does for the data itself, in the parent process and in slices: erased units and tenants swept, old rows deleted.

The parent must notice a death or a signal within moments, so nothing here takes longer than a slice. What is heavy to import is
imported when there is something to do.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from app.db.driver import connect, translated
from app.errors import AppError, ConfigurationError
from app.journal.depth import missing_days
from app.journal.partitions import ensure_partitions
from app.kernel.home import SPOOL, TOMBSTONES
from app.supervisor.console import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    from app.kernel.clock import Clock
    from app.supervisor.sweeping import Sweeper

T = TypeVar("T")
_EVERY_S = 1.0
_AGAIN_AFTER_S = 10.0
_SLICE_S = 0.5
_REACH_WITHIN_S = 2.0  # a server that is frozen must not hold up who looks after children
_FIRST_ROUND_S, _ROUND_EVERY_S = 300.0, 3600.0
_DAYS_EVERY_S, _DAYS_AT_ONCE = 3.0, 31
_LEADER = 7_236_114_903  # advisory: one machine at a time sweeps
_SERVER = {"application_name": "turnout-sweep", "timezone": "UTC", "search_path": "public", "statement_timeout": "10000"}
_UNSWEPT = "select exists (select from tombstones where swept_at is null)"


class Tender:
    """One a parent process. Nothing is asked of the database before the first `tend`."""

    def __init__(self, owner_url: str, home: Path, clock: Clock) -> None:
        self._url, self._home, self._clock = owner_url, home, clock
        self._runner: asyncio.Runner | None = None
        self._connection: Any = None
        self._leading = False
        self._sweeper: Sweeper | None = None
        self._work: AsyncIterator[int] | None = None
        self._look_at = self._days_at = 0.0
        self._round_at = time.monotonic() + _FIRST_ROUND_S
        self._trouble = ""

    def tend(self) -> None:
        """One slice, where there is something to do; else a question once a second. Failures are said, not raised.

        Once an hour a round looks at every tenant: what is older than it may be, what is left of the erased, what the file lacks.
        """
        if time.monotonic() < self._look_at:
            return
        try:
            self._make_days()
            busy = self._run(self._slice())
        except (AppError, ConfigurationError) as error:
            self._drop()
            self._look_at = time.monotonic() + _AGAIN_AFTER_S
            if self._trouble != str(error):
                say(f"what was erased could not be swept ({error}); tried again every {_AGAIN_AFTER_S:.0f} s")
            self._trouble = str(error)
        else:
            self._trouble = ""
            self._look_at = 0.0 if busy else time.monotonic() + _EVERY_S

    def _make_days(self) -> None:
        """A partition that somebody dropped, or that is of a day long ago, is made as soon as the drain of this machine asks for it."""
        days = missing_days(self._home / SPOOL)
        if not days or time.monotonic() < self._days_at:
            return
        self._days_at = time.monotonic() + _DAYS_EVERY_S
        if made := self._run(ensure_partitions(self._url, self._clock, also=days[:_DAYS_AT_ONCE])):
            say(f"made {len(made)} day{'s' * (len(made) > 1)} of the prediction log that records wait for")

    def finish(self) -> int:
        """Everything that is to do now, a whole round included: how many rows changed or went. Raises Unavailable, ConfigurationError."""

        async def all_of_it() -> int:
            rows = 0
            await ensure_partitions(self._url, self._clock, also=missing_days(self._home / SPOOL)[:_DAYS_AT_ONCE])
            if await self._leads():
                sweeper = self._open()
                await sweeper.stand_again()
                for work in (sweeper.erased(), sweeper.round()):
                    async for each in work:
                        rows += each
            return rows

        return self._run(all_of_it())

    def stand_again(self) -> None:
        """After a restore: what the file knows and the database does not is erased again, before anybody is served. Raises as `finish`."""
        if not (self._home / TOMBSTONES).exists():
            return

        async def work() -> int:
            return await self._open().stand_again()

        if again := self._run(work()):
            say(f"this database is older than {again} erasure{'s' * (again > 1)}: they are made again")

    def close(self) -> None:
        """Lets go of the database; whatever was under way begins anew another time."""
        self._drop()
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(work)

    async def _slice(self) -> bool:
        """Whether there is more to do at once."""
        end = time.monotonic() + _SLICE_S
        while time.monotonic() < end:
            if self._work is None and not await self._begin():
                return False
            try:
                await anext(self._work)  # type: ignore[arg-type]
            except StopAsyncIteration:
                self._work = None
        return True

    async def _begin(self) -> bool:
        if not await self._leads():
            return False
        with translated():
            unswept = await self._connection.fetchval(_UNSWEPT, timeout=_REACH_WITHIN_S)
        if unswept:
            self._work = self._open().erased()
        elif time.monotonic() >= self._round_at:
            self._round_at = time.monotonic() + _ROUND_EVERY_S
            self._work = self._open().round()
        return self._work is not None

    async def _leads(self) -> bool:
        """Whether this connection is, among all machines' parents, the one that sweeps."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, timeout_s=_REACH_WITHIN_S, command_timeout=15.0, server_settings=_SERVER)
            self._leading = False
        if not self._leading:
            with translated():
                self._leading = bool(await self._connection.fetchval("select pg_try_advisory_lock($1)", _LEADER, timeout=_REACH_WITHIN_S))
        return self._leading

    def _open(self) -> Sweeper:
        if self._sweeper is None:
            from app.supervisor.sweeping import Sweeper

            self._sweeper = Sweeper(self._url, self._home, self._clock)
        return self._sweeper

    def _drop(self) -> None:
        """Connections that failed once are not trusted again."""
        sweeper, self._sweeper, self._work, connection = self._sweeper, None, None, self._connection
        self._connection = None
        if connection is not None:
            connection.terminate()
        if sweeper is not None:
            with suppress(AppError):
                self._run(sweeper.close())
