"""The picture is followed in a thread with an event loop of its own, beside the one that answers requests.

A busy loop takes a turn around all its clients between any two steps of anything else, so that a promotion, which is some six steps,
would take effect after a tenth of a second and more. The thread waits for the database alone, and what it replaces is one entry of a
dictionary. Models are opened, and versions validated, in the loop that answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import structlog

from app.db.line import Line
from app.db.outbox import CHANNEL
from app.db.sync import SyncDatabase
from app.errors import Unavailable
from app.prediction.last_good.instead import instead
from app.prediction.refresher import Refresher
from app.registry.life_signs import LifeSigns
from app.registry.replicas import Replica

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Iterable
    from pathlib import Path
    from uuid import UUID

    from app.db.breaker import DatabaseBreaker
    from app.errors import AppError
    from app.kernel.clock import Clock
    from app.prediction.last_good.machine import LastGood
    from app.prediction.pool import Key, RuntimePool
    from app.prediction.ports import FlagMaker
    from app.prediction.routing import RoutingTable
    from app.registry.types import PendingValidation, VersionRoute
    from app.registry.validation import Validator
    from app.tenancy.directory import TenantDirectory

T = TypeVar("T")
_JOIN_AGAIN_S = 1.0
log = structlog.get_logger()


class Follower:
    """One a serving process: hears, reads, applies, acknowledges. Its methods are for the loop that answers requests."""

    def __init__(
        self,
        sync_url: str,
        runtime_url: str,
        name: str,
        directory: TenantDirectory,
        table: RoutingTable,
        pool: RuntimePool,
        validator: Validator,
        flags: FlagMaker,
        clock: Clock,
        breaker: DatabaseBreaker | None = None,
        last_good: LastGood | None = None,
        signs: Path | None = None,
    ) -> None:
        """`last_good`: what serves where the database does not answer at the start. `breaker`: of this process. `signs`: the folder
        in which processes of this machine see each other end.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="follower", daemon=True)
        self._home = _Home(pool, validator)
        self._last_good = last_good
        self._breaker = breaker
        self._database = SyncDatabase(sync_url, breaker=breaker)
        self._listening = Line(sync_url, "listener", breaker=breaker, probe=True, default_transaction_read_only="on")
        self._recording = Line(runtime_url, "replica", breaker=breaker, synchronous_commit="off")  # a crash may lose what it claims
        replica_id = uuid4()
        own_signs = None if signs is None else LifeSigns(signs, replica_id)
        self._replica = Replica(self._recording, replica_id, name, clock, own_signs)
        home = self._home
        keeper = None if last_good is None else last_good.keeper
        self._refresher = Refresher(self._listening, self._database, directory, table, home, home, self._replica, flags, clock, keeper)
        self._listening.listen(CHANNEL, self._refresher.heard, self._refresher.line_up)
        self._lines: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._joining: asyncio.Task[None] | None = None
        self._joined = False

    @property
    def refreshed_at(self) -> float | None:
        """Monotonic seconds at which the database last said that things are so, to this process or to one before; None: never."""
        return self._refresher.refreshed_at

    @property
    def from_disk(self) -> bool:
        """Whether the last good state serves, for the database has not been heard since the start."""
        return self._refresher.from_disk

    @property
    def database_away(self) -> bool:
        """Whether the database was found not to answer, and is asked only once a second."""
        return self._breaker is not None and self._breaker.is_open

    @property
    def opening(self) -> bool:
        """Whether the versions of the first picture are being opened, and nobody waits for this replica yet."""
        return not self._joined

    async def start(self) -> None:
        """The first picture; its versions go on opening. Where the database does not answer for a second, the last good state
        serves; where there is none, there is no picture yet, and `join` goes on looking.
        """
        self._home.loop = asyncio.get_running_loop()
        self._thread.start()
        if self._last_good is not None:
            self._last_good.keeper.start()
        await self._there(self._first_picture())

    async def join(self) -> None:
        """Keeps the picture fresh from now on; returns when this process counts as a replica, which takes open models and a database.

        Without a database it is ready once the last good state's models are open.
        """
        await self._there(self._join())

    async def stop(self) -> None:
        """Says goodbye to the other replicas, and ends."""
        if not self._thread.is_alive():
            return
        if self._last_good is not None:
            await self._last_good.keeper.stop()
        await self._there(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    def wake(self) -> None:
        """Look now rather than at the next poll."""
        self._loop.call_soon_threadsafe(self._refresher.wake)

    def flags_changed(self) -> None:
        """A flag server said something new; from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody answers any more
            self._loop.call_soon_threadsafe(self._refresher.reflag)

    async def caught_up(self, tenant_id: UUID | None = None) -> None:
        """Returns when this process serves what was committed before the call, or after two seconds; of one tenant where it is named."""
        await self._there(self._refresher.caught_up(tenant_id))

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _first_picture(self) -> None:
        self._lines = [asyncio.create_task(line.run()) for line in (self._listening, self._recording)]
        look = asyncio.create_task(self._refresher.start())
        kept = await instead(look, lambda: self._listening.is_up, (lambda: None) if self._last_good is None else self._last_good.state.read)
        if look.cancelled() or look.exception() is not None:
            log.warning("database_away_at_start")
        if kept is not None:
            await self._refresher.adopt(kept)

    async def _join(self) -> None:
        self._joining = asyncio.current_task()
        self._tasks.append(asyncio.create_task(self._refresher.run()))
        await self._refresher.pictured.wait()
        await self._refresher.settled()  # a replica claims what it serves, so it joins with its versions open
        self._joined = self._refresher.from_disk
        await self._refresher.looked.wait()
        while True:
            try:
                await self._replica.join()
                break
            except Unavailable:
                await asyncio.sleep(_JOIN_AGAIN_S)
        self._tasks.append(asyncio.create_task(self._replica.run()))
        await self._refresher.caught_up()  # what was committed before anybody could wait for this replica
        self._joined = True

    async def _leave(self) -> None:
        await _end([*self._tasks, *([self._joining] if self._joining is not None else [])])
        await self._replica.leave()
        await _end(self._lines)
        await self._database.close()


class _Home:
    """What the follower asks of the loop that answers requests."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, pool: RuntimePool, validator: Validator) -> None:
        self._pool = pool
        self._validator = validator

    def opened(self, tenant_id: UUID, route: VersionRoute) -> object | None:
        return self._pool.opened(tenant_id, route)

    async def warm(self, tenant_id: UUID, routes: Collection[VersionRoute]) -> list[tuple[VersionRoute, AppError]]:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._pool.warm(tenant_id, routes), self.loop))

    def share_of(self, routes: Iterable[VersionRoute]) -> float:
        return self._pool.share_of(routes)

    def shut(self, tenant_id: UUID) -> None:
        asyncio.run_coroutine_threadsafe(self._pool.shut(tenant_id), self.loop)

    def keep(self, needed: frozenset[Key], of: Collection[UUID]) -> None:
        self.loop.call_soon_threadsafe(self._pool.keep, needed, of)

    def consider(self, pending: Collection[PendingValidation]) -> None:
        if pending:
            self.loop.call_soon_threadsafe(self._validator.consider, pending)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
