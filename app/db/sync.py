"""The sync role's database: reads, across tenants, what routing needs, and can do nothing else."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from app.db.engine import Timeouts, make_engine, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection


class SyncDatabase:
    """PostgreSQL as the sync role sees it; one a process."""

    def __init__(self, url: str, timeouts: Timeouts | None = None) -> None:
        timeouts = timeouts or Timeouts()
        self._engine = make_engine(
            url,
            timeouts,
            server_settings={"default_transaction_read_only": "on"},
            isolation_level="REPEATABLE READ",
            pool_size=1,
            max_overflow=2,
            pool_timeout=timeouts.pool_s,
            pool_recycle=1800,
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection inside one read-only transaction: all its reads see one state. Raises Unavailable."""
        with translated():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def driver_connection(self) -> AsyncIterator[Any]:
        """A connection of the driver (asyncpg), outside any transaction: each statement sees one state. Raises Unavailable."""
        with translated():
            async with self._engine.connect() as connection:
                yield (await connection.get_raw_connection()).driver_connection

    async def close(self) -> None:
        """Closes the pool's connections."""
        await self._engine.dispose()
