"""A database that does not answer is known not to: callers hear so at once, and one connection a second finds out when it is back.

One a process, asked before anything is. A server that is frozen costs the first callers their two seconds, and nobody else; a server
that refuses connections, for it is gone or full, is not asked for more than one a second. What it refuses for the statement's own sake
(locks, a statement that took too long, values) says nothing about it.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import asyncpg
import structlog

from app.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

T = TypeVar("T")
OPENS_AFTER = 3  # calls in a row that found nobody; one that waited for its whole time is enough
PACE_S = 1.0  # between attempts to connect, once one has failed; up to a quarter more, so that processes do not move in step
RETRY_AFTER_MS = 1000
# Of SQLSTATE: connection exceptions; shutting down, crashed, starting up.
_AWAY_CLASS, _AWAY = "08", {"57P01", "57P02", "57P03"}
log = structlog.get_logger()


class DatabaseAway(Unavailable):
    """It was not asked: it has just been found not to answer."""


class DatabaseBreaker:
    """Of one process; from any thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._guard = threading.Lock()
        self._failures = 0
        self._opened_at: float | None = None
        self._connect_failed = self._connecting = False
        self._connect_at = 0.0
        self._waiting: dict[object, Callable[[], object]] = {}

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    @property
    def open_for_s(self) -> float:
        """0 where it is closed."""
        opened_at = self._opened_at
        return 0.0 if opened_at is None else self._now() - opened_at

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Inside, the database is used; whether it answered is remembered. Raises DatabaseAway while it is known not to."""
        if self._opened_at is not None:
            raise away()
        try:
            yield
        except Unavailable as error:
            self.failed(error)
            raise
        self.answered()

    async def connect(self, make: Callable[[], Awaitable[T]], *, probe: bool = False) -> T:
        """What `make` makes: a connection. While it is open only a `probe` may try, and after a failure one at a time, once a second.

        Raises DatabaseAway where it is not tried, and what `make` raises.
        """
        self._take_turn(probe)
        try:
            made = await make()
        except asyncio.CancelledError:  # who gave up says nothing of the database
            self._give_back_turn()
            raise
        except BaseException as error:
            self._end_turn(failed=True)
            if isinstance(error, Unavailable):
                self.failed(error)
            raise
        self._end_turn(failed=False)
        return made

    @asynccontextmanager
    async def while_it_answers(self) -> AsyncIterator[None]:
        """Raises TimeoutError inside as soon as somebody finds that the database does not answer: for who would wait long for it."""
        loop, me = asyncio.get_running_loop(), object()
        async with asyncio.timeout(None) as waiting:

            def give_up() -> None:
                if me in self._waiting:
                    waiting.reschedule(loop.time())

            self._waiting[me] = lambda: loop.call_soon_threadsafe(give_up)
            try:
                yield
            finally:
                del self._waiting[me]

    def answered(self) -> None:
        """The database did what it was asked."""
        if self._failures or self._opened_at is not None:
            with self._guard:
                was_open, self._failures, self._opened_at = self._opened_at is not None, 0, None
            if was_open:
                log.info("database_answers_again")

    def failed(self, error: Unavailable) -> None:
        """The database did not do what it was asked, for this reason."""
        reason = _reason(error)
        if reason is None:
            return
        with self._guard:
            self._failures += OPENS_AFTER if isinstance(reason, TimeoutError) else 1
            opens = self._opened_at is None and self._failures >= OPENS_AFTER
            if opens:
                self._opened_at = self._now()
        if opens:
            log.warning("database_away", why=type(reason).__name__)
            for give_up in list(self._waiting.values()):
                with suppress(RuntimeError):  # its loop is closed
                    give_up()

    def _take_turn(self, probe: bool) -> None:
        with self._guard:
            if self._opened_at is not None and not probe:
                raise away()
            if self._connect_failed:
                if self._connecting or self._now() < self._connect_at:
                    raise away()
                self._connecting = True

    def _give_back_turn(self) -> None:
        with self._guard:
            self._connecting = False

    def _end_turn(self, *, failed: bool) -> None:
        with self._guard:
            self._connecting = False
            self._connect_failed = failed
            self._connect_at = self._now() + PACE_S * random.uniform(1.0, 1.25)  # noqa: S311  jitter, no secret


class NoBreaker(DatabaseBreaker):
    """For who uses a database alone, like a command: each call asks anew, and nobody is told."""

    async def connect(self, make: Callable[[], Awaitable[T]], *, probe: bool = False) -> T:  # noqa: ARG002  whoever asks may try
        return await make()

    def failed(self, error: Unavailable) -> None:
        """Nothing is remembered."""


def away() -> DatabaseAway:
    return DatabaseAway("The database cannot answer right now. Try again.", retry_after_ms=RETRY_AFTER_MS)


def _reason(error: BaseException) -> BaseException | None:
    """What says that nobody is there, in what led to `error`; None: the server spoke."""
    if isinstance(error, DatabaseAway):
        return None
    at: BaseException | None = error.__cause__
    while at is not None:
        state = str(getattr(at, "sqlstate", None) or "")
        if isinstance(at, asyncpg.PostgresError) and state:
            return at if state.startswith(_AWAY_CLASS) or state in _AWAY else None
        if isinstance(at, (TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresError)):
            return at
        at = getattr(at, "orig", None) or at.__cause__
    return None
