"""The sweeps themselves, as the owner: each is a row of bounded transactions, told by how many rows went."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from app.db.driver import connect, translated
from app.db.engine import Timeouts
from app.db.outbox import announce
from app.db.session import Database
from app.db.tenant_rows import delete_rows
from app.db.writers import writers_gone
from app.experiments.forgetting import expire_outcomes, forget_units
from app.journal import forgetting as log
from app.tenancy.tombstone_file import TombstoneFile
from app.tenancy.tombstones import SINCE, UNSWEPT, all_present, mark_swept, restore, stones_of, tenants_to_tend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path
    from uuid import UUID

    from app.kernel.clock import Clock
    from app.tenancy.tombstones import Tombstone
    from app.tenancy.types import TenantSettings

# A slice that takes longer is cut shorter and tried again.
_TIMEOUTS = Timeouts(connect_s=5.0, statement_s=5.0, command_s=8.0, lock_s=2.0, idle_in_transaction_s=30.0)
_SERVER = {"application_name": "turnout-sweep", "timezone": "UTC", "search_path": "public", "statement_timeout": "10000"}
# Who writes to one of these looks for tombstones first, in the same statement.
_WRITTEN = ("predictions", "shadow_answers", "captured_inputs", "outcomes")
_NEWEST = 1_000  # stones of the file: a database that has these has all before them
_LATE = timedelta(days=1)  # by which a stone may stand later than its time says, among several machines
_AFTERMATH = timedelta(days=7)  # of a tenant's erasure: what was under way then may have been written since
_BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)


class Sweeper:
    """Over connections of its own, in one event loop. All raise Unavailable; begun anew, each ends what was left."""

    def __init__(self, owner_url: str, home: Path, clock: Clock) -> None:
        self._url, self._clock = owner_url, clock
        self._database = Database(owner_url, _TIMEOUTS, pool_size=1, max_overflow=1)
        self._file = TombstoneFile(home)
        self._connection: Any = None

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        await self._database.close()

    async def erased(self) -> AsyncIterator[int]:
        """Everything that unswept tombstones name goes, wherever it is. What is promised is written outside the database first."""
        connection = await self._driver()
        while stones := await self._stones(UNSWEPT):
            self._file.append(stones)
            await writers_gone(connection, _WRITTEN)
            by_tenant: dict[UUID, list[Tombstone]] = defaultdict(list)
            for stone in stones:
                by_tenant[stone.tenant_id].append(stone)
            for tenant_id, its in by_tenant.items():
                whole = any(stone.of_tenant for stone in its)
                async for rows in self._tenant(tenant_id, its) if whole else self._units(tenant_id, its):
                    yield rows

    async def round(self) -> AsyncIterator[int]:
        """Of every tenant what is older than its settings keep; of erased ones whatever came since; and the file made whole."""
        newest = max((stone.at for stone in self._file.read()), default=_BEGINNING + _LATE)
        self._file.append(await self._stones(SINCE, newest - _LATE))
        with translated():
            tenants = await tenants_to_tend(await self._driver(), self._clock.now() - _AFTERMATH)
        for tenant_id, settings in tenants:
            if settings is None:
                async for rows in delete_rows(self._database, tenant_id):
                    yield rows
                yield 0  # a slice ends here: nothing there took a moment, too
            else:
                async for rows in self._expire(tenant_id, settings):
                    yield rows

    async def stand_again(self) -> int:
        """How many stones the file knew and the database did not: it was restored from a backup, and is behind what was erased."""
        known = self._file.read()
        with translated():
            if await all_present(await self._driver(), known[-_NEWEST:]):
                return 0
        by_tenant: dict[UUID, list[Tombstone]] = defaultdict(list)
        for stone in known:
            by_tenant[stone.tenant_id].append(stone)
        again = 0
        for tenant_id, stones in by_tenant.items():
            async with self._database.tenant_tx(tenant_id) as session:
                if missing := await restore(session, tenant_id, stones):
                    await announce(session, tenant_id)
                    again += missing
        return again

    async def _units(self, tenant_id: UUID, stones: Sequence[Tombstone]) -> AsyncIterator[int]:
        units = {stone.unit_hash: stone.until for stone in sorted(stones, key=lambda stone: stone.at)}
        gone: Counter[str] = Counter()
        async for counted in log.forget_units(self._database, tenant_id, units):
            gone += counted
            yield counted.total()
        for unit, until in units.items():  # what was written, or joined to the log, while the unit was erased; after a restore, all of it
            async with self._database.tenant_tx(tenant_id) as session:
                rows = await forget_units(session, tenant_id, [unit], until)
                if rows:
                    await announce(session, tenant_id)
            gone[unit] += rows
            yield rows
        await self._done(tenant_id, stones, gone)

    async def _tenant(self, tenant_id: UUID, stones: Sequence[Tombstone]) -> AsyncIterator[int]:
        total = 0
        async for rows in delete_rows(self._database, tenant_id):
            total += rows
            yield rows
        with translated():  # the secret's old row is not to lie about either, once nobody's snapshot holds it
            await (await self._driver()).execute("vacuum tenants")
        await self._done(tenant_id, stones, {stone.unit_hash: total for stone in stones if stone.of_tenant})

    async def _done(self, tenant_id: UUID, stones: Sequence[Tombstone], rows: Mapping[str, int]) -> None:
        async with self._database.tenant_tx(tenant_id) as session:
            await mark_swept(session, stones, rows, self._clock.now())

    async def _expire(self, tenant_id: UUID, settings: TenantSettings) -> AsyncIterator[int]:
        before = self._clock.now() - timedelta(days=settings.retention_days)
        window = timedelta(days=settings.outcome_window_days)
        more = True
        while more:
            async with self._database.tenant_tx(tenant_id) as session:
                logged, more_logged = await log.expire(session, tenant_id, before)
                happened, more_happened = await expire_outcomes(session, tenant_id, before - window)
            more = more_logged or more_happened
            yield logged + happened

    async def _stones(self, query: str, *given: Any) -> list[Tombstone]:
        with translated():
            return await stones_of(await self._driver(), query, *given)

    async def _driver(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, command_timeout=30.0, server_settings=_SERVER)
        return self._connection
