"""Keeps this machine's last good state up to date, in a thread beside the one that answers: by one process, a moment after a change.

It asks the database itself what changed since what is on the disk, so it holds no tenant in memory, and whoever takes its place goes on
from the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
import time
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

import structlog

from app.db.sync import SyncDatabase
from app.errors import AppError
from app.prediction.last_good.state import Head, LastGoodFiles, Part, StateRefused, part_of
from app.prediction.picture import FROZEN, read_all_rows, read_changed_rows, read_mark
from app.tenancy.types import TenantStatus

if TYPE_CHECKING:
    from app.db.breaker import DatabaseBreaker
    from app.kernel.clock import Clock
    from app.prediction.last_good.state import Tenants
    from app.prediction.picture import RawNews
    from app.tenancy.sealed_files import SealedFolder

_SOON_S = 0.5  # after a change: what comes with it is written with it
_REST = 4.0  # so many times as long as writing took, nothing is written
_CONFIRM_EVERY_S = 60.0
_FRESH_MS = 30_000
_AGAIN_S = 5.0  # after a failure
_AT_ONCE = 50  # tenants: some milliseconds of work between two breaths
_BREATH_S = 1.0  # far below the time for which a transaction may stand still
_STOP_WITHIN_S = 1.0
_LOCK = "lock"
log = structlog.get_logger()


class StateTelemetry(Protocol):
    def last_good_confirmed(self, unix_seconds: float) -> None:
        """The state on the disk is as the database said at this moment."""


@dataclass(slots=True)
class Written:
    """What one writing did: portions written, and those looked at."""

    parts: int = 0
    seen: int = 0


class StateWriter:
    """Brings the files up to what a database says. For one caller at a time; blocks while it writes."""

    def __init__(self, files: LastGoodFiles, clock: Clock) -> None:
        self._files, self._clock = files, clock
        self.head: Head | None = None
        self._sound: dict[str, Part] = {}

    async def resume(self, connection: object) -> bool:
        """Whether what is on the disk is whole, and of this database's past: then what changed since can be added to it.

        Raises AppError.
        """
        self.head = None
        try:
            head = self._files.head()
        except StateRefused as refused:
            log.warning("last_good_state_replaced", why=str(refused))
            return False
        self._sound = {} if head is None else self._files.sound(head)
        if head is None:
            return False
        if len(self._sound) < len(head.parts):
            log.warning("last_good_state_replaced", why="portions are damaged or missing")
        elif head.mark and head.mark == await read_mark(connection, head.generation):
            self.head = head
        return self.head is not None

    async def write_all(self, connection: object) -> Written:
        """Everything anew; of portions that were found to be as they should nothing is written. Raises AppError, OSError."""
        before = self._sound if self.head is None else self.head.parts
        done, generation = Written(), 0
        parts: dict[str, Part] = {}
        waiting: Tenants = {}
        began = time.thread_time()
        async for news in read_all_rows(connection, _AT_ONCE):
            generation = news.generation
            waiting |= _living(news)
            last = part_of(news.whose[-1])  # tenants come by id: only the last one's portion can have more
            for name, tenants in _by_part({t: rows for t, rows in waiting.items() if part_of(t) != last}).items():
                self._write_part(parts, name, tenants, before, done)
            waiting = {t: rows for t, rows in waiting.items() if part_of(t) == last}
            await asyncio.sleep(min(time.thread_time() - began, _BREATH_S))  # half of the time is others'
            began = time.thread_time()
        for name, tenants in _by_part(waiting).items():
            self._write_part(parts, name, tenants, before, done)
        self._name(Head(generation, self._clock.time_ms(), parts, await read_mark(connection, generation)))
        return done

    async def write_changed(self, connection: object) -> Written:
        """What changed since. Raises AppError, OSError; StateRefused where the files are not as this process left them."""
        head = self.head
        news = None if head is None else await read_changed_rows(connection, head.generation)
        if head is None or news is None:
            return await self.write_all(connection)
        done, parts, now = Written(), dict(head.parts), _living(news)
        for name, whose in groupby(sorted(news.whose), key=part_of):
            tenants = self._files.part(name, parts[name]) if name in parts else {}
            for tenant_id in whose:
                tenants.pop(tenant_id, None)
                if tenant_id in now:
                    tenants[tenant_id] = now[tenant_id]
            self._write_part(parts, name, tenants, parts, done)
        self._name(Head(news.generation, self._clock.time_ms(), parts, await read_mark(connection, news.generation)))
        return done

    def confirm(self, at_ms: int) -> None:
        """Nothing changed, and the database said so at this moment. Raises OSError."""
        if self.head is not None:
            self._name(replace(self.head, confirmed_ms=at_ms))

    def _write_part(self, parts: dict[str, Part], name: str, tenants: Tenants, before: dict[str, Part], done: Written) -> None:
        known = before.get(name)
        part = self._files.write_part(name, tenants, known)
        done.seen, done.parts = done.seen + 1, done.parts + (part is not None and part is not known)
        parts.pop(name, None)
        if part is not None:
            parts[name] = part

    def _name(self, head: Head) -> None:
        self._files.write_head(head)
        self.head = head


class LastGoodKeeper:
    """One a serving process; the one that has the lock writes."""

    def __init__(self, sync_url: str, folder: SealedFolder, telemetry: StateTelemetry, clock: Clock, breaker: DatabaseBreaker) -> None:
        self._folder, self._telemetry, self._clock = folder, telemetry, clock
        self._sync_url, self._breaker = sync_url, breaker
        self._writer = StateWriter(LastGoodFiles(folder, FROZEN.shape), clock)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="state keeper", daemon=True)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._lock: int | None = None
        self._sure = False  # whether the files are known to be as this process thinks
        self._seen = -1  # the newest generation that this process knows of
        self._confirmed_ms = 0

    def start(self) -> None:
        """From the loop that answers."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._begin(), self._loop)

    def confirmed(self, generation: int) -> None:
        """The database said, just now, that this is the newest generation; from any thread."""
        self._confirmed_ms = self._clock.time_ms()
        if generation != self._seen:
            self._seen = generation
            self._poke()

    def another_database(self) -> None:
        """What answers may be another server than before: its past is compared. From any thread."""
        self._sure = False
        self._poke()

    async def stop(self) -> None:
        """What changed last is on the disk when this returns, where this process writes and the database answers within a second."""
        if not self._thread.is_alive():
            return
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._end(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)
        self._loop.close()

    def _poke(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._lock is not None and self._behind():
            with contextlib.suppress(TimeoutError, AppError, OSError, StateRefused):
                async with asyncio.timeout(_STOP_WITHIN_S):
                    await self._write()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CONFIRM_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            if not self._leads():
                continue
            await asyncio.sleep(_SOON_S)
            began = self._clock.monotonic()
            try:
                if self._behind():
                    await self._write()
                elif self._writer.head is not None and self._confirmed_ms - self._writer.head.confirmed_ms > _FRESH_MS:
                    self._writer.confirm(self._confirmed_ms)
                    self._telemetry.last_good_confirmed(self._confirmed_ms / 1000)
            except (AppError, OSError, StateRefused) as error:
                self._failed(getattr(error, "code", type(error).__name__))
            except Exception:
                log.exception("last_good_state_broke")
                self._failed("")
            await asyncio.sleep(_REST * (self._clock.monotonic() - began))

    def _failed(self, why: str) -> None:
        """The state from before stays on the disk; its portions may be others than this process thinks."""
        self._sure = False
        if why:
            log.warning("last_good_state_not_written", why=why)
        self._loop.call_later(_AGAIN_S, self._wake.set)

    def _behind(self) -> bool:
        head = self._writer.head
        return not self._sure or head is None or head.generation != self._seen

    async def _write(self) -> None:
        sure, self._sure = self._sure, True
        database = SyncDatabase(self._sync_url, breaker=self._breaker)
        try:
            async with database.driver_connection() as connection:
                if not sure:
                    await self._writer.resume(connection)
                done = await self._writer.write_changed(connection)
        finally:
            await database.close()
        head = self._writer.head
        if head is not None:
            self._telemetry.last_good_confirmed(head.confirmed_ms / 1000)
            log.info("last_good_state_written", generation=head.generation, portions=done.parts, looked_at=done.seen)

    def _leads(self) -> bool:
        """Whether this process is the one of the machine that writes; the kernel lets go of the lock when its holder dies."""
        if self._lock is not None:
            return True
        try:
            self._folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder.path / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("last_good_state_not_written", why=str(error.strerror))
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._lock = lock
        return True


def _living(news: RawNews) -> Tenants:
    """The rows by tenant, without those of erased ones: of these nothing is kept here."""
    erased = {row.tenant_id for row in news.rows["tenants"] if row.status == TenantStatus.ERASED.value}
    return {tenant_id: rows for tenant_id, rows in FROZEN.by_owner(news.rows).items() if tenant_id not in erased}


def _by_part(tenants: Tenants) -> dict[str, Tenants]:
    found: dict[str, Tenants] = {}
    for tenant_id, rows in tenants.items():
        found.setdefault(part_of(tenant_id), {})[tenant_id] = rows
    return found
